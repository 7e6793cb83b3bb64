"""One decoded frame of a video at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers.clips import rotate, solid, write_clip, write_frames
from helpers.tiny_encoder import COLOURS
from impart.errors import DecodeError, QueryError
from impart.video.names.stills import still_at


def colour_at(path: Path, at_s: float) -> str:
    mean = still_at(path, at_s, short_side_px=32).reshape(-1, 3).mean(axis=0)
    return min(COLOURS, key=lambda name: float(np.abs(mean - COLOURS[name]).sum()))


@pytest.mark.parametrize(("name", "codec", "start_s"), [("a.mp4", "libx264", 0.0), ("a.mkv", "libx264", 3.0)])
def test_frame_is_the_one_that_is_shown_then(tmp_path: Path, name: str, codec: str, start_s: float) -> None:
    path = write_clip(
        tmp_path / name, colours=["red", "green", "blue"], seconds_each=1, codec=codec, start_s=start_s, g="40"
    )
    asked = {0.0: "red", 0.5: "red", 0.96: "red", 1.0: "green", 1.99: "green", 2.0: "blue", 2.96: "blue", 3.2: "blue"}
    assert {at_s: colour_at(path, at_s) for at_s in asked} == asked


def test_files_without_timestamps_are_decoded_from_the_start(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.avi", colours=["red", "green"], seconds_each=1, codec="mpeg4")
    assert [colour_at(path, at_s) for at_s in (0.0, 0.5, 1.25, 1.9)] == ["red", "red", "green", "green"]


def test_slides_are_shown_until_the_next_one(tmp_path: Path) -> None:
    images = [solid(colour, size=(64, 48)) for colour in ("red", "green", "blue")]
    path = write_frames(tmp_path / "s.mp4", images, times_s=[0.0, 4.0, 4.5], last_s=2.0)
    assert [colour_at(path, at_s) for at_s in (0, 3.9, 4.0, 4.6, 6.0)] == ["red", "red", "green", "blue", "blue"]


def test_turned_videos_are_upright(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", size=(160, 80))
    rotate(path, 90)
    assert still_at(path, 0.5, short_side_px=32).shape == (64, 32, 3)


def test_times_outside_and_files_that_are_no_videos_are_refused(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4")
    with pytest.raises(QueryError, match=r"it ends at 00:00:01"):
        still_at(path, 5, short_side_px=32)
    with pytest.raises(QueryError, match="0 s or later"):
        still_at(path, -1, short_side_px=32)
    with pytest.raises(DecodeError, match="no such file"):
        still_at(tmp_path / "b.mp4", 0, short_side_px=32)
