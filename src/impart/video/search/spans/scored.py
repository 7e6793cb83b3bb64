"""Scored parts: find the spans that one query describes, see `impart.video.search.spans.moments`.

The spans of many videos are grown together, the best one of each video first, so that a search takes few array
operations in place of many small ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from impart.encoders.base import Float32
from impart.video.search.rank.candidates import Scores
from impart.video.search.spans.moments import ALIKE, GAP_S, LEAST_S, MOST, REACH_S, SHARE, FoundSpan, Parts, Units

__all__ = ["VideoCurve", "Frames", "ScoredParts"]

_DECIMALS = 6  # scores that differ by less are ties

Frames = Callable[[npt.NDArray[np.int64]], Float32]
"""Returns the cosines (m,) of the query with the segments of these numbers (m,)."""


@dataclass(kw_only=True)
class VideoCurve:
    """The parts of one video with their scores for one query, and the spans found so far.

    Attributes:
        own: numbers of the parts.
        scores: (p,) cosines of the parts, less the hubness.
        unit_scores: (p,) scores of the units of the parts, rounded.
        median_cosine, median_score: of the parts.
        seeds: parts in the order in which they become spans; only those with enough score.
        taken: (m,) segments that belong to spans.
    """

    own: range
    scores: Float32
    unit_scores: Float32
    median_cosine: float
    median_score: float
    seeds: list[int]
    origin: int
    taken: npt.NDArray[np.bool_]
    spans: list[FoundSpan] = field(default_factory=list)
    tried: int = 0


@dataclass(frozen=True, kw_only=True)
class ScoredParts:
    """All parts with their scores for one query.

    Attributes:
        parts: of all videos.
        means: (P, D) unit means of the parts.
        query: (D,) unit vector.
        scores: (U,) of the query with the units.
        units: U units of the parts.
        hubness: (U,) of the units, which is subtracted from the cosines of their parts; None = nothing is.
        frames: see `Frames`.
        cosines: (P,) of the query with the means, where they are known.
    """

    parts: Parts
    means: Float32
    query: Float32
    scores: Scores
    units: Units
    hubness: Float32 | None
    frames: Frames
    cosines: Float32 | None = None

    def spans_of(
        self,
        videos: Sequence[int],
        *,
        most: int = MOST,
        least: float | None = None,
        allowed: npt.NDArray[np.bool_] | None = None,
    ) -> list[list[FoundSpan]]:
        """Find the spans of some videos that the query describes, of each video best first. They do not overlap.

        Args:
            most: highest number of spans per video.
            least: lowest score of a span; None = the middle between the median and the best score of the video.
            allowed: (P,) parts that spans may be made of; None = all.
        """
        curves = [self.curve(video, least=least, allowed=allowed) for video in videos]
        self.find(curves, most=most)
        return [curve.spans for curve in curves]

    def find(self, curves: Sequence[VideoCurve], *, most: int) -> None:
        """Find further spans of some videos, until each has `most` of them, or all that it has."""
        growing = [curve for curve in curves if len(curve.spans) < most]
        while growing:
            pairs = [(curve, part) for curve in growing if (part := self._next_seed(curve)) is not None]
            if not pairs:
                break
            growing = [curve for curve, _ in pairs]
            self._grow(growing, np.array([part for _, part in pairs]))
            growing = [curve for curve in growing if len(curve.spans) < most]

    def best(self, top: int, *, allowed: npt.NDArray[np.bool_] | None = None) -> list[FoundSpan]:
        """Find the best spans of all videos, best first; of equal scores the lower number of the segment.

        Args:
            top: number of spans.
            allowed: (P,) parts that spans may be made of; None = all.
        """
        count = len(self.parts) if allowed is None else int(np.count_nonzero(allowed))
        of_units = None if allowed is None else np.maximum.reduceat(allowed, self.units.first_parts[:-1])  # (U,)
        wanted = 2 * top  # neighbours join, so there are fewer spans than parts
        found: list[FoundSpan] = []
        while count:
            units, scores = self.scores.best(wanted, allowed=of_units)
            chosen, scores = self._parts_of(units, np.round(scores, _DECIMALS), allowed, most=wanted)
            videos = np.unique(np.searchsorted(self.parts.offsets, chosen, side="right") - 1)
            of_videos = self.spans_of(videos.tolist(), most=top, least=float(scores[-1]), allowed=allowed)
            found = [span for spans in of_videos for span in spans]
            if len(found) >= top or wanted >= count:
                break
            wanted *= 4
        return sorted(found, key=lambda span: (-span.score, span.first))[:top]

    def _parts_of(
        self,
        units: npt.NDArray[np.int64],
        scores: Float32,
        allowed: npt.NDArray[np.bool_] | None,
        *,
        most: int,
    ) -> tuple[npt.NDArray[np.int64], Float32]:
        """List the parts of units and their scores, best first; of equal scores the lower number.

        Args:
            units, scores: (k,) numbers of the units, and their scores.
            allowed: (P,) parts that are listed; None = all.
            most: number of parts.
        """
        first, stop = self.units.first_parts[units], self.units.first_parts[units + 1]
        parts, _ = _joined(first, stop)
        of_parts = np.repeat(scores, stop - first)
        if allowed is not None:
            parts, of_parts = parts[allowed[parts]], of_parts[allowed[parts]]
        order = np.lexsort((parts, -of_parts))[:most]
        return parts[order], of_parts[order]

    def curve(
        self, video: int, *, least: float | None = None, allowed: npt.NDArray[np.bool_] | None = None
    ) -> VideoCurve:
        """Take the parts of a video, without spans.

        Args:
            least, allowed: see `spans_of`.
        """
        own = self.parts.of_video(video)
        here = slice(own.start, own.stop)
        cosines = self.means[here] @ self.query if self.cosines is None else self.cosines[here]  # (p,)
        units = self.units.of_part[here]
        of_parts = cosines if self.hubness is None else cosines - self.hubness[units]
        first = int(units[0])
        here_units = slice(first, int(units[-1]) + 1)
        if here_units.stop - first == len(units):  # each unit is one part, and has its mean
            self.scores.learn(here_units, of_parts)
        of_units = self.scores.of(here_units)
        scores = np.round(of_units[units - first], _DECIMALS)  # (p,)
        floor = _middle(_median(scores), float(scores.max())) if least is None else least
        seeds = np.flatnonzero(scores >= floor)
        if allowed is not None:
            seeds = seeds[allowed[here][seeds]]
        order = np.lexsort((-np.round(of_parts[seeds], _DECIMALS), -scores[seeds]))
        origin, stop = int(self.parts.bounds[own.start]), int(self.parts.bounds[own.stop])
        return VideoCurve(
            own=own,
            scores=of_parts,
            unit_scores=scores,
            median_cosine=(median := _median(cosines)),
            median_score=median if self.hubness is None else _median(of_parts),
            seeds=(own.start + seeds[order]).tolist(),
            origin=origin,
            taken=np.zeros(stop - origin, bool),
        )

    def _next_seed(self, curve: VideoCurve) -> int | None:
        """Take the best part of which at most half belongs to a span."""
        while curve.tried < len(curve.seeds):
            part = curve.seeds[curve.tried]
            curve.tried += 1
            low, high = self.parts.bounds[part : part + 2] - curve.origin
            if not curve.spans or 2 * np.count_nonzero(curve.taken[low:high]) <= high - low:
                return part
        return None

    def _grow(self, curves: Sequence[VideoCurve], seeds: npt.NDArray[np.int64]) -> None:
        """Grow one span in each of m videos from its seed (m,), and add it to the spans of the video."""
        bounds = self.parts.bounds
        a, b = self._windows(seeds)
        rows, starts = _joined(a, b)  # (M,) segments of all windows, (m,) where each begins
        pair = np.repeat(np.arange(len(seeds)), b - a)  # (M,)
        taken = np.concatenate(
            [
                curve.taken[first - curve.origin : stop - curve.origin]
                for curve, first, stop in zip(curves, a.tolist(), b.tolist(), strict=True)
            ]
        )
        frames = np.round(self.frames(rows), _DECIMALS)
        free = (rows >= bounds[seeds][pair]) & (rows < bounds[seeds + 1][pair]) & ~taken
        peaks = np.maximum.reduceat(np.where(free, frames, -np.inf), starts)  # (m,)
        at = np.flatnonzero(free & (frames == peaks[pair]))
        at = at[np.searchsorted(pair[at], np.arange(len(seeds)))]  # of ties, the first
        best = rows[at]
        medians = np.array([curve.median_cosine for curve in curves])
        level = _middle(medians, peaks.astype(np.float64)).astype(np.float32)
        level[level > peaks] = -np.inf  # below the median of the video, which has better spans: the whole scene
        first, stop = self._within_scene(frames >= level[pair], rows, pair, starts, at, a, b)
        before = np.maximum.reduceat(np.where(taken & (rows < best[pair]), rows + 1, -1), starts)
        behind = np.minimum.reduceat(np.where(taken & (rows > best[pair]), rows, len(self.parts.start_s)), starts)
        first, stop = np.maximum(first, before), np.minimum(stop, behind)
        scores = [
            float(curve.unit_scores[seed - curve.own.start]) for curve, seed in zip(curves, seeds.tolist(), strict=True)
        ]
        self._add_neighbours(curves, seeds, first, stop)
        found = zip(curves, first.tolist(), stop.tolist(), best.tolist(), scores, strict=True)
        for curve, begin, end, peak, score in found:
            curve.spans.append(FoundSpan(first=begin, stop=end, best=peak, score=score))
            curve.taken[begin - curve.origin : end - curve.origin] = True

    def _windows(self, seeds: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Find the segments [a, b) (m,) of the scene of each seed, at most `REACH_S` from it."""
        parts = self.parts
        low, high = parts.bounds[seeds], parts.bounds[seeds + 1]
        a, b = parts.scenes[parts.scene_of[seeds]].copy(), parts.scenes[parts.scene_of[seeds] + 1].copy()
        earliest, latest = parts.start_s[low] - REACH_S, parts.end_s[high - 1] + REACH_S
        for one in np.flatnonzero(parts.start_s[a] < earliest).tolist():
            a[one] += np.searchsorted(parts.start_s[a[one] : low[one]], earliest[one])
        for one in np.flatnonzero(parts.end_s[b - 1] > latest).tolist():
            b[one] = high[one] + np.searchsorted(parts.end_s[high[one] : b[one]], latest[one], side="right")
        return a, b

    def _within_scene(
        self,
        high: npt.NDArray[np.bool_],
        rows: npt.NDArray[np.int64],
        pair: npt.NDArray[np.int64],
        starts: npt.NDArray[np.int64],
        at: npt.NDArray[np.int64],
        a: npt.NDArray[np.int64],
        b: npt.NDArray[np.int64],
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Extend from the best frames while the frames' scores are high, in the windows [a, b).

        Args:
            high: (M,) whether the score of a segment is high.
            rows, pair: (M,) number and window of each segment.
            starts, at: (m,) places in `rows` of the first segment of each window, and of its best frame.
            a, b: (m,) the windows.

        Returns:
            (m,) first segment of each span, and the one behind its last.
        """
        start_s, end_s = self.parts.start_s, self.parts.end_s
        place, last = np.arange(len(rows)), starts + (b - a) - 1
        high = high.copy()
        high[at] = True
        # Forwards: up to the first low segment with which a gap is too long.
        before = np.maximum.accumulate(np.where(high, place, 0))  # place of the last high one so far
        ends = ~high & (place > at[pair])
        where = np.flatnonzero(ends)
        gaps_s = end_s[rows[where]] - start_s[rows[before[where]] + 1]
        ends[where] = gaps_s > GAP_S
        stop_at = np.minimum.reduceat(np.where(ends, place, len(rows)), starts)
        stop = rows[before[np.minimum(stop_at, last)]] + 1
        # Backwards.
        behind = np.minimum.accumulate(np.where(high, place, len(rows) - 1)[::-1])[::-1]
        ends = ~high & (place < at[pair])
        where = np.flatnonzero(ends)
        gaps_s = end_s[rows[behind[where]] - 1] - start_s[rows[where]]
        ends[where] = gaps_s > GAP_S
        first_at = np.maximum.reduceat(np.where(ends, place, -1), starts)
        first = rows[behind[np.maximum(first_at, starts)]]
        # Pieces at the ends of the scene that are too short are no cuts, and no span is too short.
        first = np.where(_lengths(start_s, end_s, a, first) > LEAST_S, first, a)
        stop = np.where(_lengths(start_s, end_s, stop, b) > LEAST_S, stop, b)
        while True:
            short = (_lengths(start_s, end_s, first, stop) < LEAST_S) & ((first > a) | (stop < b))
            if not short.any():
                return first, stop
            first = np.where(short, np.maximum(first - 1, a), first)
            stop = np.where(short, np.minimum(stop + 1, b), stop)

    def _add_neighbours(
        self,
        curves: Sequence[VideoCurve],
        seeds: npt.NDArray[np.int64],
        first: npt.NDArray[np.int64],
        stop: npt.NDArray[np.int64],
    ) -> None:
        """Extend spans [first, stop) by whole parts that look alike and have high scores, where they reach them."""
        bounds = self.parts.bounds
        last = np.searchsorted(bounds, stop) - 1  # the part in which each span ends
        lead = np.searchsorted(bounds, first, side="right") - 1
        for one in np.flatnonzero((bounds[last + 1] == stop) | (bounds[lead] == first)).tolist():
            curve, new = curves[one], int(last[one]) + 1
            least = _middle(curve.median_score, float(curve.scores[int(seeds[one]) - curve.own.start]))
            while bounds[new] == stop[one] and self._joins(curve, new, new - 1, least):
                new += 1
                stop[one] = bounds[new]
            new = int(lead[one]) - 1
            while bounds[new + 1] == first[one] and self._joins(curve, new, new + 1, least):
                first[one] = bounds[new]
                new -= 1

    def _joins(self, curve: VideoCurve, new: int, old: int, least: float) -> bool:
        """Decide whether a part joins a span that ends with its neighbour `old`."""
        if new not in curve.own or curve.scores[new - curve.own.start] < least:
            return False
        if self.means[new] @ self.means[old] < ALIKE:
            return False
        low, high = self.parts.bounds[new : new + 2] - curve.origin
        return not curve.taken[low:high].any()


def _joined(
    first: npt.NDArray[np.int64], stop: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Join the numbers of ranges [first, stop) (m,), and find where each range begins."""
    lengths = stop - first
    starts = np.cumsum(lengths) - lengths
    return np.arange(int(lengths.sum())) + np.repeat(first - starts, lengths), starts


def _lengths(
    start_s: npt.NDArray[np.float64],
    end_s: npt.NDArray[np.float64],
    first: npt.NDArray[np.int64],
    stop: npt.NDArray[np.int64],
) -> npt.NDArray[np.float64]:
    """Compute the lengths (s) of runs [first, stop) of segments; 0 of empty ones."""
    inside = np.minimum(first, len(start_s) - 1)
    lengths: npt.NDArray[np.float64] = np.where(stop > first, end_s[stop - 1] - start_s[inside], 0.0)
    return lengths


def _median(values: Float32) -> float:
    """Compute the median; `numpy.median` takes ten times as long for few values."""
    ordered = np.sort(values)
    return float((ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / np.float32(2))


def _middle(median: Any, best: Any) -> Any:
    """Compute the height in the middle between a median and the best score."""
    return median + SHARE * (best - median)
