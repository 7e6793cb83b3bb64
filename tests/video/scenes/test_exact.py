"""Exact cuts by decoding: containers with and without seeking, a late start, a gradual change, wrong files."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.clips import rotate, write_frames
from helpers.photos import photo_like, write_shots
from impart.errors import DecodeError
from impart.video.scenes.exact import exact_cut


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.ts", "libx264")])
def test_the_first_frame_behind_the_cut(tmp_path: Path, name: str, codec: str):
    path = write_shots(tmp_path / name, [103, 58, 61], codec=codec, g="50")
    assert exact_cut(path, 4.0, 4.25) == pytest.approx(4.12, abs=2e-3)
    assert exact_cut(path, 6.25, 6.5) == pytest.approx(6.44, abs=2e-3)


def test_a_container_without_presentation_times(tmp_path: Path):
    path = write_shots(tmp_path / "a.avi", [103, 58], codec="mpeg4", bf="2")
    assert exact_cut(path, 4.0, 4.25) == pytest.approx(4.12, abs=1e-3)


def test_times_count_from_the_start_of_the_container(tmp_path: Path):
    images = [photo_like(0)] * 30 + [photo_like(1)] * 30
    times = [3.0 + i / 25 for i in range(60)]
    path = write_frames(tmp_path / "a.mkv", images, times_s=times, audio=True)
    assert exact_cut(path, 4.0, 4.25) == pytest.approx(4.2, abs=2e-3)


def test_a_variable_rate(tmp_path: Path):
    times = [0.0]
    for number in range(79):
        times.append(times[-1] + (1 / 60 if number % 3 else 1 / 12))
    images = [photo_like(0)] * 45 + [photo_like(1)] * 35
    path = write_frames(tmp_path / "a.mp4", images, times_s=times)
    assert exact_cut(path, times[45] - 0.2, times[45] + 0.2) == pytest.approx(times[45], abs=1e-3)


def test_a_rotated_video(tmp_path: Path):
    path = rotate(write_shots(tmp_path / "a.mp4", [40, 40]), 90)
    assert exact_cut(path, 1.5, 1.75) == pytest.approx(1.6, abs=1e-3)


def test_no_cut_between_the_times(tmp_path: Path):
    path = write_shots(tmp_path / "a.mp4", [40, 40])
    assert exact_cut(path, 0.5, 1.0) is None
    assert exact_cut(path, 1.6, 2.0) is None  # the frame at the first time is behind the cut already


def test_a_dissolve_has_no_exact_time(tmp_path: Path):
    path = write_shots(tmp_path / "a.mp4", [40, 40], dissolve=25)
    assert exact_cut(path, 2.0, 2.25) is None


def test_times_behind_the_end(tmp_path: Path):
    assert exact_cut(write_shots(tmp_path / "a.mp4", [40, 40]), 90.0, 91.0) is None


def test_a_file_that_is_no_video(tmp_path: Path):
    (tmp_path / "a.mp4").write_text("no video")
    with pytest.raises(DecodeError, match=r"a\.mp4"):
        exact_cut(tmp_path / "a.mp4", 0.0, 1.0)
