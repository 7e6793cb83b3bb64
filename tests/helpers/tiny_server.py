"""An index of three short films and a photo, and a client of its server in this process.

films = write_library(folder)                  # folder/films/..., folder/library.impart
with client_of(films) as client: client.get("/api/v1/videos")
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
from starlette.testclient import TestClient

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


def code_of(answer: httpx2.Response) -> tuple[int, str]:
    """Return the status and the code of a problem."""
    return answer.status_code, answer.json()["code"]
