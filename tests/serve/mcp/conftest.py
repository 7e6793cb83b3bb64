"""A small library for the MCP tests: two films and a photo, indexed with the tiny encoder."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.clips import write_clip
from helpers.image_sets import image
from helpers.tiny_encoder import TinyEncoder
from impart.encoders.base import register
from impart.video.index.index import VideoIndex


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with `films`, and the index `library.impart`; tests must not change it."""
    register("tiny", lambda rest, **options: TinyEncoder(int(rest or 0)))
    place = tmp_path_factory.mktemp("mcp")
    (place / "films" / "trip").mkdir(parents=True)
    write_clip(place / "films" / "a.mp4", colours=["red", "green", "blue", "red"], seconds_each=2)
    write_clip(place / "films" / "trip" / "b.mp4", colours=["grey", "yellow", "cyan", "black"], seconds_each=2)
    image(place / "films" / "trip" / "c.png", "magenta", size=(320, 200))
    index = VideoIndex.open(place / "library.impart", TinyEncoder())
    assert not [event for event in index.add([place / "films"]) if "Failed" in type(event).__name__]
    return place


@pytest.fixture
def index(folder: Path) -> VideoIndex:
    return VideoIndex.open(folder / "library.impart", TinyEncoder(), create=False)
