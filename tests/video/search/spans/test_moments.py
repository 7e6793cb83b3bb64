"""Moments: parts of scenes, and spans that grow, merge and do not overlap."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest

from impart.encoders.base import Float32, l2_normalise
from impart.video.search.rank.candidates import Scores
from impart.video.search.spans.moments import LEAST_S, LONG_S, PART_S, Parts, Units, split_scenes
from impart.video.search.spans.scored import ScoredParts

DIM = 16


def parts_of(scenes: list[int], count: int, offsets: list[int] | None = None) -> Parts:
    """Parts of videos of `count` segments of a quarter of a second; offsets are those of the videos."""
    offsets = [0, count] if offsets is None else offsets
    start_s = np.concatenate([np.arange(b - a) / 4 for a, b in itertools.pairwise(offsets)])
    return split_scenes(np.array(scenes), np.array(offsets), start_s, start_s + 0.25)


def scored(parts: Parts, curve: npt.ArrayLike, means: Float32 | None = None) -> ScoredParts:
    """Parts with the scores of a curve (n,) of frame scores; without means, no two parts look alike."""
    frames = np.asarray(curve, np.float32)
    scores = np.array([frames[a:b].mean() for a, b in itertools.pairwise(parts.bounds)], np.float32)
    means = np.eye(len(parts), DIM, dtype=np.float32) if means is None else means
    means = np.concatenate([means, scores[:, None]], axis=1)  # the last number gives the score
    query = np.append(np.zeros(means.shape[1] - 1), 1).astype(np.float32)
    return ScoredParts(
        parts=parts,
        means=means,
        query=query,
        scores=Scores(scores),
        units=Units(offsets=parts.offsets, of_part=np.arange(len(parts)), means=means),
        hubness=None,
        frames=frames.__getitem__,
    )


def seconds(*spans: tuple[float, float]) -> Float32:
    """A curve with a value for a time in seconds: (length, value), ..."""
    return np.concatenate([np.full(round(4 * length), value, np.float32) for length, value in spans])


def times(found: list, parts: Parts) -> list[tuple[float, float]]:
    return [(float(parts.start_s[one.first]), float(parts.end_s[one.stop - 1])) for one in found]


def test_long_scenes_become_parts_of_equal_length_and_short_ones_stay() -> None:
    parts = parts_of([0, 20, 100, 300], 320)
    lengths = np.diff(parts.bounds) / 4
    assert parts.scene_of.tolist() == [0, 1, 1, *[2] * 6, 3]
    assert lengths[:3].tolist() == [5, 10, 10]
    assert lengths[3:9] == pytest.approx([50 / 6] * 6, abs=0.25)
    assert parts.bounds[0] == 0
    assert parts.bounds[-1] == 320
    assert LONG_S > PART_S


def test_a_long_still_segment_is_one_part() -> None:
    parts = split_scenes(np.array([0]), np.array([0, 2]), np.array([0.0, 60.0]), np.array([60.0, 61.0]))
    assert parts.bounds.tolist() == [0, 1, 2]


def test_the_span_is_the_scene_where_the_whole_scene_fits() -> None:
    parts = parts_of([0, 16, 40, 60], 80)
    curve = seconds((4, 0.1), (6, 0.5), (5, 0.1), (5, 0.1))
    curve[20] = curve[39] = 0.2  # single frames, less than `LEAST_S` at the end
    assert times(scored(parts, curve).spans_of([0])[0], parts) == [(4, 10)]


def test_within_a_scene_the_span_ends_where_the_scores_fall() -> None:
    parts = parts_of([0, 16], 76)  # the second scene: 15 s, two shots with an unseen transition
    curve = seconds((4, 0.1), (6, 0.1), (5, 0.5), (4, 0.12))
    (found, *_) = scored(parts, curve).spans_of([0])[0]
    assert times([found], parts) == [(10, 15)]
    assert 40 <= found.best < 60


def test_neighbours_join_only_where_they_look_alike_and_both_fit() -> None:
    parts = parts_of([0, 16, 32, 48, 64], 80)
    curve = seconds((4, 0.1), (4, 0.5), (4, 0.45), (4, 0.1), (4, 0.1))
    alike = np.eye(5, DIM, dtype=np.float32)
    alike[2] = l2_normalise((alike[1] + alike[2])[None])[0]
    alike[3] = alike[2]  # looks alike, but its score is low
    assert times(scored(parts, curve).spans_of([0])[0], parts) == [(4, 8), (8, 12)]
    assert times(scored(parts, curve, alike).spans_of([0])[0], parts) == [(4, 12)]


def test_a_span_has_the_least_length_where_its_scene_has() -> None:
    parts = parts_of([0, 40, 42], 80)
    curve = np.full(80, 0.1, np.float32)
    curve[20] = 0.9
    first, stop = times(scored(parts, curve).spans_of([0])[0], parts)[0]
    assert stop - first >= LEAST_S
    curve[20], curve[40:42] = 0.1, 0.9  # a scene of half a second
    assert times(scored(parts, curve).spans_of([0])[0], parts)[0] == (10, 10.5)


@pytest.mark.parametrize("seed", range(20))
def test_spans_do_not_overlap_stay_in_their_video_and_descend(seed: int) -> None:
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(1, 200, 4))]).tolist()
    inner = rng.choice(offsets[-1], 12)
    scenes = sorted({*offsets[:-1], *inner.tolist()})
    parts = parts_of(scenes, offsets[-1], offsets)
    means = l2_normalise(rng.standard_normal((len(parts), DIM)) + 1)
    some = scored(parts, rng.standard_normal(offsets[-1]), means)
    everything = []
    for video in range(4):
        found = some.spans_of([video], most=1000, least=-np.inf)[0]
        assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
        covered = np.concatenate([np.arange(one.first, one.stop) for one in found])
        assert len(set(covered)) == len(covered)
        assert offsets[video] <= covered.min()
        assert covered.max() < offsets[video + 1]
        assert all(one.first <= one.best < one.stop for one in found)
        few = some.spans_of([video])[0]
        assert few == found[: len(few)]
        everything += found
    everything.sort(key=lambda one: (-one.score, one.first))
    for top in (1, 3, 10, 1000):
        assert some.best(top) == everything[:top]


def test_parts_that_are_not_allowed_are_no_seeds() -> None:
    parts = parts_of([0, 16, 40], 60)
    some = scored(parts, seconds((4, 0.3), (6, 0.5), (5, 0.1)))
    allowed = np.array([True, False, True])
    assert times(some.best(5, allowed=allowed), parts) == [(0, 4), (10, 15)]
    assert some.best(5, allowed=np.zeros(3, bool)) == []
    assert some.spans_of([0], allowed=np.zeros(3, bool)) == [[]]
