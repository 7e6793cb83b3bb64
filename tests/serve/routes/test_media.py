"""Files and previews over HTTP, on an index of generated files."""

from __future__ import annotations

import io
import socket
import threading
import time
from pathlib import Path

import av
import pytest
import uvicorn
from fastapi.testclient import TestClient

from helpers.coded_films import write_coded_film
from helpers.media_server import client_of
from helpers.photos import write_photo
from impart.serve.media.work import CancelledWorkError
from impart.serve.run import listen
from impart.serve.settings import ServeSettings

API = "/api/v1"


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> tuple[TestClient, dict[str, str], Path]:
    folder = tmp_path_factory.mktemp("media")
    write_coded_film(folder / "film.mp4", frames=100)
    write_coded_film(folder / "film.mkv", frames=100)
    write_coded_film(folder / "changed.mp4", frames=20)
    write_coded_film(folder / "gone.mp4", frames=20)
    write_coded_film(folder / "replaced.mp4", frames=20)
    write_photo(folder / "photo.jpg", "blue")
    names = ("film.mp4", "film.mkv", "changed.mp4", "gone.mp4", "replaced.mp4", "photo.jpg")
    client, ids = client_of(folder, *(folder / name for name in names))
    return client, ids, folder


def test_a_file_and_a_range_of_it(server):
    client, ids, folder = server
    content = (folder / "film.mp4").read_bytes()
    whole = client.get(f"{API}/media/{ids['film.mp4']}")
    assert (whole.status_code, whole.content) == (200, content)
    assert whole.headers["content-type"] == "video/mp4"
    assert "file-changed" not in whole.headers
    part = client.get(f"{API}/media/{ids['film.mp4']}", headers={"range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, content[100:200])
    assert part.headers["etag"] == whole.headers["etag"]
    head = client.head(f"{API}/media/{ids['film.mp4']}")
    assert (head.content, head.headers["content-length"]) == (b"", str(len(content)))


def test_a_range_behind_the_end_is_a_problem(server):
    client, ids, folder = server
    size = (folder / "film.mp4").stat().st_size
    got = client.get(f"{API}/media/{ids['film.mp4']}", headers={"range": f"bytes={size}-"})
    assert (got.status_code, got.headers["content-range"]) == (416, f"bytes */{size}")
    assert got.json()["code"] == "range_not_satisfiable"


@pytest.mark.parametrize(
    ("name", "media_type"),
    [("film.mp4", "video/mp4"), ("film.mkv", "video/matroska"), ("photo.jpg", "image/jpeg")],
)
def test_types(server, name, media_type):
    client, ids, _ = server
    assert client.head(f"{API}/media/{ids[name]}").headers["content-type"] == media_type


@pytest.mark.parametrize("video_id", ["0" * 16, "..%2f..%2fetc%2fpasswd", "film.mp4", "%00", "0" * 15 + "/"])
def test_only_ids_of_the_index_are_served(server, video_id):
    client, *_ = server
    for route in ("media", "previews", "frames"):
        got = client.get(f"{API}/{route}/{video_id}{'.webp' if route == 'frames' else ''}?start_s=0&end_s=1")
        assert got.status_code in (404, 422)
        assert got.headers["content-type"] == "application/problem+json"


def test_a_changed_file_is_served_with_another_tag(server):
    client, ids, folder = server
    before = client.head(f"{API}/media/{ids['changed.mp4']}").headers["etag"]
    assert client.get(f"{API}/videos/{ids['changed.mp4']}").json()["file"] == "same"
    write_coded_film(folder / "changed.mp4", frames=30)
    got = client.get(f"{API}/media/{ids['changed.mp4']}", headers={"range": "bytes=0-9", "if-range": before})
    assert got.status_code == 200
    assert got.headers["etag"] != before
    assert got.headers["file-changed"] == "true"
    assert client.get(f"{API}/videos/{ids['changed.mp4']}").json()["file"] == "changed"
    assert got.content == (folder / "changed.mp4").read_bytes()


def test_a_file_that_is_gone_or_replaced_by_something_else_is_a_problem(server):
    client, ids, folder = server
    (folder / "gone.mp4").unlink()
    (folder / "replaced.mp4").write_text("root:x:0:0:root:/root:/bin/bash\n" * 100)
    for name in ("gone.mp4", "replaced.mp4"):
        got = client.get(f"{API}/media/{ids[name]}")
        assert (got.status_code, got.json()["code"]) == (404, "file_gone")
        assert b"root:x" not in got.content
    (folder / "gone.mp4").mkdir()
    assert client.get(f"{API}/media/{ids['gone.mp4']}").json()["code"] == "file_gone"
    for route in (f"previews/{ids['gone.mp4']}?start_s=0&end_s=0.5", f"frames/{ids['replaced.mp4']}.webp"):
        assert client.get(f"{API}/{route}").status_code in (404, 422)


def test_a_link_to_something_else_is_not_followed_to_it(server, tmp_path):
    client, ids, folder = server
    secret = tmp_path / "secret.txt"
    secret.write_text("a secret\n" * 50)
    path = folder / "replaced.mp4"
    path.unlink()
    path.symlink_to(secret)
    assert client.get(f"{API}/media/{ids['replaced.mp4']}").json()["code"] == "file_gone"


def test_a_preview_is_a_whole_file_with_ranges(server):
    client, ids, _ = server
    url = f"{API}/previews/{ids['film.mkv']}?start_s=1&end_s=3"
    got = client.get(url)
    assert (got.status_code, got.headers["content-type"]) == (200, "video/mp4")
    assert (got.headers["preview-start-s"], got.headers["preview-end-s"]) == ("1.000", "3.000")
    assert got.headers["preview-cut"] == "false"
    with av.open(io.BytesIO(got.content)) as preview:
        assert abs(float(preview.duration or 0) / 1e6 - 2) < 0.05
    part = client.get(url, headers={"range": "bytes=-10", "if-range": got.headers["etag"]})
    assert (part.status_code, part.content) == (206, got.content[-10:])
    assert client.get(url, headers={"if-none-match": got.headers["etag"]}).status_code == 304
    assert client.head(url).headers["content-length"] == str(len(got.content))


@pytest.mark.parametrize(
    ("name", "query", "status", "code"),
    [
        ("film.mp4", "start_s=2&end_s=1", 422, "bad_span"),
        ("film.mp4", "start_s=2&end_s=2", 422, "bad_span"),
        ("film.mp4", "start_s=50&end_s=60", 422, "time_outside"),
        ("film.mp4", "start_s=-1&end_s=2", 422, "invalid_request"),
        ("film.mp4", "start_s=nan&end_s=2", 422, "invalid_request"),
        ("film.mp4", "start_s=0", 422, "invalid_request"),
        ("photo.jpg", "start_s=0&end_s=1", 422, "no_preview"),
    ],
)
def test_spans_that_have_no_preview(server, name, query, status, code):
    client, ids, _ = server
    got = client.get(f"{API}/previews/{ids[name]}?{query}")
    assert (got.status_code, got.json()["code"]) == (status, code)


def test_a_full_waiting_list_is_refused_with_a_time(server, monkeypatch):
    from impart.serve.media.work import BusyError, Work

    async def full(*_: object, **__: object) -> None:
        raise BusyError(5)

    monkeypatch.setattr(Work, "result", full)
    client, ids, _ = server
    got = client.get(f"{API}/previews/{ids['film.mp4']}?start_s=0.3&end_s=0.4")
    assert (got.status_code, got.json()["code"], got.headers["retry-after"]) == (429, "busy", "5")


def test_a_preview_is_dropped_when_its_client_is_gone(server, monkeypatch):
    from impart.serve.media.worker.process import WorkerProcesses

    client, ids, _ = server
    started = threading.Event()
    ended: list[bool] = []

    def wait(*_: object, cancelled: threading.Event, **__: object) -> None:
        started.set()
        ended.append(cancelled.wait(10))
        raise CancelledWorkError

    monkeypatch.setattr(WorkerProcesses, "request", wait)
    opened = listen(ServeSettings(index=Path("unused"), port=0))
    running = uvicorn.Server(uvicorn.Config(client.app, log_level="error", lifespan="off"))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [opened]})
    thread.start()
    while not running.started:
        time.sleep(0.01)
    try:
        with socket.create_connection(opened.getsockname()) as connection:
            path = f"{API}/previews/{ids['film.mp4']}?start_s=0.7&end_s=0.9"
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:8420\r\n\r\n".encode())
            assert started.wait(5)
        until = time.monotonic() + 5
        while not ended and time.monotonic() < until:
            time.sleep(0.02)
    finally:
        running.should_exit = True
        thread.join()
    assert ended == [True]


def test_videos_tell_how_they_are_played(server):
    client, ids, _ = server
    assert client.get(f"{API}/videos/{ids['film.mp4']}").json()["playable"] == "direct"
    matroska = client.get(f"{API}/videos/{ids['film.mkv']}").json()
    assert (matroska["playable"], matroska["playable_reason"]) == ("preview", "not every browser plays Matroska files")


def test_the_answers_are_in_the_openapi_document(server):
    client, *_ = server
    paths = client.get(f"{API}/openapi.json").json()["paths"]
    for path in ("/media/{video_id}", "/previews/{video_id}", "/frames/{video_id}.webp"):
        for method in ("get", "head"):
            assert {"200", "304", "404", "412", "422"} <= set(paths[f"{API}{path}"][method]["responses"])
