"""Scores of queries with taught names, and the spans that they make. Pure functions.

Of a query with a taught name, the score of a segment is a product: presence of the name (`presence`), times how well
the rest of the sentence fits. Scores of a context differ little between segments, so they are standardised over the
index first:

    score = prod_names presence * logistic((z - 3) / 0.6),    z = (c - mean c) / sd c

The constants were chosen on rendered images (168 of 42 things on scenes, among 408): the right thing on the right
scene is first for 68%, by presence alone 23%, by the text with the true noun 23%. From 2.5 to 3.5 and from 0.5 to 0.7
they are about equally good.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from impart.encoders.base import Float32
from impart.video.search.query import SearchOptions
from impart.video.search.ranking import best_of, top_groups
from impart.video.search.snapshot import Snapshot
from impart.video.search.spans.moments import MOST, FoundSpan

__all__ = ["PRESENT", "NamedScores", "Ranked", "context_fit", "group_averages", "named_scores", "rank_named"]

PRESENT = 0.5
"""Presence from which a segment shows a name."""

_CONTEXT_Z, _CONTEXT_WIDTH_Z = 3.0, 0.6  # where the context fits by half, and how fast that changes
_LEAST_DEVIATION = 1e-6  # of the scores of an index in which all frames are equal
_SHARE = 0.5  # of the best score of a video that the segments of a span have
_GAP_S = 1.0  # lower scores for up to this long do not end a span


@dataclass(frozen=True, kw_only=True)
class NamedScores:
    """Scores of a query with taught names, and the presence of each.

    Attributes:
        scores: (n,) of the segments, see `named_scores`.
        present: (n,) presence of each name that the segments shall show.
    """

    scores: Float32
    present: Mapping[str, Float32]

    def names_in(self, segments: npt.NDArray[np.int64]) -> tuple[str, ...]:
        """List the names that are present in one of some segments."""
        return tuple(name for name, presence in self.present.items() if (presence[segments] >= PRESENT).any())


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """A ranked group.

    Attributes:
        score: of the group.
        segments: that the hit covers; best: the one with the highest score.
        more: further spans of the video.
    """

    score: float
    segments: range
    best: int
    more: tuple[FoundSpan, ...] = ()


def context_fit(context: Float32, weight: npt.NDArray[np.number]) -> Float32:
    """Compute how well the context of a name fits (u,), from 0 to 1: the logistic of its z-scores.

    Args:
        context: (u,) scores of the query without the names, of all segments of the index, or of all groups of them.
        weight: (u,) sampled frames of each.

    >>> context_fit(np.float32([0.1, 0.1, 0.1, 0.9]), np.array([9, 9, 9, 1])).round().tolist()
    [0.0, 0.0, 0.0, 1.0]
    """
    mean = np.average(context, weights=weight)
    deviation = np.sqrt(np.average((context - mean) ** 2, weights=weight))
    z_scores = (context - mean) / max(float(deviation), _LEAST_DEVIATION)
    fit: Float32 = (1 / (1 + np.exp((_CONTEXT_Z - z_scores) / _CONTEXT_WIDTH_Z))).astype(np.float32)
    return fit


def named_scores(
    fit: Float32 | None, presences: Sequence[Float32], absences: Sequence[Float32] = (), *, count: int
) -> Float32:
    """Compute the scores (n,) of a query with taught names, from 0 to 1.

    Args:
        fit: (n,) `context_fit` of the segments; None = the query is the names alone.
        presences: (n,) presence of each name that the segments shall show.
        absences: (n,) presence of each name that they shall not show.
        count: n.

    >>> named_scores(np.float32([0.5, 0.25, 0.5]), [np.float32([1, 1, 0])], count=3).tolist()
    [0.5, 0.25, 0.0]
    """
    scores = np.ones(count, np.float32) if fit is None else fit.copy()
    for presence in presences:
        scores *= presence
    for presence in absences:
        scores *= 1 - presence
    return scores


def group_averages(values: Float32, weight: npt.NDArray[np.integer], starts: npt.NDArray[np.int64]) -> Float32:
    """Average values (n,) over G consecutive groups of segments; a segment counts as many times as frames.

    >>> group_averages(np.float32([1, 0, 0.5]), np.array([3, 1, 1]), np.array([0, 2])).tolist()
    [0.75, 0.5]
    """
    share = weight.astype(np.float64)
    averages: Float32 = (np.add.reduceat(values * share, starts) / np.add.reduceat(share, starts)).astype(np.float32)
    return averages


def rank_named(
    named: NamedScores,
    snapshot: Snapshot,
    starts: npt.NDArray[np.int64],
    options: SearchOptions,
    *,
    allowed: npt.NDArray[np.bool_] | None = None,
) -> list[Ranked]:
    """Rank groups by the scores of a query with taught names, best first.

    A span is where the scores are at least half of the best score of the video.

    Args:
        starts: (G,) first segment of each group; the groups cover all n segments.
        allowed: (G,) groups that may be returned; None = all.
    """
    if not len(snapshot):
        return []
    stops = np.append(starts, len(snapshot))[1:]
    scores: Float32 = np.maximum.reduceat(named.scores, starts)
    if options.ranked_by == "mean":
        scores = group_averages(named.scores, snapshot.weight, starts)
    chosen = top_groups(scores, top=len(starts) if options.group == "moment" else options.top, allowed=allowed)
    ranked: list[Ranked] = []
    taken = np.zeros(len(snapshot), bool)
    for group in chosen.tolist():
        whole = range(int(starts[group]), int(stops[group]))
        best = whole.start + best_of(named.scores[whole.start : whole.stop])
        score = float(np.round(scores[group], 6))
        if options.group == "moment" and taken[best]:  # another part of the same span
            continue
        segments, more = (whole if options.group == "scene" else range(best, best + 1)), []
        if options.group in ("video", "moment") and options.by != "frame" and options.spans:
            segments, *more = _spans(named.scores, snapshot, best)
        taken[segments.start : segments.stop] = True
        others = [_found(span, named.scores) for span in more[: MOST - 1]] if options.group == "video" else []
        ranked.append(Ranked(score=score, segments=segments, best=best, more=tuple(others)))
        if len(ranked) == options.top:
            break
    return ranked


def _spans(scores: Float32, snapshot: Snapshot, best: int) -> list[range]:
    """Find the spans of a video: first the one with the segment `best`, then the others by their best scores."""
    video = int(snapshot.video_of[best])
    first, stop = int(snapshot.offsets[video]), int(snapshot.offsets[video + 1])
    least = min(_SHARE * float(scores[first:stop].max()), float(scores[best]))
    rows = first + np.flatnonzero(scores[first:stop] >= least)
    apart = snapshot.start_s[rows[1:]] - snapshot.end_s[rows[:-1]] > _GAP_S
    spans = [range(int(part[0]), int(part[-1]) + 1) for part in np.split(rows, np.flatnonzero(apart) + 1)]
    return sorted(spans, key=lambda span: (best not in span, -float(scores[span.start : span.stop].max())))


def _found(span: range, scores: Float32) -> FoundSpan:
    peak = span.start + best_of(scores[span.start : span.stop])
    return FoundSpan(first=span.start, stop=span.stop, best=peak, score=float(np.round(scores[peak], 6)))
