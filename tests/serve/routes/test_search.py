"""Routes of searches: hits, pages, heat, query images, and what they refuse."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from helpers.clips import write_clip
from helpers.tiny_encoder import TinyEncoder
from impart.serve import service as of_service
from impart.serve.app import create_app
from impart.serve.settings import ServeSettings
from impart.video.index.index import VideoIndex

API = "/api/v1"
COLOURS = ("red", "green", "blue", "white", "black", "yellow", "grey")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven films of two colours."""
    folder = tmp_path_factory.mktemp("library")
    (folder / "films").mkdir()
    for number, colour in enumerate(COLOURS):
        other = COLOURS[(number + 1) % len(COLOURS)]
        write_clip(folder / "films" / f"{colour}.mp4", colours=[colour, other], seconds_each=1 + number / 4)
    for _ in VideoIndex.open(folder / "index", TinyEncoder()).add([folder / "films"]):
        pass
    return folder


@pytest.fixture(scope="module")
def client(library: Path) -> Iterator[TestClient]:
    """The server of the library, with the encoder of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        tiny = SimpleNamespace(open=lambda path, **_: VideoIndex.open(path, TinyEncoder()))
        patch.setattr(of_service, "VideoIndex", tiny)
        app = create_app(ServeSettings(index=library / "index", cache=library / "cache", upload_megapixels=1))
        with TestClient(app, base_url="http://127.0.0.1:8765") as client:
            yield client


def search(client: TestClient, **request: Any) -> dict[str, Any]:
    answer = client.post(f"{API}/search", json=request)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def problem(answer: Any) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, answer.json()["code"]


def png(colour: str, size: tuple[int, int] = (64, 48)) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, "PNG")
    return stream.getvalue()


def test_the_hits_are_those_of_the_library(client: TestClient, library: Path) -> None:
    expected = VideoIndex.open(library / "index", TinyEncoder()).search(text="red", top=3)
    found = search(client, text="red", limit=3)
    assert [hit["video_id"] for hit in found["hits"]] == [hit.video_id for hit in expected]
    for hit, of_library in zip(found["hits"], expected, strict=True):
        for name in ("rank", "start_s", "end_s", "best_s", "score", "strong", "kind", "video_s"):
            assert hit[name] == getattr(of_library, name), name
    assert found["strong"] >= 1
    assert found["took_ms"] > 0


def test_pages_join_to_the_whole_list_without_gaps(client: TestClient) -> None:
    whole = search(client, text="green", group="frame", limit=100)
    cursor, joined = None, []
    for _ in range(200):
        page = search(client, text="green", group="frame", limit=3, cursor=cursor)
        joined += page["hits"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert [hit["rank"] for hit in joined] == list(range(1, len(joined) + 1))
    assert joined[:100] == whole["hits"][:100]
    assert len(joined) > 10


def test_a_cursor_belongs_to_its_search(client: TestClient) -> None:
    cursor = search(client, text="green", group="frame", limit=2)["next_cursor"]
    assert cursor.isascii()
    for request in (
        {"text": "red", "group": "frame", "cursor": cursor},
        {"text": "green", "group": "moment", "cursor": cursor},
        {"text": "green", "group": "frame", "cursor": cursor[:-3]},
        {"text": "green", "group": "frame", "cursor": "x" * 16},
        {"text": "green", "group": "frame", "cursor": "ä"},
        {"text": "green", "group": "frame", "cursor": ""},
    ):
        assert problem(client.post(f"{API}/search", json=request)) == (400, "bad_cursor")
    other_limit = search(client, text="green", group="frame", limit=5, cursor=cursor)
    assert other_limit["hits"][0]["rank"] == 3


def test_an_image_is_kept_and_found_again(client: TestClient) -> None:
    files = {"image": ("blue.png", png("blue"), "image/png")}
    answer = client.post(f"{API}/search", data={"request": json.dumps({"limit": 3})}, files=files)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["hits"][0]["name"] in ("blue.mp4", "green.mp4")
    assert search(client, image_id=found["image_id"], limit=3)["hits"] == found["hits"]
    both = search(client, image_id=found["image_id"], text="white", limit=3)
    assert both["hits"] != found["hits"]
    shown = client.get(f"{API}/images/{found['image_id']}.webp")
    assert shown.headers["content-type"] == "image/webp"
    assert Image.open(io.BytesIO(shown.content)).size == (64, 48)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"no image", (415, "not_an_image")),
        (b"", (415, "not_an_image")),
        (png("red")[:60], (415, "not_an_image")),
        (png("red", (1200, 1000)), (413, "too_many_pixels")),
        (b"x" * (25 * (1 << 20) + 1), (413, "too_large")),
    ],
    ids=["text", "empty", "cut off", "too many pixels", "too large"],
)
def test_what_is_no_image_is_refused(client: TestClient, data: bytes, expected: tuple[int, str]) -> None:
    answer = client.post(f"{API}/search", files={"image": ("a.png", data, "image/png")})
    assert problem(answer) == expected


def test_more_like_a_moment(client: TestClient) -> None:
    red = next(hit for hit in search(client, text="red", limit=9)["hits"] if hit["name"] == "red.mp4")
    found = search(client, similar={"video_id": red["video_id"], "at_s": 0.5}, limit=9)
    assert found["hits"]
    assert "red.mp4" not in [hit["name"] for hit in found["hits"]]
    gone = client.post(f"{API}/search", json={"similar": {"video_id": "0" * 16, "at_s": 0}})
    assert problem(gone) == (404, "video_not_found")
    late = client.post(f"{API}/search", json={"similar": {"video_id": red["video_id"], "at_s": 1000}})
    assert problem(late) == (400, "bad_query")


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({}, (400, "bad_query")),
        ({"text": " "}, (400, "bad_query")),
        ({"not_text": ["red"]}, (400, "bad_query")),
        ({"text": "red", "since": "yesterday"}, (400, "bad_query")),
        ({"text": "red", "similar": {"video_id": "0" * 16, "at_s": 0}}, (400, "bad_query")),
        ({"text": "red", "limit": 101}, (422, "invalid_request")),
        ({"text": "red", "colour": 1}, (422, "invalid_request")),
        ({"image_id": "../../etc/passwd"}, (404, "image_not_found")),
        ({"image_id": "0" * 32}, (404, "image_not_found")),
    ],
)
def test_requests_that_cannot_be_answered(client: TestClient, request_: Any, expected: tuple[int, str]) -> None:
    assert problem(client.post(f"{API}/search", json=request_)) == expected


def test_other_bodies_are_refused(client: TestClient) -> None:
    assert problem(client.post(f"{API}/search", content=b"{", headers={"content-type": "application/json"})) == (
        422,
        "invalid_request",
    )
    assert problem(client.post(f"{API}/search", content=b"<a/>", headers={"content-type": "text/xml"})) == (
        415,
        "unsupported_media_type",
    )
    assert problem(client.post(f"{API}/search", files={"file": ("a.png", png("red"), "image/png")})) == (
        422,
        "invalid_request",
    )


def test_heat_is_where_the_colour_is(client: TestClient) -> None:
    hits = {hit["name"]: hit["video_id"] for hit in search(client, text="red", limit=9)["hits"]}
    ids = [hits["red.mp4"], "0" * 16, hits["green.mp4"]]
    answer = client.post(f"{API}/search/heat", json={"text": "red", "video_ids": ids, "bins": 4})
    red, green = answer.json()["heats"]
    assert (red["video_id"], green["video_id"]) == (ids[0], ids[2])
    assert (red["start_s"], red["step_s"]) == (0, pytest.approx(0.5, abs=0.05))
    assert red["bins"][0] == 1
    assert red["bins"][3] < 0.5
    assert max(green["bins"]) < 0.5
    assert red["best_s"] < 1
    one = client.post(f"{API}/videos/{ids[0]}/heat", json={"text": "red"}).json()
    assert len(one["bins"]) == 100
    assert problem(client.post(f"{API}/videos/{'0' * 16}/heat", json={"text": "red"})) == (404, "video_not_found")
    similar = client.post(f"{API}/videos/{ids[0]}/heat", json={"similar": {"video_id": ids[0], "at_s": 1.8}}).json()
    assert np.argmax(similar["bins"]) >= len(similar["bins"]) // 2


def test_a_sequence_is_found_and_lights_up_in_both_parts(client: TestClient) -> None:
    (hit, *_) = search(client, text="red", then="green")["hits"]
    assert hit["name"] == "red.mp4"
    assert len(hit["steps"]) == 2
    heat = client.post(f"{API}/videos/{hit['video_id']}/heat", json={"text": "red", "then": "green"}).json()
    assert heat["bins"][0] > 0.9
    assert heat["bins"][-1] > 0.9
