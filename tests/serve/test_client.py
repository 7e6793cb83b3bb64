"""The client: the same results as `VideoIndex`, pages, retries, and errors."""

from __future__ import annotations

import dataclasses
import json
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from PIL import Image

import impart
from helpers.clips import solid
from helpers.tiny_encoder import TinyEncoder
from helpers.tiny_server import served, use_tiny_models, write_library
from impart.errors import ConfigError, DataError, ImpartError, IndexLockedError, QueryError, VideoIndexError
from impart.serve.app import create_app
from impart.serve.client.transport import error_of
from impart.serve.settings import ServeSettings
from impart.video.index.durable.lock import write_lock
from impart.video.index.index import VideoIndex
from impart.video.names import store
from impart.video.search.hits import Hit
from impart.video.search.query import Query


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_library(tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="module")
def client(library: Path) -> Iterator[impart.Client]:
    use_tiny_models()
    with served(create_app(ServeSettings(index=library))) as address, impart.Client(address) as client:
        yield client


@pytest.fixture(scope="module")
def index(library: Path) -> VideoIndex:
    return VideoIndex.open(library, TinyEncoder())


@pytest.fixture
def changing(library: Path, tmp_path: Path) -> Iterator[tuple[impart.Client, VideoIndex]]:
    """Serve a copy of the library that a test may change."""
    use_tiny_models()
    place = Path(shutil.copytree(library, tmp_path / "library.impart"))
    with served(create_app(ServeSettings(index=place))) as address, impart.Client(address) as client:
        yield client, VideoIndex.open(place, TinyEncoder())


@pytest.mark.parametrize(
    "asked",
    [
        {"text": "red"},
        {"text": "red", "top": 2},
        {"text": "blue", "group": "moment"},
        {"text": "cyan", "group": "scene", "by": "mean"},
        {"text": "yellow", "group": "frame", "top": 100},
        {"text": "red", "not_text": ["blue"]},
        {"text": "magenta", "kind": "photo"},
        {"text": "red", "min_length": "5s", "max_length": 7},
        {"text": "red", "since": "2024", "until": "2050-01", "why": True},
        {"text": "a thing"},
    ],
    ids=str,
)
def test_a_search_gives_the_hits_of_the_index(client: impart.Client, index: VideoIndex, asked: dict[str, Any]) -> None:
    here = index.search(**asked)
    assert here
    assert client.search(**asked) == here


def test_folders_sequences_and_similar_moments_are_those_of_the_index(
    client: impart.Client, index: VideoIndex, library: Path
) -> None:
    trip = library.parent / "films" / "trip"
    assert client.search(text="red", folder=trip) == index.search(text="red", folder=trip) != []
    then = Query(text="red", then=Query(text="green"), within_s=5)
    queries = [then, Query(text="white")]
    assert client.search_many(queries, group="moment") == index.search_many(queries, group="moment")
    video = library.parent / "films" / "a.mp4"
    here = index.similar(video, 0.5, top=3)
    for named in (video, "a.mp4", here[0].path.name and index.videos()[0].video_id):
        assert client.similar(named, 0.5, top=3) == here


def test_lists_are_those_of_the_index(client: impart.Client, index: VideoIndex) -> None:
    served_videos = client.videos()
    assert [video.path for video in served_videos] == [video.path for video in index.videos()]
    for there, here in zip(served_videos, index.videos(), strict=True):
        for name in ("video_id", "kind", "duration_s", "width", "codec", "size_bytes", "indexed_at", "problem"):
            assert getattr(there, name) == getattr(here, name)
        assert there.scenes == len(here.scene_starts)
    assert client.scenes("a.mp4") == index.scenes("a.mp4")
    assert client.scenes("a.mp4")[0].vector.shape == (0,)


def test_names_are_taught_found_and_removed(changing: tuple[impart.Client, VideoIndex], tmp_path: Path) -> None:
    client, index = changing
    Image.fromarray(solid("red")).save(tmp_path / "red.png")
    added = client.names.add("Rex", [tmp_path / "red.png", "a.mp4@6.5", np.asarray(solid("orange"))])
    assert added.added["Rex"] + len(added.known) == 3
    assert not added.failed
    for keywords in ({}, {"top": 2}, {"by_time": True}, {"top": 1, "by_time": True}):
        assert client.find("rex", **keywords) == index.find("Rex", **keywords) != []  # type: ignore[arg-type]
    there, here = client.names.list(check=True)[0], index.names.list(check=True)[0]
    assert (there.name, there.images, there.in_force, there.sources) == (
        here.name, here.images, here.in_force, here.sources,
    )  # fmt: skip
    assert there.report is not None
    assert here.report is not None
    assert there.report.remarks == here.report.remarks
    assert there.report.found.tolist() == here.report.found.tolist()
    assert client.search(text="rex") == index.search(text="rex")
    many = [solid("orange", size=(40 + size, 40)) for size in range(21)]  # more than the server takes at once
    assert client.names.add("Many", many).added == {"Many": 21}
    assert client.names.remove("Many") == 21
    assert client.names.rename("REX", "Max") == "Max"
    assert client.names.remove("max", ["red.png"]) == 1
    with pytest.raises(QueryError, match="has no image"):
        client.names.remove("Max", ["red.png"])
    assert client.names.remove("Max", hashes=client.names.list()[0].hashes[:1]) == 1
    assert client.names.list() == () or client.names.remove("Max") >= 1
    with pytest.raises(QueryError, match="no name 'Max'"):
        client.find("Max")
    with pytest.raises(DataError):
        client.names.add("Rex", [Path(store.__file__)])
    with pytest.raises(DataError, match="cannot be read"):
        client.names.add("Rex", ["missing.png"])


def test_errors_are_those_of_the_library(
    changing: tuple[impart.Client, VideoIndex], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, index = changing
    monkeypatch.setattr(store, "_WAIT_S", 0.01)
    with store.names_lock(index.path), pytest.raises(IndexLockedError, match="teaching names"):
        client.names.add("Rex", [Image.new("RGB", (40, 40), "red")])
    with pytest.raises(ConfigError, match="is no name"):
        client.names.add(" ", [Image.new("RGB", (40, 40), "red")])
    with pytest.raises(QueryError, match="is not in the index"):
        client.scenes("nothing.mp4")
    with pytest.raises(QueryError):
        client.scenes("0" * 16)
    with pytest.raises(QueryError, match="it ends at"):
        client.similar("a.mp4", 1000.0)
    with pytest.raises(QueryError, match="a query needs"):
        client.search(not_text=["red"])
    with pytest.raises(QueryError, match="cannot read the date"):
        client.search(text="red", since="soon")
    with pytest.raises(QueryError, match="takes no path_glob"):
        client.search_many([Query(text="red")], path_glob="*.mp4")
    with pytest.raises(QueryError, match="no terms"):
        client.search_many([Query(text="red", also=Query(text="blue"))])
    with pytest.raises(QueryError, match="top is 0"):
        client.search(text="red", top=0)
    with write_lock(index.path):
        assert client.search(text="red")


def test_codes_have_their_classes() -> None:
    def kind(status: int, code: str) -> type[ImpartError]:
        return type(error_of(status, {"code": code, "detail": ""}, address="http://localhost"))

    assert kind(409, "encoder_mismatch") is impart.errors.EncoderMismatchError  # type: ignore[attr-defined]
    assert kind(422, "cannot_decode") is impart.errors.DecodeError  # type: ignore[attr-defined]
    assert kind(503, "index_unavailable") is VideoIndexError
    assert kind(401, "wrong_token") is ConfigError
    assert kind(413, "too_large") is DataError
    assert kind(418, "something_new") is QueryError
    assert kind(500, "something_new") is VideoIndexError


def test_no_server_and_no_server_of_impart_are_told() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with impart.Client(address) as client, pytest.raises(VideoIndexError, match="start it with: impart serve"):
        client.search(text="red")
    other = FastAPI(openapi_url=None)
    with (
        served(other) as address,
        impart.Client(address) as client,
        pytest.raises(VideoIndexError, match="no server of"),
    ):
        client.videos()
    for wrong in ("ftp://host", "http://", ""):
        with pytest.raises(ConfigError, match="no address"):
            impart.Client(wrong)


def test_pages_of_the_server_are_the_hits_of_the_index(
    client: impart.Client, index: VideoIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("impart.serve.client.client._PAGE", 2)
    for group in ("video", "scene", "frame"):
        assert client.search(text="red", group=group, top=9) == index.search(text="red", group=group, top=9)  # type: ignore[arg-type]


def test_an_image_finds_what_it_finds_in_the_index(client: impart.Client, index: VideoIndex, tmp_path: Path) -> None:
    Image.fromarray(solid("blue")).save(tmp_path / "blue.png")
    here = index.search(image=tmp_path / "blue.png", top=3)
    for image in (tmp_path / "blue.png", solid("blue"), Image.fromarray(solid("blue"))):
        assert [hit.video_id for hit in client.search(image=image, top=3)] == [hit.video_id for hit in here]


def test_counts_and_failures_are_those_of_the_index(client: impart.Client, index: VideoIndex) -> None:
    assert client.stats() == dataclasses.replace(index.stats(), blending=None)
    assert client.failures() == []


class Stub:
    """A server that answers the contract of pages, image searches, jobs and exports, with its failures."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.busy: list[tuple[int, str]] = []
        self.slow_s = 0.0
        self.status, self.error = "done", None
        self.breaks = 0
        self.app = app = FastAPI()

        @app.middleware("http")
        async def busy(request: Request, call_next: Any) -> Any:
            self.requests.append(request.headers.get("authorization"))
            if self.busy:
                status, wait = self.busy.pop(0)
                body = {"code": "busy", "detail": "too much at once"}
                return JSONResponse(body, status, headers={"Retry-After": wait})
            return await call_next(request)

        @app.post("/api/v1/search")
        async def search(request: Request) -> Any:
            time.sleep(self.slow_s)
            if request.headers["content-type"].startswith("multipart"):
                form = await request.form()
                asked, content = json.loads(str(form["request"])), await form["image"].read()  # type: ignore[union-attr]
                self.requests.append(content)
            else:
                asked = await request.json()
            self.requests.append(asked)
            first = int(asked.get("cursor", "0"))
            last = min(first + asked["limit"], 250)
            hits = [hit_json(rank) for rank in range(first + 1, last + 1)]
            return {"hits": hits, "next_cursor": str(last) if last < 250 else None, "image_id": "abc"}

        @app.post("/api/v1/jobs/index", status_code=202)
        async def index(request: Request) -> Any:
            self.requests.append(await request.json())
            return {"id": "0" * 16}

        @app.post("/api/v1/exports", status_code=202)
        async def export(request: Request) -> Any:
            self.requests.append(await request.json())
            return {"id": "0" * 16}

        @app.get("/api/v1/exports/{job_id}/file")
        async def file() -> Any:
            return Response(b"TITLE: dogs\n", media_type="text/plain")

        @app.get("/api/v1/jobs/{job_id}/events")
        async def events(request: Request) -> Any:
            first = int(request.headers.get("last-event-id", "0"))
            self.requests.append(first)

            def lines() -> Iterator[str]:
                yield ": hello\n\n"
                for number in range(first + 1, 5):
                    yield f"id: {number}\nevent: progress\ndata: {json.dumps({'files_done': number})}\n\n"
                    if number == 2 and self.breaks:
                        self.breaks -= 1
                        return
                yield f"event: done\nid: 5\ndata: {json.dumps({'status': self.status, 'error': self.error})}\n\n"

            return StreamingResponse(lines(), media_type="text/event-stream")


def hit_json(rank: int) -> dict[str, Any]:
    lists: dict[str, list[Any]] = {name: [] for name in ("names", "steps", "moments", "near_copies", "also_at", "why")}
    times = {name: float(rank) for name in ("start_s", "end_s", "best_s", "scene_start_s", "scene_end_s", "video_s")}
    of_video = {"video_id": f"{rank:016x}", "name": "a.mp4", "path": "/films/a.mp4", "kind": "video"}
    return {"rank": rank, "score": 0.5, "recorded_at": None, "strong": True, **lists, **times, **of_video}


@pytest.fixture
def stub() -> Iterator[tuple[Stub, impart.Client]]:
    made = Stub()
    with served(made.app) as address, impart.Client(address, token="t" * 20, timeout_s=10) as client:
        yield made, client


def test_pages_are_followed_to_the_last_hit_asked_for(stub: tuple[Stub, impart.Client]) -> None:
    server, client = stub
    assert [hit.rank for hit in client.search(text="red", top=230)] == list(range(1, 231))
    asked = [one for one in server.requests if isinstance(one, dict)]
    assert [(one["limit"], one.get("cursor")) for one in asked] == [(100, None), (100, "100"), (30, "200")]
    assert len(client.search(text="red", top=1000)) == 250
    assert set(server.requests[::2]) == {"Bearer " + "t" * 20}


def test_an_image_is_uploaded_once_and_named_on_further_pages(stub: tuple[Stub, impart.Client], tmp_path: Path) -> None:
    server, client = stub
    file = tmp_path / "red.jpg"
    Image.new("RGB", (40, 40), "red").save(file)
    for image in (file, str(file), Image.new("RGB", (40, 40), "red"), solid("red")):
        server.requests.clear()
        assert len(client.search(image=image, text="a car", top=150)) == 150
        contents = [one for one in server.requests if isinstance(one, bytes)]
        asked = [one for one in server.requests if isinstance(one, dict)]
        assert len(contents) == 1
        assert contents[0] == file.read_bytes() if isinstance(image, Path | str) else contents[0][1:4] == b"PNG"
        assert asked[0] == {"text": "a car", "why": False, "limit": 100}
        assert asked[1] == asked[0] | {"limit": 50, "image_id": "abc", "cursor": "100"}
    with pytest.raises(DataError, match="cannot be read"):
        client.search(image=tmp_path / "missing.jpg")


def test_a_busy_server_is_asked_again_after_the_time_it_names(stub: tuple[Stub, impart.Client]) -> None:
    server, client = stub
    server.busy = [(429, "0.05"), (503, "0.1")]
    began = time.monotonic()
    assert client.search(text="red", top=1)
    assert 0.15 <= time.monotonic() - began < 5
    server.busy = [(429, "0.01")] * 4
    with pytest.raises(VideoIndexError, match="too much at once"):
        client.search(text="red", top=1)
    server.busy = [(429, "3600")]  # longer than the client waits
    began = time.monotonic()
    with pytest.raises(VideoIndexError, match="too much at once"):
        client.search(text="red", top=1)
    assert time.monotonic() - began < 2


def test_a_server_that_does_not_answer_is_told(stub: tuple[Stub, impart.Client]) -> None:
    server, client = stub
    server.slow_s = 1.0
    hasty = impart.Client(client._transport.address, timeout_s=0.2)
    with hasty, pytest.raises(VideoIndexError, match=r"did not answer within 0\.2 s"):
        hasty.search(text="red")


def test_a_job_is_followed_through_broken_connections(
    stub: tuple[Stub, impart.Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, client = stub
    monkeypatch.setattr("impart.serve.client.client._RECONNECT_S", 0.01)
    server.breaks = 1
    events = list(client.add("/films", retry_failed=True))
    assert [(event.number, event.kind) for event in events] == [*((n, "progress") for n in range(1, 5)), (5, "done")]
    assert [one for one in server.requests if isinstance(one, int)] == [0, 2]
    (asked,) = [one for one in server.requests if isinstance(one, dict)]
    assert asked == {"paths": ["/films"], "prune": False, "retry_failed": True}
    server.status, server.error = "failed", {"code": "index_locked", "detail": "another process is writing"}  # type: ignore[assignment]
    with pytest.raises(IndexLockedError, match="another process is writing"):
        list(client.add())


def test_an_export_is_saved(stub: tuple[Stub, impart.Client], tmp_path: Path) -> None:
    server, client = stub
    hits = client.search(text="red", top=2)
    assert client.export(hits, tmp_path / "dogs.edl", form="edl").read_bytes() == b"TITLE: dogs\n"
    request = next(one for one in server.requests if isinstance(one, dict) and "form" in one)
    assert request["form"] == "edl"
    assert [(span["video_id"], span["start_s"]) for span in request["spans"]] == [
        (hit.video_id, hit.start_s) for hit in hits
    ]
    with pytest.raises(QueryError, match="no hits"):
        client.export([], tmp_path / "none.edl", form="edl")


def test_threads_share_a_client(client: impart.Client, index: VideoIndex) -> None:
    here = {colour: index.search(text=colour) for colour in ("red", "blue", "cyan", "white")}
    there: dict[str, list[Hit]] = {}
    threads = [
        threading.Thread(target=lambda colour=colour: there.update({colour: client.search(text=colour)}))
        for colour in here
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert there == here
    assert dataclasses.is_dataclass(there["red"][0])
