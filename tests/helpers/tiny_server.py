"""An index of three short films and a photo, and a client of its server in this process.

films = write_library(folder)                  # folder/films/..., folder/library.impart
with client_of(films) as client: client.get("/api/v1/videos")
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import uvicorn
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from helpers.clips import solid, write_clip
from helpers.tiny_encoder import TinyEncoder
from impart.encoders.base import register
from impart.serve.app import create_app
from impart.serve.settings import ServeSettings
from impart.video.index.index import VideoIndex

API = "/api/v1"


def write_library(folder: Path, *, encoder: TinyEncoder | None = None) -> Path:
    """Write and index films; return the folder of the index."""
    from PIL import Image

    films = folder / "films"
    (films / "trip").mkdir(parents=True)
    write_clip(films / "a.mp4", colours=["red", "green", "blue", "red"], seconds_each=2)
    write_clip(films / "b.mp4", colours=["grey", "yellow", "cyan"], seconds_each=2)
    write_clip(films / "trip" / "c.mp4", colours=["white", "red"], seconds_each=2)
    Image.fromarray(solid("magenta", size=(160, 120))).save(films / "trip" / "d.png")
    index = VideoIndex.open(folder / "library.impart", encoder or TinyEncoder())
    for _ in index.add([films]):
        pass
    return folder / "library.impart"


def use_tiny_models() -> None:
    """Let indexes of the tiny encoder be opened by their id."""
    register("tiny", lambda rest, **_: TinyEncoder(int(rest or 0)))


@contextmanager
def client_of(index: Path, **settings: Any) -> Iterator[TestClient]:
    """Serve an index in this process."""
    use_tiny_models()
    with TestClient(create_app(ServeSettings(index=index, **settings)), base_url="http://127.0.0.1:8765") as client:
        yield client


@contextmanager
def served(app: ASGIApp) -> Iterator[str]:
    """Serve an application on a free port of this machine; yield its address."""
    opened = socket.socket()
    opened.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started and thread.is_alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.started
    try:
        yield f"http://127.0.0.1:{opened.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        opened.close()


def code_of(answer: httpx2.Response) -> tuple[int, str]:
    """Return the status and the code of a problem."""
    return answer.status_code, answer.json()["code"]
