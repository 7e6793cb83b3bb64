"""Times and weights of sampled frames: what a player shows, four times a second, in every container."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import IO

import av
import numpy as np
import pytest

from helpers import clips
from impart.config import DecodeSettings
from impart.video.decode.sampler import DecodedSegment, DecodeFinished, sample_video
from impart.video.decode.timestamps import DAY_S, Clock

EVERY = DecodeSettings(fit="squash", reuse_threshold=0)
YEARS_S = 30 * 365 * DAY_S
LEVELS = 12
"""Pictures are plain greys, `20 * n` for picture n: they are told apart after any codec."""


def grey(number: int) -> np.ndarray:
    return clips.solid((20 * (number % LEVELS),) * 3, size=(64, 48))


def shown(path: Path, *, fps: float = 4.0, stream: int = 0) -> tuple[dict[int, int], DecodeFinished]:
    """Sample a file: the number of the picture at each grid time, and the end."""
    settings = DecodeSettings(fit="squash", reuse_threshold=0, fps=fps, stream=stream)
    *segments, finished = sample_video(path, settings=settings, short_side_px=32)
    assert isinstance(finished, DecodeFinished)
    grid = {}
    for segment in segments:
        assert isinstance(segment, DecodedSegment)
        first = round(segment.start_s * fps)
        for n in range(first, first + segment.weight):
            grid[n] = round(float(segment.image.mean()) / 20)
    assert sum(segment.weight for segment in segments if isinstance(segment, DecodedSegment)) == finished.samples
    return grid, finished


def in_a_player(times_s: list[float], *, end_s: float, fps: float = 4.0) -> dict[int, int]:
    """Compute the picture at each grid time: the last one whose presentation time is not later."""
    grid = {}
    for n in range(max(0, math.floor(times_s[0] * fps + 1e-6)), math.ceil(end_s * fps - 1e-3)):
        begun = [i for i, time_s in enumerate(times_s) if time_s <= n / fps + 2e-4]
        grid[n] = (begun[-1] if begun else 0) % LEVELS
    return grid


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    ("name", "codec", "audio", "options"),
    [
        ("v.mp4", "libx264", True, {"bf": "2", "preset": "medium"}),
        ("v.mkv", "libx264", True, {"bf": "3", "preset": "medium"}),
        ("v.mov", "mpeg4", True, {}),
        ("v.ts", "libx264", True, {"bf": "2", "preset": "medium"}),
        ("v.nut", "mpeg4", False, {}),
        ("v.webm", "libvpx", False, {"deadline": "realtime", "cpu-used": "8"}),
        ("v.flv", "flv1", False, {}),
    ],
)
def test_any_presentation_times_give_what_a_player_shows(tmp_path, name, codec, audio, options, seed):
    rng = np.random.default_rng(seed)
    steps = rng.choice([0.02, 0.04, 0.11, 0.4, 2.3, 17.0], size=20) * rng.uniform(0.9, 1.1, 20)
    ticks = np.round(np.cumsum(np.r_[0.0, steps]) * 1000) / 1000
    times = [float(time_s) for time_s in ticks]
    path = tmp_path / name
    images = [grey(i) for i in range(21)]
    clips.write_frames(path, images, times_s=times, last_s=3.0, codec=codec, audio=audio, **options)
    with av.open(str(path)) as container:  # the sound may begin earlier by a block
        stream = container.streams.video[0]
        late_s = float((stream.start_time or 0) * stream.time_base) - (container.start_time or 0) / 1e6
        declared_s = container.duration / 1e6
    times = [time_s + late_s for time_s in times]
    grid, finished = shown(path)
    assert finished.problem is None
    last = max(grid)
    end_s = max(declared_s, times[-1] + 0.1)
    assert last / 4 == pytest.approx(end_s, abs=0.5)
    expected = in_a_player(times, end_s=(last + 1) / 4)
    assert grid == expected


def test_the_last_picture_stays_until_the_sound_ends(tmp_path):
    for name, codec in (("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.ts", "libx264")):
        path = tmp_path / name
        clips.write_frames(path, [grey(2), grey(7)], times_s=[0.0, 5.1], last_s=100.0, codec=codec, audio=True)
        grid, finished = shown(path)
        assert (grid[20], grid[21], grid[4 * 105 - 1]) == (2, 7, 7)
        assert finished.problem is None
        assert finished.info.duration_s == pytest.approx(105.1, abs=0.2)


class Pipe:
    """A file that cannot seek: a muxer writes no duration to it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.write = file.write


def test_a_live_recording_without_a_duration_lasts_as_long_as_its_sound(tmp_path):
    whole = tmp_path / "whole.mkv"
    clips.write_frames(whole, [grey(2), grey(7)], times_s=[0.0, 3.1], last_s=20.0, codec="libvpx", audio=True)
    path = tmp_path / "live.mkv"
    with (
        av.open(str(whole)) as source,
        path.open("wb") as file,
        av.open(Pipe(file), "w", format="matroska") as target,
    ):
        streams = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    with av.open(str(path)) as container:
        assert container.duration is None
    grid, finished = shown(path)
    assert (grid[12], grid[13], grid[90], finished.problem) == (2, 7, 7, None)
    assert finished.info.duration_s == pytest.approx(23.1, abs=0.2)


def test_a_picture_that_comes_last_and_for_a_moment_has_a_sample(tmp_path):
    path = tmp_path / "v.mkv"
    clips.write_frames(path, [grey(1), grey(3), grey(9)], times_s=[0.0, 2.0, 13.1], last_s=0.04)
    grid, finished = shown(path)
    assert (grid[52], grid[53], max(grid)) == (3, 9, 53)
    assert (finished.samples, finished.problem) == (54, None)


@pytest.mark.parametrize("name", ["slides.ts", "slides.nut", "slides.mkv"])
def test_slides_far_apart_are_kept(tmp_path, name):
    times = [0.0, 15.0, 55.0, 56.0]
    codec = "mpeg4" if name.endswith("nut") else "libx264"
    path = clips.write_frames(tmp_path / name, [grey(i * 3) for i in range(4)], times_s=times, codec=codec)
    grid, finished = shown(path)
    assert [grid[n] for n in (0, 59, 60, 219, 220, 223, 224)] == [0, 0, 3, 3, 6, 6, 9]
    assert finished.problem is None


def _offset(path: Path, *, numbers: range, start_s: float) -> bytes:
    times = [start_s + i * 0.25 for i in range(len(numbers))]
    clips.write_frames(path, [grey(n) for n in numbers], times_s=times, last_s=0.25, bf="0")
    return path.read_bytes()


@pytest.mark.parametrize(
    ("second_s", "begins_s"),
    [(31.0, 31.0), (1000.0, 1000.0), (5000.0, 1.25), (0.0, 1.25)],
    ids=["a gap", "a long gap", "a later clock", "the same clock"],
)
def test_a_gap_stays_a_gap_and_joined_recordings_are_joined(tmp_path, second_s, begins_s):
    parts = [
        _offset(tmp_path / "1.ts", numbers=range(5), start_s=0.0),
        _offset(tmp_path / "2.ts", numbers=range(5, 10), start_s=second_s),
    ]
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(parts))
    grid, finished = shown(path)
    first = next(n for n in sorted(grid) if grid[n] >= 5)
    assert first / 4 == pytest.approx(begins_s, abs=0.3)
    assert max(grid.values()) >= 8  # the last frame of a transport stream has no duration
    assert finished.problem is None


def test_a_clock_that_was_earlier_before(tmp_path):
    path = tmp_path / "back.ts"
    path.write_bytes(
        _offset(tmp_path / "1.ts", numbers=range(5), start_s=5000.0)
        + _offset(tmp_path / "2.ts", numbers=range(5, 10), start_s=0.0)
    )
    grid, finished = shown(path)
    numbers = [grid[n] for n in sorted(grid)]
    assert numbers == sorted(numbers)
    assert set(numbers) >= {0, 1, 2, 3, 5, 6, 7, 8}
    assert finished.problem is None
    assert finished.info.duration_s < 3


@pytest.mark.parametrize("name", ["clock.mkv", "clock.nut", "clock.ts"])
@pytest.mark.parametrize("jump_s", [YEARS_S, 3 * DAY_S])
def test_a_clock_that_jumps_by_decades_is_joined(tmp_path, name, jump_s):
    if name.endswith("ts") and jump_s == YEARS_S:
        pytest.skip("its clock has 33 bits")
    times = [0.0, 0.5, 1.0, jump_s, jump_s + 0.5, jump_s + 1.0]
    path = tmp_path / name
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 50)
        for n, time_s in enumerate(times):
            frame = av.VideoFrame.from_ndarray(grey(n), format="rgb24")
            frame.pts, frame.time_base = round(time_s * 50), Fraction(1, 50)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    grid, finished = shown(path)
    assert max(grid) < 20
    assert set(grid.values()) >= {0, 1, 2, 4, 5}
    assert finished.problem is None
    assert finished.info.duration_s < 5


def test_a_jump_counts_only_behind_the_declared_end():
    def mapped(times_s: list[float], limit_s: float | None) -> list[float]:
        clock = Clock(0.0, limit_s=limit_s)
        return [clock.at(time_s, expected_s=clock.last_s + 1) for time_s in times_s]

    assert mapped([0, 1, 50], 60.0) == [0, 1, 50]
    assert mapped([0, 1, 7000, 7001], 8000.0) == [0, 1, 7000, 7001]
    assert mapped([0, 1, 50, 51], 10.0) == [0, 1, 2, 3]
    assert mapped([0, 1, 3500], None) == [0, 1, 3500]
    assert mapped([0, 1, 3700, 3701], None) == [0, 1, 2, 3]
    assert mapped([0, 1, 0.5, -20, -19], 60.0) == [0, 1, 1, 2, 3]
    assert mapped([YEARS_S, YEARS_S + 1], None) == [0, 1]


def test_a_late_start_in_matroska_is_not_a_problem(tmp_path):
    path = clips.write_clip(tmp_path / "late.mkv", colours=["red", "blue"], start_s=25_200.0)
    _, finished = shown(path)
    assert (finished.samples, finished.problem) == (8, None)
    assert finished.info.duration_s == pytest.approx(2.0, abs=0.05)


def test_a_duration_tag_that_is_too_long_is_not_a_problem(tmp_path):
    path = clips.write_clip(tmp_path / "tag.mkv", colours=["red", "blue"])
    raw = path.read_bytes()
    at = raw.index(b"00:00:02.0")
    path.write_bytes(raw[:at] + b"00:00:18.0" + raw[at + 10 :])
    with av.open(str(path)) as container:
        assert container.streams.video[0].metadata["DURATION"].startswith("00:00:18")
    grid, finished = shown(path)
    assert (len(grid), finished.problem) == (8, None)


def test_frames_that_avi_gives_no_presentation_time_are_shown_in_order(tmp_path):
    path = tmp_path / "b.avi"
    images = [grey(n // 5) for n in range(60)]  # 0.2 s each
    times = [n / 25 for n in range(60)]
    options = {"bf": "8", "refs": "6", "b-adapt": "0", "preset": "medium"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for n, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = n, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    grid, finished = shown(path, fps=25.0)
    assert [grid[n] for n in range(60)] == [(n // 5) % LEVELS for n in range(60)]
    assert finished.problem is None
    assert times[-1] < finished.info.duration_s < 2.5
