"""Routes of jobs: indexing, orders, failures, the state of the index, and streams of events on a real server."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI
from starlette.testclient import TestClient

from helpers.clips import truncate, write_clip
from helpers.job_queues import index_process
from helpers.tiny_encoder import TinyEncoder
from impart.serve import app as module
from impart.serve.app import API, create_app
from impart.serve.jobs.queue import JobQueue
from impart.serve.jobs.settings import JobSettings
from impart.serve.run import server_of
from impart.serve.settings import ServeSettings
from impart.video.index.durable.lock import write_lock
from impart.video.index.index import VideoIndex
from impart.video.index.pause import pause, resume

pytestmark = pytest.mark.timeout(180)
QUICK_S = 45.0


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """A folder of four films, of which one cannot be read; the first is indexed."""
    folder = tmp_path / "films"
    folder.mkdir()
    write_clip(folder / "a.mp4", colours=["red", "blue"])
    list(VideoIndex.open(tmp_path / "index", TinyEncoder()).add([folder]))
    for name, colours in (("b", ["green", "white", "grey", "black"]), ("c", ["white", "green", "black", "grey"])):
        write_clip(folder / f"{name}.mp4", colours=colours, seconds_each=2.0, fps=8)
    truncate(write_clip(folder / "d.mp4"), 0.5)
    return folder


def make_app(index: Path, *, pause_s: float = 0.0, jobs: dict[str, Any] | None = None, **settings: Any) -> FastAPI:
    app = create_app(
        ServeSettings(
            index=index, cache=index.parent / "cache", jobs=JobSettings(**{"nice": 0, **(jobs or {})}), **settings
        )
    )
    queue: JobQueue = app.state.service.jobs
    queue._commands = {**queue._commands, "index": index_process(pause_s)}
    return app


@pytest.fixture
def client(films: Path, tmp_path: Path) -> Iterator[TestClient]:
    with TestClient(make_app(tmp_path / "index"), base_url=f"http://127.0.0.1{API}/") as client:
        yield client


def wait(client: TestClient | httpx2.Client, job: dict[str, Any]) -> dict[str, Any]:
    deadline = time.monotonic() + QUICK_S
    while job["ended_at"] is None:
        assert time.monotonic() < deadline, job
        time.sleep(0.05)
        job = client.get(f"jobs/{job['id']}").json()
    return job


def test_a_job_indexes_the_folders_of_the_indexed_videos(client: TestClient, films: Path) -> None:
    before = client.get("index").json()
    assert (before["exists"], before["videos"], before["roots"]) == (True, 1, [str(films)])
    assert (before["encoder_id"], before["writer_active"], before["job_id"]) == ("tiny", False, None)

    answer = client.post("jobs/index", json={})
    assert answer.status_code == 202
    job = wait(client, answer.json())
    assert (job["status"], job["index"]["counts"]["added"], job["failures_count"]) == ("partly_failed", 2, 1)
    assert client.get("jobs").json()["jobs"] == [job]
    after = client.get("index").json()
    assert (after["videos"], after["failures"], after["size_bytes"] > 0) == (3, 1, True)
    (failure,) = client.get("failures").json()["failures"]
    assert (failure["name"], failure["kind"], failure["attempts"]) == ("d.mp4", "failed", 1)
    assert failure["reason"] == job["failures"][0]["reason"]

    again = client.post(f"jobs/{job['id']}/retry")
    assert again.status_code == 202
    assert again.json()["id"] != job["id"]
    assert wait(client, again.json())["failures"][0]["attempts"] == 2


def test_a_pause_of_the_index_is_told_at_once(client: TestClient, tmp_path: Path) -> None:
    assert not client.get("index").json()["paused"]
    pause(tmp_path / "index")
    assert client.get("index").json()["paused"], "no commit has happened since the counts were made"
    resume(tmp_path / "index")
    assert not client.get("index").json()["paused"]


def test_failures_come_in_pages(client: TestClient, films: Path, tmp_path: Path) -> None:
    for number in range(3):
        (films / f"e{number}.mp4").write_bytes(b"\1" * 3000)
    list(VideoIndex.open(tmp_path / "index", TinyEncoder()).add([films]))
    names, cursor = [], None
    for _ in range(2):
        page = client.get("failures", params={"limit": 2} | ({"cursor": cursor} if cursor else {})).json()
        names += [one["name"] for one in page["failures"]]
        cursor = page["next_cursor"]
    assert (names, cursor, page["total"]) == (["d.mp4", "e0.mp4", "e1.mp4", "e2.mp4"], None, 4)
    assert client.get("failures", params={"cursor": "x"}).json()["code"] == "bad_cursor"


@pytest.mark.parametrize(
    "path", ["/", "/etc", "films", "{films}/../index", "{films}/a.mp4", "{films}/none", "{films}-2"]
)
def test_a_job_that_would_leave_the_roots_is_refused(client: TestClient, films: Path, path: str) -> None:
    answer = client.post("jobs/index", json={"paths": [str(films), path.format(films=films)]})
    assert answer.status_code == 403
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["code"] == "outside_roots"
    assert str(films) in problem["detail"]
    assert "--root FOLDER" in problem["detail"]
    assert client.get("jobs").json()["jobs"] == []


def test_links_below_a_root_do_not_lead_out_of_it(films: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    write_clip(outside / "secret.mp4")
    (films / "link").symlink_to(outside)
    (films / "file.mp4").symlink_to(outside / "secret.mp4")
    with TestClient(make_app(tmp_path / "index", roots=(films,)), base_url=f"http://127.0.0.1{API}/") as client:
        assert client.post("jobs/index", json={"paths": [f"{films}/link"]}).status_code == 403
        job = wait(client, client.post("jobs/index", json={}).json())
        assert job["index"]["counts"]["added"] == 2
        names = [video["name"] for video in client.get("videos").json()["videos"]]
    assert names == ["a.mp4", "b.mp4", "c.mp4"]


def test_an_index_that_does_not_exist_yet_needs_a_root(tmp_path: Path) -> None:
    app = make_app(tmp_path / "new")
    with TestClient(app, base_url=f"http://127.0.0.1{API}/") as client:
        state = client.get("index").json()
        assert (state["exists"], state["videos"], state["roots"], state["name"]) == (False, 0, [], "new")
        answer = client.post("jobs/index", json={})
        assert (answer.status_code, answer.json()["code"]) == (403, "outside_roots")
        assert client.get("failures").json()["total"] == 0
    films = tmp_path / "films"
    films.mkdir()
    write_clip(films / "a.mp4")
    with TestClient(make_app(tmp_path / "new", roots=(films,)), base_url=f"http://127.0.0.1{API}/") as client:
        assert wait(client, client.post("jobs/index", json={"paths": None}).json())["status"] == "done"
        assert client.get("index").json()["videos"] == 1


def test_a_read_only_server_refuses_jobs(films: Path, tmp_path: Path) -> None:
    with TestClient(make_app(tmp_path / "index", read_only=True), base_url=f"http://127.0.0.1{API}/") as client:
        for answer in (client.post("jobs/index", json={}), client.post(f"jobs/{'0' * 16}/cancel")):
            assert (answer.status_code, answer.json()["code"]) == (403, "read_only")
        assert client.get("index").json()["read_only"] is True


def test_orders_states_and_a_full_queue(films: Path, tmp_path: Path) -> None:
    app = make_app(tmp_path / "index", pause_s=0.2, jobs={"waiting": 1})
    with TestClient(app, base_url=f"http://127.0.0.1{API}/") as client:
        job = client.post("jobs/index", json={}).json()
        deadline = time.monotonic() + QUICK_S
        while client.get("index").json()["job_id"] is None and time.monotonic() < deadline:
            time.sleep(0.02)
        waiting = client.post("jobs/index", json={}).json()
        full = client.post("jobs/index", json={})
        assert (full.status_code, full.json()["code"]) == (429, "queue_full")
        assert int(full.headers["retry-after"]) >= 1
        assert client.post(f"jobs/{waiting['id']}/pause").json()["code"] == "job_state"
        assert client.post(f"jobs/{job['id']}/retry").status_code == 409
        assert client.post(f"jobs/{job['id']}/pause").json()["status"] in ("pausing", "paused")
        while client.get(f"jobs/{job['id']}").json()["status"] != "paused" and time.monotonic() < deadline:
            time.sleep(0.02)
        assert client.get("index").json()["writer_active"] is True
        assert client.post(f"jobs/{job['id']}/resume").json()["status"] == "running"
        assert client.post(f"jobs/{job['id']}/cancel").json()["status"] == "cancelling"
        assert client.post(f"jobs/{waiting['id']}/cancel").json()["status"] == "cancelled"
        assert wait(client, job)["status"] == "cancelled"
    for order in ("", "/events"):
        missing = client.get(f"jobs/{'0' * 16}{order}")
        assert (missing.status_code, missing.json()["code"]) == (404, "job_not_found")


def test_a_lock_held_elsewhere_is_named(client: TestClient, tmp_path: Path) -> None:
    with write_lock(tmp_path / "index"):
        assert client.get("index").json()["writer_active"] is True
        job = wait(client, client.post("jobs/index", json={}).json())
    assert (job["status"], job["error"]["code"]) == ("failed", "index_locked")


class Live:
    """A real server on a free port, in a thread."""

    def __init__(self, app: FastAPI, server: uvicorn.Server | None = None) -> None:
        config = uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=10)
        self.server = server or uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        deadline = time.monotonic() + QUICK_S
        while not self.server.started:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        port = self.server.servers[0].sockets[0].getsockname()[1]
        self.client = httpx2.Client(base_url=f"http://127.0.0.1:{port}{API}/", timeout=QUICK_S)

    def stop(self) -> None:
        self.client.close()
        self.server.should_exit = True
        self.thread.join(QUICK_S)


@pytest.fixture
def live(films: Path, tmp_path: Path) -> Iterator[Live]:
    live = Live(make_app(tmp_path / "index", pause_s=0.1, jobs={"streams": 2, "events": 40}))
    yield live
    live.stop()


def read(client: httpx2.Client, job_id: str, *, most: int = 10_000, last: int | None = None) -> list[dict[str, Any]]:
    """Read events of a stream: all, or the first ones."""
    headers = {} if last is None else {"Last-Event-ID": str(last)}
    found: list[dict[str, Any]] = []
    event: dict[str, Any] = {}
    with client.stream("GET", f"jobs/{job_id}/events", headers=headers) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            if name in ("event", "id", "data"):
                event[name] = json.loads(value) if name != "event" else value
            elif not line and event:
                found.append(event)
                event = {}
                if len(found) == most:
                    return found
    return found


def test_a_client_is_told_the_end_of_a_job_that_the_end_of_the_server_kills(films: Path, tmp_path: Path) -> None:
    settings = ServeSettings(index=tmp_path / "index", port=0, jobs=JobSettings(grace_s=1.0))
    app = make_app(tmp_path / "index", pause_s=30.0, jobs={"grace_s": 1.0})
    live = Live(app, server_of(app, settings))
    job = live.client.post("jobs/index", json={}).json()
    told: list[dict[str, Any]] = []
    reader = threading.Thread(target=lambda: told.extend(read(live.client, job["id"])))
    reader.start()
    deadline = time.monotonic() + QUICK_S
    while not live.client.get(f"jobs/{job['id']}").json()["index"]["current"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    live.server.should_exit = True
    reader.join(QUICK_S)
    live.stop()
    assert not live.thread.is_alive()
    assert (told[-1]["event"], told[-1]["data"]["error"]["code"]) == ("done", "server_stopped")


def test_a_stream_tells_all_until_the_end_and_resumes_where_it_was(live: Live) -> None:
    job = live.client.post("jobs/index", json={}).json()
    first = read(live.client, job["id"], most=4)
    assert first[0]["event"] == "snapshot"
    assert first[0]["data"]["id"] == job["id"]
    rest = read(live.client, job["id"], last=first[-1]["id"])
    numbers = [event["id"] for event in first + rest]
    assert numbers == list(range(numbers[0], numbers[-1] + 1)), "no event is lost, none comes twice"
    kinds = [event["event"] for event in rest]
    assert kinds[-1] == "done"
    assert {"progress", "video", "failure", "status"} <= {event["event"] for event in first + rest}
    assert rest[-1]["data"] == live.client.get(f"jobs/{job['id']}").json()
    assert live.client.get("health", headers={}).status_code in (200, 404)

    whole = read(live.client, job["id"])
    assert [event["event"] for event in whole] == ["snapshot", "done"]
    again = read(live.client, job["id"], last=rest[-1]["id"])
    assert [event["event"] for event in again] == ["done"], "a browser that comes back after the end is told so"
    for strange in (10**12, -1):
        assert read(live.client, job["id"], last=strange)[0]["event"] == "snapshot"


def test_progress_is_throttled(live: Live) -> None:
    began = time.monotonic()
    job = live.client.post("jobs/index", json={}).json()
    events = read(live.client, job["id"])
    most = (time.monotonic() - began) / 0.25 + 6  # and one before each change of the status
    assert 2 <= [event["event"] for event in events].count("progress") <= most


def test_streams_are_bounded_and_a_client_that_leaves_frees_its_place(live: Live, tmp_path: Path) -> None:
    job = live.client.post("jobs/index", json={}).json()
    live.client.post(f"jobs/{job['id']}/pause")
    with (
        live.client.stream("GET", f"jobs/{job['id']}/events"),
        live.client.stream("GET", f"jobs/{job['id']}/events"),
    ):
        refused = live.client.get(f"jobs/{job['id']}/events")
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_streams")
        assert "retry-after" in refused.headers
    deadline = time.monotonic() + 5
    while True:
        with live.client.stream("GET", f"jobs/{job['id']}/events") as answer:
            if answer.status_code == 200:
                break
        assert time.monotonic() < deadline
        time.sleep(0.1)
    live.client.post(f"jobs/{job['id']}/cancel")


def test_the_openapi_document_names_the_stream_and_what_a_restart_forgets() -> None:
    paths = create_app(ServeSettings(index=Path("none"))).openapi()["paths"]
    stream = paths[f"{module.API}/jobs/{{job_id}}/events"]["get"]
    assert "text/event-stream" in stream["responses"]["200"]["content"]
    assert "after a restart of the server they are gone" in paths[f"{API}/jobs/index"]["post"]["description"]
