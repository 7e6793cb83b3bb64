"""Spans of many videos at once, against a loop over one span after the other."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from impart.encoders.base import l2_normalise
from impart.video.search.rank.candidates import Scores
from impart.video.search.spans.moments import (
    ALIKE,
    GAP_S,
    LEAST_S,
    REACH_S,
    SHARE,
    FoundSpan,
    Parts,
    Units,
    split_scenes,
)
from impart.video.search.spans.scored import ScoredParts

DIM = 6


def middle(values: np.ndarray, best: float) -> float:
    median = float(np.median(values))
    return median + SHARE * (best - median)


def one_after_the_other(some: ScoredParts, video: int, *, most: int, least: float | None) -> list[FoundSpan]:
    """Find the spans of one video with plain loops over its segments."""
    parts, own = some.parts, some.parts.of_video(video)
    here = slice(own.start, own.stop)
    cosines = some.means[here] @ some.query
    curve = cosines if some.hubness is None else cosines - some.hubness[here]
    scores = np.round(some.scores.of(here), 6)
    floor = middle(scores, float(scores.max())) if least is None else least
    taken: set[int] = set()
    found: list[FoundSpan] = []
    for part in (own.start + np.lexsort((-np.round(curve, 6), -scores))).tolist():
        low, high = parts.bounds[part : part + 2].tolist()
        if len(found) == most or scores[part - own.start] < floor:
            break
        if 2 * len(taken & set(range(low, high))) > high - low:
            continue
        a, b = parts.scenes[parts.scene_of[part] : parts.scene_of[part] + 2].tolist()
        while parts.start_s[a] < parts.start_s[low] - REACH_S:
            a += 1
        while parts.end_s[b - 1] > parts.end_s[high - 1] + REACH_S:
            b -= 1
        frames = dict(zip(range(a, b), np.round(some.frames(np.arange(a, b)), 6), strict=True))
        best = max((row for row in range(low, high) if row not in taken), key=lambda row: (frames[row], -row))
        level = middle(cosines, float(frames[best]))
        level = -np.inf if level > frames[best] else level
        first, stop = best, best + 1
        for row in range(best + 1, b):
            if frames[row] >= level:
                stop = row + 1
            elif parts.length_s(stop, row + 1) > GAP_S:
                break
        for row in range(best - 1, a - 1, -1):
            if frames[row] >= level:
                first = row
            elif parts.length_s(row, first) > GAP_S:
                break
        first = first if parts.length_s(a, first) > LEAST_S else a
        stop = stop if parts.length_s(stop, b) > LEAST_S else b
        while parts.length_s(first, stop) < LEAST_S and (first > a or stop < b):
            first, stop = max(first - 1, a), min(stop + 1, b)
        first = max([first, *(row + 1 for row in taken if first <= row < best)])
        stop = min([stop, *(row for row in taken if row > best)])
        least_joined = middle(curve, float(curve[part - own.start]))

        def joins(
            new: int, old: int, least_joined: float = least_joined, taken: frozenset[int] = frozenset(taken)
        ) -> bool:
            inside = range(int(parts.bounds[new]), int(parts.bounds[new + 1])) if new in own else range(0)
            return (
                new in own
                and curve[new - own.start] >= least_joined
                and some.means[new] @ some.means[old] >= ALIKE
                and not taken.intersection(inside)
            )

        bounds = parts.bounds.tolist()
        while stop in bounds and joins(bounds.index(stop), bounds.index(stop) - 1):
            stop = bounds[bounds.index(stop) + 1]
        while first in bounds and joins(bounds.index(first) - 1, bounds.index(first)):
            first = bounds[bounds.index(first) - 1]
        taken |= set(range(first, stop))
        found.append(FoundSpan(first=first, stop=stop, best=best, score=float(scores[part - own.start])))
    return found


def random_parts(rng: np.random.Generator) -> Parts:
    """Films with scenes of all lengths, a photo, and segments of different lengths."""
    counts = [*rng.integers(2, 300, 5).tolist(), 1]
    offsets = np.concatenate([[0], np.cumsum(counts)])
    inner = np.flatnonzero(rng.random(offsets[-1]) < rng.choice([0.01, 0.1, 0.3]))
    lengths_s = np.where(rng.random(offsets[-1]) < 0.05, rng.uniform(1, 40), 0.25)
    lengths_s[-1] = 0
    start_s = np.concatenate([np.cumsum(lengths_s[a:b]) - lengths_s[a:b] for a, b in itertools.pairwise(offsets)])
    scenes = np.unique(np.concatenate([offsets[:-1], inner]))
    return split_scenes(scenes, offsets, start_s, start_s + lengths_s)


@pytest.mark.parametrize("seed", range(30))
def test_spans_of_many_videos_equal_those_of_a_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = random_parts(rng)
    means = l2_normalise(np.repeat(rng.standard_normal((len(parts) // 3 + 1, DIM)), 3, axis=0)[: len(parts)] + 0.5)
    curve = np.cumsum(rng.standard_normal(len(parts.start_s)))
    curve = np.round(0.02 * (curve - curve.mean()) + 0.1 * rng.standard_normal(len(curve)), 2).astype(np.float32)
    some = ScoredParts(
        parts=parts,
        means=means.astype(np.float32),
        query=l2_normalise(rng.standard_normal((1, DIM)).astype(np.float32))[0],
        scores=Scores(np.round(rng.standard_normal(len(parts)), 1).astype(np.float32)),
        units=Units(offsets=parts.offsets, of_part=np.arange(len(parts)), means=means.astype(np.float32)),
        hubness=None if seed % 2 else rng.uniform(0, 0.2, len(parts)).astype(np.float32),
        frames=curve.__getitem__,
    )
    videos = rng.permutation(6).tolist()
    for most, least in ((1, None), (5, None), (1000, -np.inf)):
        expected = [one_after_the_other(some, video, most=most, least=least) for video in videos]
        assert some.spans_of(videos, most=most, least=least) == expected
    assert max(len(spans) for spans in expected) > 1
