"""Spans of a name from the presence in its segments."""

from __future__ import annotations

import numpy as np
import pytest

from impart.video.names.find import presence_bins, presence_spans, smoothed, windows


def _times(count: int) -> tuple[np.ndarray, np.ndarray]:
    start_s = np.arange(count) / 4
    return start_s, start_s + 0.25


def test_windows_equal_a_naive_loop_and_stay_in_their_scene() -> None:
    rng = np.random.default_rng(0)
    offsets, scenes = [0, 40, 100], np.array([0, 7, 40, 41, 80])
    start_s = np.concatenate([np.arange(40), np.arange(60)]) / 4
    end_s = start_s + 0.25
    scores = rng.standard_normal(100).astype(np.float32)
    found = smoothed(scores, *windows(start_s, end_s, scenes))
    bounds = [*scenes, 100]
    for i in range(100):
        scene = max(k for k in range(5) if bounds[k] <= i)
        around = [j for j in range(bounds[scene], bounds[scene + 1]) if abs(start_s[j] - start_s[i]) <= 2.0]
        assert found[i] == pytest.approx((scores[i] + scores[around].mean()) / 2, abs=1e-5)
    assert offsets[1] in scenes  # a video begins a scene


def test_one_bad_frame_does_not_end_a_span_but_an_absence_does() -> None:
    start_s, end_s = _times(20)
    presence = np.full(20, 0.9, np.float32)
    presence[5] = 0.1
    presence[10:15] = 0.1  # 1.25 s
    spans = presence_spans(presence, start_s, end_s, np.array([0, 20]))
    assert [(span.first, span.last) for span in spans] == [(0, 9), (15, 19)]
    assert spans[0].score == pytest.approx((9 * 0.9 + 0.1) / 10)


def test_spans_do_not_cross_videos_and_name_their_best_segment() -> None:
    start_s = np.array([0, 0.25, 0, 0.25])
    presence = np.array([0.2, 0.8, 0.7, 0.95], np.float32)
    spans = presence_spans(presence, start_s, start_s + 0.25, np.array([0, 2, 4]))
    assert [(span.first, span.last, span.best) for span in spans] == [(1, 1, 1), (2, 3, 3)]


def test_nothing_present_gives_no_span() -> None:
    start_s, end_s = _times(4)
    assert presence_spans(np.zeros(4, np.float32), start_s, end_s, np.array([0, 4])) == []
    assert presence_spans(np.zeros(0, np.float32), start_s[:0], end_s[:0], np.array([0])) == []


@pytest.mark.parametrize("count", [1, 3, 7, 200])
def test_bins_equal_a_loop_over_times(count: int) -> None:
    rng = np.random.default_rng(count)
    ends = np.cumsum(rng.uniform(0.1, 2.0, 30))
    starts = np.concatenate([[0.0], ends[:-1]])
    presence = rng.random(30).astype(np.float32)
    bins, step_s = presence_bins(presence, starts, ends, count=count)
    assert step_s == pytest.approx(ends[-1] / count)
    for number, value in enumerate(bins):
        low, high = number * step_s + 1e-4, (number + 1) * step_s - 1e-4
        inside = [p for p, s, e in zip(presence, starts, ends, strict=True) if s < high and e > low]
        assert value == max(inside)
