"""Frames for evaluation: the same as the index takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers.clips import faststart, truncate, write_clip
from helpers.tiny_encoder import COLOURS
from impart.errors import DecodeError
from impart.video.decode.frames import sampled_frames


def test_frames_have_true_times_and_equal_ones_are_joined(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", colours=["red", "blue"], seconds_each=1.0)
    frames = list(sampled_frames(clip, short_side_px=32, fit="crop"))
    assert [(start_s, end_s) for start_s, end_s, _ in frames] == [(0.0, 1.0), (1.0, 2.0)]
    for (_, _, image), name in zip(frames, ("red", "blue"), strict=True):
        assert image.shape == (32, 43, 3)
        assert np.abs(image.mean(axis=(0, 1)) - COLOURS[name]).max() < 12
    every = list(sampled_frames(clip, short_side_px=32, fps=2.0, reuse_threshold=0))
    assert [start_s for start_s, _, _ in every] == [0.0, 0.5, 1.0, 1.5]


def test_a_file_that_is_no_video_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.mp4").write_bytes(b"no video")
    with pytest.raises(DecodeError, match=r"x\.mp4"):
        list(sampled_frames(tmp_path / "x.mp4", short_side_px=32, fit="crop"))


def test_a_file_that_is_cut_short_says_so_at_the_end(tmp_path: Path) -> None:
    def returned(path: Path) -> str | None:
        frames = sampled_frames(path, short_side_px=32)
        try:
            while True:
                next(frames)
        except StopIteration as end:
            return end.value

    clip = faststart(write_clip(tmp_path / "clip.mp4", colours=["red", "blue"] * 4, g="10"))
    assert returned(clip) is None
    problem = returned(truncate(clip, 0.6))
    assert problem is not None
    assert "of 8.0 s" in problem
