"""The refresher: searches see what was committed a moment later, and names that were taught at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from helpers.clips import write_clip
from helpers.tiny_encoder import TinyEncoder
from impart.errors import VideoIndexError
from impart.serve.search import refresher as of_refresher
from impart.serve.search.refresher import Refresher
from impart.video.index.index import VideoIndex


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "films").mkdir()
    for colour in ("red", "green"):
        write_clip(tmp_path / "films" / f"{colour}.mp4", colours=[colour, "grey"], seconds_each=1)
    add(tmp_path)
    monkeypatch.setattr(of_refresher, "_POLL_S", 0.05)
    monkeypatch.setattr(of_refresher, "_LEAST_S", 0.1)
    monkeypatch.setattr(of_refresher, "_REST_S", 0.1)
    return tmp_path


@pytest.fixture
def index(folder: Path) -> Iterator[VideoIndex]:
    index = VideoIndex.open(folder / "index", TinyEncoder())
    refresher = Refresher(index)
    assert refresher.ready.wait(10)
    yield index
    refresher.close()


def test_a_video_is_found_at_once_after_catching_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_refresher, "_REST_S", 60)
    monkeypatch.setattr(of_refresher, "_LEAST_S", 60)
    index = VideoIndex.open(folder / "index", TinyEncoder())
    refresher = Refresher(index)
    try:
        assert refresher.ready.wait(10)
        write_clip(folder / "films" / "blue.mp4", colours=["blue"], seconds_each=1)
        add(folder)
        assert index.search(text="blue")[0].path.name != "blue.mp4"
        refresher.catch_up()
        assert index.search(text="blue")[0].path.name == "blue.mp4"
    finally:
        refresher.close()


def add(folder: Path) -> None:
    for _ in VideoIndex.open(folder / "index", TinyEncoder()).add([folder / "films"]):
        pass


def soon(true: Callable[[], bool]) -> bool:
    until = time.monotonic() + 10
    while not true():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def test_a_new_video_is_found_soon(folder: Path, index: VideoIndex) -> None:
    write_clip(folder / "films" / "blue.mp4", colours=["blue"], seconds_each=1)
    add(folder)
    assert soon(lambda: index.search(text="blue")[0].path.name == "blue.mp4")


def test_the_index_may_be_made_after_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_refresher, "_POLL_S", 0.05)
    index = VideoIndex.open(tmp_path / "index", TinyEncoder())
    refresher = Refresher(index)
    assert index.search(text="red") == []
    assert not refresher.ready.is_set()
    (tmp_path / "films").mkdir()
    write_clip(tmp_path / "films" / "red.mp4", colours=["red"], seconds_each=1)
    add(tmp_path)
    assert refresher.ready.wait(10)
    assert soon(lambda: len(index.search(text="red")) == 1)
    refresher.close()


def test_a_name_is_in_force_at_once(folder: Path, index: VideoIndex) -> None:
    assert index.searcher.names_in([]) == []
    before = index.search(text="Carmine")[0]
    assert before.names == ()
    index.names.add("Carmine", [Image.new("RGB", (64, 64), "red")])
    (hit, *_) = index.search(text="Carmine")
    assert hit.names == ("Carmine",)
    assert hit.path.name == "red.mp4"
    index.names.remove("Carmine")
    assert index.search(text="Carmine")[0].names == ()


def test_an_error_leaves_the_state_in_force(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = VideoIndex.open(folder / "index", TinyEncoder())
    refresher = Refresher(index)
    assert refresher.ready.wait(10)

    def damaged() -> bool:
        raise VideoIndexError("damaged")

    monkeypatch.setattr(index.searcher.state, "refresh", damaged)
    write_clip(folder / "films" / "blue.mp4", colours=["blue"], seconds_each=1)
    add(folder)
    assert soon(lambda: refresher.error is not None)
    assert len(index.search(text="red", top=10)) == 2
    monkeypatch.undo()
    monkeypatch.setattr(of_refresher, "_POLL_S", 0.05)
    assert soon(lambda: len(index.search(text="red", top=10)) == 3)
    refresher.close()
