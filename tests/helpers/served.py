"""A small real index, its application in this process, and a real server of it on a free loopback port.

library = write_library(folder)
with served(ServeSettings(index=library)) as port: ...    # uvicorn in a thread
raw(port, b"GET /health HTTP/1.1...")                     # bytes in, bytes out
"""

from __future__ import annotations

import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.testclient import TestClient

from helpers.clips import write_clip
from helpers.tiny_encoder import TinyEncoder
from impart.encoders.base import register
from impart.serve.app import create_app
from impart.serve.run import listen, server_of
from impart.serve.settings import ServeSettings
from impart.video.index.index import VideoIndex

HERE = "http://127.0.0.1:8765"
TOKEN = "a-token-of-some-letters"


def register_tiny() -> None:
    """Let indexes of the tiny encoder be opened by their id."""
    register("tiny", lambda rest, **_: TinyEncoder(int(rest or 0)))


def write_library(folder: Path) -> Path:
    """Write and index two films; return the folder of the index."""
    register_tiny()
    films = folder / "films"
    films.mkdir(parents=True)
    write_clip(films / "a.mp4", colours=["red", "green"], seconds_each=1)
    write_clip(films / "b.mp4", colours=["blue", "yellow"], seconds_each=1)
    index = VideoIndex.open(folder / "library.impart", TinyEncoder())
    for _ in index.add([films]):
        pass
    return folder / "library.impart"


def client_of(index: Path, **settings: Any) -> TestClient:
    """Make a client of the application of an index; it is in this process, and its lifespan does not run."""
    return TestClient(create_app(ServeSettings(index=index, **settings)), base_url=HERE)


@contextmanager
def served(settings: ServeSettings, app: FastAPI | None = None) -> Iterator[int]:
    """Serve in a thread; yield the port."""
    opened = listen(settings)
    port = opened.getsockname()[1]
    ready = threading.Event()
    server = server_of(app or create_app(settings), settings, on_ready=ready.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]}, daemon=True, name="server")
    thread.start()
    assert ready.wait(10)
    try:
        yield port
    finally:
        server.should_exit = True
        thread.join(15)
        assert not thread.is_alive()


def connect(port: int) -> socket.socket:
    """Open a connection with a time-out."""
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def read_all(connection: socket.socket) -> bytes:
    """Read until the server closes the connection."""
    data = b""
    try:
        while part := connection.recv(65536):
            data += part
    except ConnectionResetError:
        pass
    return data


def read_answer(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Read one answer that states its length: status, headers with lower-case names, body."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        assert part, f"the connection was closed after {data!r}"
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    while len(body) < int(headers["content-length"]):
        body += connection.recv(65536)
    return int(first.split()[1]), headers, body


def raw(port: int, request: bytes) -> bytes:
    """Send bytes, and read until the server closes the connection."""
    with connect(port) as connection:
        connection.sendall(request)
        return read_all(connection)


def within(seconds: float, condition: Any) -> bool:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return bool(condition())


def png_bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that states many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )
