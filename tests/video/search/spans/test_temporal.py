"""Windows in time against naive loops: never across videos, also where frames have different lengths."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from helpers.snapshots import make_snapshot
from impart.config import Group
from impart.video.search.query import Query
from impart.video.search.snapshot import Snapshot
from impart.video.search.spans.temporal import Found, Windows, find_sequences, standardised


def library(seed: int, *, runs: int = 7) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return start_s, end_s and offsets of runs of 0 to 40 frames, each 0.04 to 3 s long, some with gaps between."""
    rng = np.random.default_rng(seed)
    starts, ends, offsets = [], [], [0]
    for count in [0, 1, *rng.integers(2, 41, runs)]:
        lengths = rng.choice([0.04, 0.25, 1.0, 3.0], count)
        gaps = rng.choice([0.0, 0.0, 0.5], count)
        end = 100 * rng.random() + np.cumsum(lengths + gaps)
        overlap = rng.choice([0.0, 0.0, 0.3, 1.0], count)  # some frames start before the last one ends
        starts.append(np.maximum.accumulate(end - lengths - overlap))
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


def sequences_of(seed: int, query: Query, *, group: Group = "video") -> tuple[list[list[Found]], np.ndarray, Snapshot]:
    """Return what is found in three videos of two scenes each, their z-scores, and the snapshot."""
    rng = np.random.default_rng(seed)
    snapshot = make_snapshot(np.zeros((60, 2), np.float32), lengths=[10, 30, 20], scenes=[0, 5, 10, 25, 40, 50])
    scores = rng.standard_normal((len(query.parts()), 60)).astype(np.float32)
    found = find_sequences(query, scores, snapshot, snapshot.offsets[:-1], allowed=None, top=9, group=group)
    return found, standardised(scores, weight=snapshot.weight), snapshot


@pytest.mark.parametrize("seed", range(5))
def test_three_steps_as_in_a_naive_loop(seed: int) -> None:
    query = Query(text="a", within_s=1, then=Query(text="b", within_s=2, then=Query(text="c")))
    found, z, snapshot = sequences_of(seed, query)
    best: dict[int, tuple[float, tuple[int, int, int]]] = {}
    gap = lambda i, j: round(snapshot.start_s[j] - snapshot.end_s[i], 6)  # noqa: E731
    for i, j, k in itertools.combinations(range(60), 3):
        video = snapshot.video_of[i]
        if video == snapshot.video_of[k] and 0 <= gap(i, j) <= 1 and 0 <= gap(j, k) <= 2:
            score = float(z[0, i] + z[1, j] + z[2, k]) / 3
            best[video] = max(best.get(video, (-np.inf, (0, 0, 0))), (score, (i, j, k)))
    want = sorted(best.values(), reverse=True)
    assert [tuple(span.best for span in of_video[0].spans) for of_video in found] == [frames for _, frames in want]
    np.testing.assert_allclose([of_video[0].score for of_video in found], [score for score, _ in want], atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_spans_are_in_order_and_within_their_scenes(seed: int) -> None:
    found, _, snapshot = sequences_of(seed, Query(text="a", within_s=3, then=Query(text="b")))
    assert any(len(of_video) > 1 for of_video in found)
    for of_video in found:
        for one in of_video:
            assert [span.first <= span.best < span.stop for span in one.spans] == [True, True]
            assert one.spans[0].stop <= one.spans[1].first
            assert all(snapshot.scene_of[span.first] == snapshot.scene_of[span.stop - 1] for span in one.spans)
        whole = sorted((one.spans[0].first, one.spans[-1].stop) for one in of_video)
        assert all(stop <= first for (_, stop), (first, _) in itertools.pairwise(whole))
        assert [one.score for one in of_video] == sorted((one.score for one in of_video), reverse=True)


def test_a_video_that_is_too_short_for_a_sequence_is_no_hit() -> None:
    snapshot = make_snapshot(np.zeros((5, 2), np.float32), lengths=[1, 4])
    scores = np.array([[9, 1, 0, 0, 0], [9, 0, 0, 1, 0]], np.float32)
    query = Query(text="a", then=Query(text="b"))
    (only,) = find_sequences(query, scores, snapshot, snapshot.offsets[:-1], allowed=None, top=9, group="scene")
    assert [span.best for span in only[0].spans] == [1, 3]


def test_both_in_one_span_need_not_be_in_the_same_frame_but_in_the_same_scene() -> None:
    snapshot = make_snapshot(np.zeros((24, 2), np.float32), lengths=[12, 12], scenes=[0, 6, 12, 18])
    scores = np.zeros((2, 24), np.float32)
    scores[0, [5, 14]] = 1  # A
    scores[1, [6, 17]] = 1  # B: in video 0 in the next scene, in video 1 in the same, 0.5 s later
    query = Query(text="a", also=Query(text="b"))
    first, second = find_sequences(query, scores, snapshot, snapshot.offsets[:-1], allowed=None, top=9, group="scene")
    assert snapshot.video_of[first[0].spans[0].best] == 1
    assert first[0].spans[0].first <= 14
    assert first[0].spans[0].stop > 17
    assert second[0].score < 0.6 * first[0].score


@pytest.mark.parametrize("group", ["moment", "frame"])
@pytest.mark.parametrize("seed", range(3))
def test_sequences_of_a_flat_list_share_no_segment(seed: int, group: Group) -> None:
    rng = np.random.default_rng(seed)
    snapshot = make_snapshot(np.zeros((60, 2), np.float32), lengths=[40, 20])
    scores = rng.standard_normal((2, 60)).astype(np.float32)
    query, starts = Query(text="a", then=Query(text="b"), within_s=1), np.arange(0, 60, 4 if group == "moment" else 1)
    found = find_sequences(query, scores, snapshot, starts, allowed=None, top=5, group=group)
    assert 2 <= len(found) <= 5
    assert [len(of_group) for of_group in found] == [1] * len(found)
    whole = sorted((one[0].spans[0].first, one[0].spans[-1].stop) for one in found)
    assert all(stop <= first for (_, stop), (first, _) in itertools.pairwise(whole))
    assert [one[0].score for one in found] == sorted((one[0].score for one in found), reverse=True)
