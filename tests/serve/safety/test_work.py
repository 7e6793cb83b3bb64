"""Work: bounded, refused with the time to wait; streams end when the server stops, and hold little memory meanwhile."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from starlette.responses import FileResponse, StreamingResponse

from helpers.served import connect, raw, read_answer, served, within
from impart.serve.app import create_app
from impart.serve.run import listen, server_of
from impart.serve.safety.work import Stopping
from impart.serve.settings import ServeSettings

# The paths are none of the server, and belong to its streams.
GET = b"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"


def settings_of(tmp_path: Path, **values: object) -> ServeSettings:
    return ServeSettings(index=tmp_path / "none.impart", port=0, **values)  # type: ignore[arg-type]


def test_more_work_than_allowed_is_refused_while_streams_and_the_page_are_answered(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, waiting_searches=4)
    app, go = create_app(settings), threading.Event()

    @app.get("/api/v1/slow")
    def slow() -> str:
        go.wait(10)
        return "done"

    with served(settings, app) as port, ThreadPoolExecutor(12) as pool:
        answers = [pool.submit(raw, port, GET % b"/api/v1/slow") for _ in range(12)]
        assert within(5, lambda: sum(answer.done() for answer in answers) == 8)
        assert raw(port, GET % b"/health").startswith(b"HTTP/1.1 200")
        assert raw(port, GET % b"/").startswith(b"HTTP/1.1 200")
        go.set()
        texts = [answer.result(10) for answer in answers]
        refused = [text for text in texts if b'"code":"busy"' in text]
        assert len(refused) == 8
        assert all(text.startswith(b"HTTP/1.1 429") and b"retry-after: 1" in text for text in refused)
        assert sum(text.startswith(b"HTTP/1.1 200") for text in texts) == 4
        assert raw(port, GET % b"/api/v1/slow").startswith(b"HTTP/1.1 200")  # the places are free again


def test_work_whose_client_has_gone_frees_its_place(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, waiting_searches=1)
    app = create_app(settings)

    @app.get("/api/v1/fails")
    async def fails() -> str:
        await asyncio.sleep(0.2)
        raise RuntimeError("failed")

    with served(settings, app) as port:
        with connect(port) as connection:
            connection.sendall(GET % b"/api/v1/fails")
        assert within(3, lambda: raw(port, GET % b"/api/v1/videos").startswith(b"HTTP/1.1 200"))


def test_streams_end_when_the_server_stops(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    app, ended = create_app(settings), threading.Event()

    async def events() -> AsyncIterator[bytes]:
        try:
            for i in range(10_000):
                yield f"data: {i}\n\n".encode()
                await asyncio.sleep(0.05)
        finally:
            ended.set()

    @app.get("/api/v1/test/events")
    async def stream() -> StreamingResponse:
        return StreamingResponse(events(), media_type="text/event-stream")

    opened = listen(settings)
    ready = threading.Event()
    server = server_of(app, settings, on_ready=ready.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]})
    thread.start()
    assert ready.wait(10)
    with connect(opened.getsockname()[1]) as connection:
        connection.sendall(GET % b"/api/v1/test/events")
        assert connection.recv(100)
        began = time.monotonic()
        server.should_exit = True
        thread.join(8)
        assert not thread.is_alive()
        assert time.monotonic() - began < 3
    assert ended.is_set()


def test_the_service_is_closed_once_requests_are_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(tmp_path)
    app, order = create_app(settings), []

    @app.get("/api/v1/slow")
    def slow() -> str:
        time.sleep(0.5)
        order.append("answered")
        return "done"

    def close() -> None:
        order.append("closed" if threading.current_thread() is not server else "closed in the event loop")

    monkeypatch.setattr(app.state.service, "close", close)
    with served(settings, app) as port, ThreadPoolExecutor(1) as pool:
        server = next(thread for thread in threading.enumerate() if thread.name == "server")
        answer = pool.submit(raw, port, GET % b"/api/v1/slow")
        time.sleep(0.2)
    assert answer.result().startswith(b"HTTP/1.1 200")
    assert order == ["answered", "closed"]


def test_a_stop_reaches_those_who_wait_later_too() -> None:
    async def run() -> None:
        stopping = Stopping()
        waiting = asyncio.ensure_future(stopping.wait())
        await asyncio.sleep(0)
        stopping.set()
        await asyncio.wait_for(waiting, 1)
        await asyncio.wait_for(stopping.wait(), 1)

    asyncio.run(run())


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the memory of a process from /proc")
def test_slow_readers_of_a_large_file_hold_little_memory(tmp_path: Path) -> None:
    large = tmp_path / "film.mp4"
    with large.open("wb") as file:
        file.truncate(200 << 20)
    settings = settings_of(tmp_path)
    app = create_app(settings)

    @app.get("/api/v1/media/test/file")
    async def media() -> FileResponse:
        return FileResponse(large)

    with served(settings, app) as port:
        readers = [connect(port) for _ in range(10)]
        before = resident_bytes()
        for reader in readers:
            reader.sendall(GET % b"/api/v1/media/test/file")
            assert reader.recv(100).startswith(b"HTTP/1.1 200")
        time.sleep(0.5)
        assert resident_bytes() - before < 30 << 20  # of 2 GB that they asked for
        assert raw(port, GET % b"/health").startswith(b"HTTP/1.1 200")
        for reader in readers:
            reader.close()


def test_a_keep_alive_connection_is_used_again(tmp_path: Path) -> None:
    with served(settings_of(tmp_path)) as port, connect(port) as connection:
        for _ in range(5):
            connection.sendall(b"GET /api/v1/videos HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert read_answer(connection)[0] == 200


def test_an_open_download_does_not_hold_up_the_end(tmp_path: Path) -> None:
    large = tmp_path / "film.mp4"
    with large.open("wb") as file:
        file.truncate(50 << 20)
    settings = settings_of(tmp_path)
    app = create_app(settings)

    @app.get("/api/v1/media/test/file")
    async def media() -> FileResponse:
        return FileResponse(large)

    with served(settings, app) as port:
        reader = connect(port)
        reader.sendall(GET % b"/api/v1/media/test/file")
        assert reader.recv(100).startswith(b"HTTP/1.1 200")
        began = time.monotonic()
    assert time.monotonic() - began < 5
    reader.close()
