"""Steps between decoded frames: cuts, flashes, movement, slides, and frames that were skipped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers.clips import quarters, solid, write_frames
from impart.config import DecodeSettings
from impart.video.decode.frames.changes import StepFinder
from impart.video.decode.sampler import DecodeFinished, sample_video


def noise(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (32, 32, 3)).astype(np.float32)


def steps_of(thumbs: list[np.ndarray], times: list[float] | None = None) -> list[float]:
    finder = StepFinder()
    for number, thumb in enumerate(thumbs):
        finder.add(times[number] if times else number / 25, thumb)
    return [round(step.after_s * 25) for step in finder.finish()]


def pan(count: int, *, speed: int) -> list[np.ndarray]:
    wide = np.random.default_rng(0).integers(0, 256, (32, 4000, 3)).astype(np.float32)
    return [wide[:, i * speed : i * speed + 32] for i in range(count)]


def test_a_cut_is_a_step():
    assert steps_of([noise(0)] * 10 + [noise(1)] * 10) == [10]


def test_a_cut_near_the_start_and_the_end_is_a_step():
    assert steps_of([noise(0)] + [noise(1)] * 10 + [noise(2)]) == [1, 11]


@pytest.mark.parametrize("length", [1, 2])
def test_a_flash_is_no_step(length: int):
    flash = [np.full((32, 32, 3), 255, np.float32)] * length
    assert steps_of([noise(0)] * 10 + flash + [noise(0)] * 10) == []


def test_shots_of_eight_frames_are_found():
    thumbs = [noise(number) for number in range(5) for _ in range(8)]
    assert steps_of(thumbs) == [8, 16, 24, 32]


def test_each_change_of_a_slide_show_is_a_step_also_back_to_an_earlier_slide():
    numbers = [0, 1, 0, 2, 2, 3]
    finder = StepFinder()
    for second, number in enumerate(numbers):
        finder.add(float(second), noise(number))
    steps = finder.finish()
    assert [step.after_s for step in steps] == [1, 2, 3, 5]
    assert all(step.slides for step in steps)


def test_movement_is_no_step():
    assert steps_of(pan(40, speed=3)) == []


def test_movement_counts_per_second_where_the_rate_varies():
    times, ramp = [0.0], [np.zeros((32, 32, 3), np.float32)]
    for number in range(40):
        gap = 3 if number % 5 == 0 else 1
        times.append(times[-1] + gap / 60)
        ramp.append(ramp[-1] + 4 * gap)
    assert steps_of(ramp, times) == []


def test_each_slide_is_a_step():
    assert len(steps_of([noise(number) for number in range(5)], [0.0, 2.0, 4.0, 6.0, 8.0])) == 4


@pytest.mark.parametrize("options", [{}, {"x264-params": "scenecut=0:bframes=3:b-pyramid=0:keyint=250:b-adapt=0"}])
def test_a_cut_between_skipped_frames_is_exact(tmp_path: Path, options: dict[str, str]):
    rng = np.random.default_rng(3)
    shots = [rng.integers(0, 256, (12, 16, 3), dtype=np.uint8).repeat(10, 0).repeat(10, 1) for _ in range(5)]
    lengths, images = (31, 30, 33, 29, 40), []
    for shot, length in zip(shots, lengths, strict=True):
        images += [np.roll(shot, 2 * number, axis=1) for number in range(length)]
    path = write_frames(
        tmp_path / "a.mp4", images, times_s=[i / 25 for i in range(len(images))], preset="veryfast", crf="24", **options
    )
    *_, last = sample_video(path, settings=DecodeSettings(), short_side_px=64)
    assert isinstance(last, DecodeFinished)
    found = {round(step.after_s * 25, 3) for step in last.steps}
    assert found >= {31, 61, 94, 123}


def test_steps_have_the_times_of_segments(tmp_path: Path):
    images = [quarters()] * 10 + [solid("blue")] * 10
    times = [2.0 + i / 25 for i in range(20)]  # the video starts behind the sound
    path = write_frames(tmp_path / "a.mkv", images, times_s=times, audio=True)
    *segments, last = sample_video(path, settings=DecodeSettings(), short_side_px=64)
    (step,) = last.steps
    assert step.after_s == pytest.approx(2.4, abs=2e-3)
    assert segments[-1].start_s - 0.25 <= step.after_s <= segments[-1].start_s


def test_cuts_are_found_where_a_file_has_two_frames_per_still_image():
    times = [0.0, *(second - early for second in range(1, 8) for early in (0.08, 0.04)), 7.9]
    thumbs = [noise(int(time_s + 0.041)) for time_s in times]
    assert steps_of(thumbs, times) == [25 * second - 1 for second in range(1, 8)]


@pytest.mark.parametrize("seed", range(40))
def test_a_file_without_the_frames_of_still_images_has_the_steps_of_one_with_all_frames(seed: int):
    rng = np.random.default_rng(seed)
    thumbs: list[np.ndarray] = []
    for shot in range(12):
        still = noise(100 * seed + (shot % 7))
        thumbs += [still] * int(rng.integers(9, 40))
        if rng.random() < 0.4:  # a flash, and the same shot goes on
            thumbs += [np.full((32, 32, 3), 255, np.float32)] * int(rng.integers(1, 3)) + [still] * 9
    every = steps_of(thumbs)
    assert len(every) == 11
    shown = [
        number
        for number, thumb in enumerate(thumbs)
        if number in (0, len(thumbs) - 1) or not np.array_equal(thumb, thumbs[number - 1]) or rng.random() < 0.2
    ]
    assert steps_of([thumbs[number] for number in shown], [number / 25 for number in shown]) == every


def test_a_flash_between_slides_is_no_step_and_a_slide_is_no_flash():
    white = np.full((32, 32, 3), 255, np.float32)
    assert steps_of([noise(0), white, noise(0), noise(0)], [0.0, 1.0, 1.08, 2.0]) == []
    assert steps_of([noise(0), white, noise(0), noise(0)], [0.0, 1.0, 1.24, 2.0]) == [25, 31]
