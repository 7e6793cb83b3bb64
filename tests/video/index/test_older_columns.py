"""Indexes without the columns that were added after version 0.1.0."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.clips import write_clip
from helpers.tiny_encoder import TinyEncoder
from impart.video.index.index import VideoIndex
from impart.video.index.store import VIDEOS

ADDED = ["kind", "recorded_at", "scene_start_s", "scene_end_s", "scene_kinds"]


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """An index of one video without the columns."""
    videos = tmp_path / "videos"
    videos.mkdir()
    write_clip(videos / "both.mp4", colours=("red", "blue"))
    for _ in VideoIndex.open(tmp_path / "library", TinyEncoder()).add(videos):
        pass
    table = VideoIndex.open(tmp_path / "library", TinyEncoder())._store.table(VIDEOS)
    table.drop_columns(ADDED)
    return tmp_path


def test_it_is_searched_with_the_bounds_of_its_segments(older: Path) -> None:
    index = VideoIndex.open(older / "library", TinyEncoder())
    (record,) = index.videos()
    assert (record.kind, record.recorded_at, record.scene_start_s) == ("video", None, ())
    hit = index.search(text="blue", group="scene")[0]
    assert (hit.kind, hit.start_s) == ("video", pytest.approx(hit.scene_start_s))
    assert 0 < hit.scene_start_s < hit.scene_end_s == pytest.approx(hit.video_s, abs=0.05)


def test_the_next_writer_adds_the_columns_and_keeps_the_videos(older: Path) -> None:
    write_clip(older / "videos" / "red.mp4")
    index = VideoIndex.open(older / "library", TinyEncoder())
    for _ in index.add(older / "videos"):
        pass
    assert [record.path.name for record in index.videos()] == ["both.mp4", "red.mp4"]
    assert set(ADDED) <= set(VideoIndex.open(older / "library", TinyEncoder())._store.table(VIDEOS).schema.names)
    assert len(index.search(text="red", top=5)) == 2
