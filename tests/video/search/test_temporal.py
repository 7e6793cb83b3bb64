"""Windows in time against naive loops: never across videos, also where frames have different lengths."""

from __future__ import annotations

import numpy as np
import pytest

from impart.video.search.temporal import Windows, standardised


def library(seed: int, *, runs: int = 7) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return start_s, end_s and offsets of runs of 0 to 40 frames, each 0.04 to 3 s long, some with gaps between."""
    rng = np.random.default_rng(seed)
    starts, ends, offsets = [], [], [0]
    for count in [0, 1, *rng.integers(2, 41, runs)]:
        lengths = rng.choice([0.04, 0.25, 1.0, 3.0], count)
        gaps = rng.choice([0.0, 0.0, 0.5], count)
        end = 100 * rng.random() + np.cumsum(lengths + gaps)
        starts.append(end - lengths)
        ends.append(end)
        offsets.append(offsets[-1] + count)
    return np.concatenate(starts), np.concatenate(ends), np.array(offsets)


def run_of(frame: int, offsets: np.ndarray) -> int:
    return int(np.searchsorted(offsets, frame, side="right")) - 1


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("within_s", [0.0, 1.0, 6.0, 1e4])
def test_frames_after_and_around_as_in_a_naive_loop(seed: int, within_s: float) -> None:
    start_s, end_s, offsets = library(seed)
    count = len(start_s)
    values = np.random.default_rng(seed + 10).standard_normal(count).astype(np.float32)
    after = Windows.after(start_s, end_s, offsets, within_s=within_s).maxima(values)
    around = Windows.around(start_s, end_s, offsets, within_s=within_s).maxima(values)
    for i in range(count):
        same = [j for j in range(count) if run_of(j, offsets) == run_of(i, offsets)]
        late = [j for j in same if j > i and -1e-6 <= start_s[j] - end_s[i] <= within_s + 1e-6]
        near = [
            j for j in same if start_s[j] - end_s[i] <= within_s + 1e-6 and start_s[i] - end_s[j] <= within_s + 1e-6
        ]
        assert after[i] == max((values[j] for j in late), default=-np.inf)
        assert around[i] == max(values[j] for j in near)


def test_a_frame_is_never_followed_by_one_of_another_video() -> None:
    times = np.array([0.0, 1.0, 0.0, 1.0])
    found = Windows.after(times, times + 1, np.array([0, 2, 4]), within_s=1e6)
    values = np.array([1, 2, 9, 8], np.float32)
    assert found.maxima(values).tolist() == [2, -np.inf, 8, -np.inf]
    assert found.best(values, 0) == 1
    assert found.best(values, 2) == 3


def test_of_equal_frames_the_first_follows() -> None:
    times = np.arange(4.0)
    found = Windows.after(times, times + 1, np.array([0, 4]), within_s=5)
    assert found.best(np.array([0, 7, 7, 7], np.float32), 0) == 1


def test_an_empty_index_has_no_windows() -> None:
    none = np.zeros(0)
    for offsets in (np.array([0]), np.array([0, 0, 0])):
        assert len(Windows.after(none, none, offsets, within_s=1).maxima(none.astype(np.float32))) == 0


def test_scores_of_two_queries_get_the_same_scale() -> None:
    rng = np.random.default_rng(0)
    scores = (rng.standard_normal((2, 500)) * [[0.01], [0.3]] + [[0.2], [-0.1]]).astype(np.float32)
    weight = rng.integers(1, 9, 500).astype(np.int32)
    result = standardised(scores, weight=weight)
    for row, given in zip(result, scores, strict=True):
        every = np.repeat(given.astype(np.float64), weight)  # as if each sampled frame had a row
        np.testing.assert_allclose(row, (given - every.mean()) / every.std(), rtol=1e-3, atol=1e-3)


def test_an_index_of_equal_frames_gives_no_infinite_scores() -> None:
    assert np.isfinite(standardised(np.full((1, 5), 0.25, np.float32), weight=np.ones(5, np.int32))).all()
    assert standardised(np.zeros((2, 0), np.float32), weight=np.zeros(0, np.int32)).shape == (2, 0)
