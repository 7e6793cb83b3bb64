"""Answers with files: through starlette, and over a real socket where streaming matters."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from impart.serve.media.files import FileGoneError, answer_bytes, answer_file, open_file, tag_of

CONTENT = bytes(range(256)) * 40


def app_of(path: Path) -> Starlette:
    async def file(request: Request) -> Response:
        opened = await run_in_threadpool(open_file, path)
        etag = tag_of(opened.size, opened.mtime_ns)
        return answer_file(request, opened, etag=etag, media_type="video/mp4", name="Ein Hündchen.mp4")

    async def image(request: Request) -> Response:
        return answer_bytes(request, b"image", etag='"one"', media_type="image/webp", cache_control="max-age=60")

    async def quick(request: Request) -> Response:
        return PlainTextResponse("quick")

    return Starlette(
        routes=[
            Route("/file", file, methods=["GET", "HEAD"]),
            Route("/image", image, methods=["GET", "HEAD"]),
            Route("/quick", quick),
        ]
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def client(path: Path) -> TestClient:
    return TestClient(app_of(path))


def test_the_whole_file(client, path):
    got = client.get("/file")
    assert (got.status_code, got.content) == (200, CONTENT)
    assert got.headers["content-type"] == "video/mp4"
    assert got.headers["accept-ranges"] == "bytes"
    assert got.headers["content-length"] == str(len(CONTENT))
    told = "inline; filename=\"Ein H_ndchen.mp4\"; filename*=UTF-8''Ein%20H%C3%BCndchen.mp4"
    assert got.headers["content-disposition"] == told


def test_head_has_the_headers_and_no_body(client):
    got, head = client.get("/file"), client.head("/file", headers={"range": "bytes=0-5"})
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers == got.headers


@pytest.mark.parametrize(
    ("wanted", "first", "last"), [("2-9", 2, 9), ("10000-", 10_000, 10_239), ("-7", 10_233, 10_239)]
)
def test_a_range(client, wanted, first, last):
    got = client.get("/file", headers={"range": f"bytes={wanted}"})
    assert (got.status_code, got.content) == (206, CONTENT[first : last + 1])
    assert got.headers["content-range"] == f"bytes {first}-{last}/10240"
    assert got.headers["content-length"] == str(last - first + 1)


def test_416_names_the_size(client):
    got = client.get("/file", headers={"range": "bytes=10240-"})
    assert (got.status_code, got.headers["content-range"]) == (416, "bytes */10240")
    assert got.json()["code"] == "range_not_satisfiable"


def test_304_has_the_tag_and_no_body(client):
    etag = client.get("/file").headers["etag"]
    got = client.get("/file", headers={"if-none-match": etag})
    assert (got.status_code, got.content, got.headers["etag"]) == (304, b"", etag)
    assert "content-length" not in got.headers


def test_a_changed_file_has_another_tag_and_breaks_if_range(client, path):
    etag = client.get("/file").headers["etag"]
    path.write_bytes(CONTENT[::-1])
    os.utime(path, ns=(0, 12345))
    got = client.get("/file", headers={"range": "bytes=0-1", "if-range": etag})
    assert (got.status_code, got.content) == (200, CONTENT[::-1])
    assert got.headers["etag"] != etag


def test_several_headers_of_one_name_are_a_list(client):
    etag = client.get("/file").headers["etag"]
    got = client.get("/file", headers=[("if-none-match", '"x"'), ("if-none-match", etag)])
    assert got.status_code == 304


def test_an_empty_file(client, path):
    path.write_bytes(b"")
    got = client.get("/file")
    assert (got.status_code, got.content, got.headers["content-length"]) == (200, b"", "0")


def test_what_is_no_file_is_gone(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, reason in (("gone", "no such file"), ("pipe", "not a file"), (".", "not a file")):
        with pytest.raises(FileGoneError, match=reason):
            open_file(tmp_path / name)


def test_small_contents_are_kept_by_their_tag(client):
    got = client.get("/image")
    assert (got.status_code, got.content, got.headers["etag"]) == (200, b"image", '"one"')
    assert client.get("/image", headers={"if-none-match": '"one"'}).status_code == 304
    assert client.get("/image", headers={"range": "bytes=0-1"}).content == b"image"


def check_closed(path: Path) -> None:
    """Wait until this process has a file open no more."""
    if not Path("/proc/self/fd").is_dir():
        return  # only Linux lists open files
    until = time.monotonic() + 5
    while any(os.path.realpath(link) == str(path) for link in Path("/proc/self/fd").iterdir()):
        assert time.monotonic() < until
        time.sleep(0.01)


def test_files_are_closed(client, path):
    for headers in ({}, {"range": "bytes=0-1"}, {"range": "bytes=99999-"}, {"if-none-match": "*"}):
        client.get("/file", headers=headers)
        client.head("/file", headers=headers)
    check_closed(path)


@contextmanager
def serving(app: Starlette) -> Iterator[int]:
    import uvicorn

    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


def test_a_slow_reader_holds_neither_memory_nor_others(path):
    import resource

    with path.open("wb") as file:
        file.truncate(1 << 30)  # sparse
    with serving(app_of(path)) as port:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
        for one in slow:
            one.sendall(b"GET /file HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(0.5)
        with socket.create_connection(("127.0.0.1", port), timeout=2) as other:
            other.sendall(b"GET /quick HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert b"quick" in b"".join(iter(lambda: other.recv(4096), b""))
        for one in slow:
            one.close()
        check_closed(path)
        grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kib < 100_000  # of 20 GiB asked for
