"""Moments: the spans of a video that a query describes, from the scores of its parts and frames. No training.

1. The parts of a video are its scenes; a long scene is cut into equal parts. Neighbouring scenes that look alike form a
   unit: one thing, filmed from two sides. A query has the score of a unit: the cosine with the unit mean of its frames,
   less its hubness. So a short clip has about the score of its mean, and one scene of a long film is not lost in the
   film's mean. The best unit ranks the video.
2. The best part of the unit is the seed of a span. Within its scene, the span reaches from the best frame as far as
   the frames' scores stay above the middle between the video's median and the best frame. What this cuts off the scene
   counts only from `LEAST_S` on: a true cut is more exact than the scores of frames.
3. Where the span reaches the end of its scene, neighbouring parts join it while they look alike and their own scores
   are above the middle as well.
4. Parts that the span contains are suppressed, and the next best part is the seed of the next span.

Proposals between shot boundaries and merged neighbours are those of training-free moment retrieval with CLIP (Diwan et
al., "Zero-shot Video Moment Retrieval With Off-the-Shelf Models", 2022). All constants were chosen on films of moving
photographs of Flickr8k (`benchmarks/moments.py --tune`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from impart.encoders.base import Float32, l2_normalise

__all__ = [
    "MOST",
    "FoundSpan",
    "Frames",
    "Parts",
    "ScoredParts",
    "Units",
    "join_alike",
    "split_scenes",
]

LONG_S, PART_S = 12.0, 8.0
"""A scene of at least `LONG_S` is cut into parts of about `PART_S`."""
LEAST_S = 1.0
"""Shortest span, and shortest piece that is cut off a scene."""
SHARE = 0.5
"""Height of the middle, between the median (0) and the best score (1) of a video."""
ALIKE = 0.5
"""Neighbouring scenes with at least this cosine of their unit means look alike."""
UNIT_S = 30.0
"""Longest unit of several scenes."""
GAP_S = 1.0
"""Frames with lower scores for up to this long do not end a span."""
REACH_S = 120.0
"""A span reaches at most this far from its part within one scene."""
MOST = 5
"""Spans per video."""
_DECIMALS = 6  # scores that differ by less are ties

Frames = Callable[[int, int], Float32]
"""Returns the cosines of the query with the segments from the first number up to the second."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """P parts of S scenes of V videos; they cover all n segments in order.

    Attributes:
        bounds: (P + 1,) part p has the segments from bounds[p] up to bounds[p + 1].
        offsets: (V + 1,) video v has the parts from offsets[v] up to offsets[v + 1].
        scene_of: (P,) number of the scene of each part.
        scenes: (S + 1,) scene s has the segments from scenes[s] up to scenes[s + 1].
        start_s, end_s: (n,) bounds of the segments.
    """

    bounds: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    scene_of: npt.NDArray[np.int64]
    scenes: npt.NDArray[np.int64]
    start_s: npt.NDArray[np.float64]
    end_s: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.scene_of)

    def of_video(self, video: int) -> range:
        """Numbers of the parts of a video."""
        return range(int(self.offsets[video]), int(self.offsets[video + 1]))

    def length_s(self, first: int, stop: int) -> float:
        """Length of the segments from `first` up to `stop`."""
        return float(self.end_s[stop - 1] - self.start_s[first]) if stop > first else 0.0


@dataclass(frozen=True, kw_only=True)
class FoundSpan:
    """Segments from `first` up to `stop` of one video; `best` is the segment with the highest score."""

    first: int
    stop: int
    best: int
    score: float


def split_scenes(
    scenes: npt.NDArray[np.int64],
    offsets: npt.NDArray[np.int64],
    start_s: npt.NDArray[np.float64],
    end_s: npt.NDArray[np.float64],
) -> Parts:
    """Cut long scenes into parts of equal lengths.

    Args:
        scenes: (S,) first segment of each scene, over all videos.
        offsets: (V + 1,) first segment of each video, and n.
        start_s, end_s: (n,) bounds of the segments.

    >>> quarter = np.arange(80) / 4
    >>> split_scenes(np.array([0, 8]), np.array([0, 80]), quarter, quarter + 0.25).bounds.tolist()
    [0, 8, 44, 80]
    """
    ends = np.append(scenes, len(start_s)).astype(np.int64)
    first, stop = ends[:-1], ends[1:]
    length_s = end_s[stop - 1] - start_s[first]
    cut = np.flatnonzero((length_s >= LONG_S) & (stop - first > 1))
    added: list[npt.NDArray[np.int64]] = []
    for scene in cut.tolist():
        a, b = int(first[scene]), int(stop[scene])
        count = max(1, round(float(length_s[scene]) / PART_S))
        inner = start_s[a] + length_s[scene] * np.arange(1, count) / count
        added.append(a + np.searchsorted(start_s[a:b], inner - 1e-6))
    bounds = np.unique(np.concatenate([ends, *added])).astype(np.int64)
    starts = bounds[:-1]
    return Parts(
        bounds=bounds,
        offsets=np.searchsorted(starts, offsets).astype(np.int64),
        scene_of=np.searchsorted(scenes, starts, side="right") - 1,
        scenes=ends,
        start_s=start_s,
        end_s=end_s,
    )


@dataclass(frozen=True, kw_only=True)
class Units:
    """U units of neighbouring parts.

    Attributes:
        offsets: (V + 1,) video v has the units from offsets[v] up to offsets[v + 1].
        of_part: (P,) number of the unit of each part.
        means: (U, D) unit means.
    """

    offsets: npt.NDArray[np.int64]
    of_part: npt.NDArray[np.int64]
    means: Float32


def join_alike(parts: Parts, means: Float32, weight: npt.NDArray[np.int32]) -> Units:
    """Join neighbouring scenes of a video that look alike to units, and leave parts of long scenes alone.

    Args:
        means: (P, D) unit means of the parts.
        weight: (n,) sampled frames per segment.
    """
    starts = parts.bounds[:-1]
    whole = np.diff(np.searchsorted(starts, parts.scenes))[parts.scene_of] == 1  # (P,) scenes of one part
    alike = np.einsum("pd,pd->p", means[:-1], means[1:]) >= ALIKE
    alike &= whole[:-1] & whole[1:]
    alike[parts.offsets[1:-1] - 1] = False
    first = np.append(True, ~alike)[: len(starts)]  # (P,) parts that begin a unit
    begin = 0
    for part in np.flatnonzero(~first).tolist():
        begin = part - 1 if first[part - 1] else begin
        if parts.length_s(int(parts.bounds[begin]), int(parts.bounds[part + 1])) > UNIT_S:
            first[part], begin = True, part
    units = np.flatnonzero(first)
    frames = np.add.reduceat(weight, starts).astype(np.float32)  # (P,)
    return Units(
        offsets=np.searchsorted(units, parts.offsets).astype(np.int64),
        of_part=np.cumsum(first) - 1,
        means=l2_normalise(np.add.reduceat(means * frames[:, None], units)),
    )


@dataclass(frozen=True)
class _Curve:
    """The parts of one video: their numbers, cosines (p,) and scores (p,), which are the cosines less the hubness."""

    own: range
    cosines: Float32
    scores: Float32


@dataclass(frozen=True, kw_only=True)
class ScoredParts:
    """All parts with their scores for one query.

    Attributes:
        parts: of all videos.
        means: (P, D) unit means of the parts.
        query: (D,) unit vector.
        scores: (P,) of the query with the unit of each part.
        hubness: (P,) what is subtracted from the cosine of each part; None = nothing.
        frames: see `Frames`.
    """

    parts: Parts
    means: Float32
    query: Float32
    scores: Float32
    hubness: Float32 | None
    frames: Frames

    def spans_of(
        self,
        video: int,
        *,
        most: int = MOST,
        least: float | None = None,
        allowed: npt.NDArray[np.bool_] | None = None,
    ) -> list[FoundSpan]:
        """Find the spans of a video that the query describes, best first. They do not overlap.

        Args:
            most: highest number of spans.
            least: lowest score of a span; None = the middle between the median and the best score of the video.
            allowed: (P,) parts that spans may be made of; None = all.
        """
        own = self.parts.of_video(video)
        here = slice(own.start, own.stop)
        cosines = self.means[here] @ self.query  # (p,)
        curve = _Curve(own, cosines, cosines if self.hubness is None else cosines - self.hubness[here])
        scores = np.round(self.scores[here], _DECIMALS)
        floor = _middle(scores, float(scores.max())) if least is None else least
        origin = int(self.parts.bounds[own.start])
        taken = np.zeros(int(self.parts.bounds[own.stop]) - origin, bool)
        spans: list[FoundSpan] = []
        for part in (own.start + np.lexsort((-np.round(curve.scores, _DECIMALS), -scores))).tolist():
            if len(spans) == most or scores[part - own.start] < floor:
                break
            low, high = self.parts.bounds[part : part + 2] - origin
            if (allowed is not None and not allowed[part]) or 2 * taken[low:high].sum() > high - low:
                continue
            span = self._grown(part, curve, taken, origin)
            taken[span.first - origin : span.stop - origin] = True
            spans.append(span)
        return spans

    def best(self, top: int, *, allowed: npt.NDArray[np.bool_] | None = None) -> list[FoundSpan]:
        """Find the best spans of all videos, best first; of equal scores the lower number of the segment.

        Args:
            top: number of spans.
            allowed: (P,) parts that spans may be made of; None = all.
        """
        scores = np.round(self.scores, _DECIMALS)
        seeds = np.arange(len(scores)) if allowed is None else np.flatnonzero(allowed)
        seeds = seeds[np.argsort(-scores[seeds], kind="stable")]
        wanted = 2 * top  # neighbours join, so there are fewer spans than parts
        found: list[FoundSpan] = []
        while len(seeds):
            chosen = seeds[:wanted]
            videos = np.unique(np.searchsorted(self.parts.offsets, chosen, side="right") - 1)
            least = float(scores[chosen[-1]])
            found = [
                span
                for video in videos.tolist()
                for span in self.spans_of(video, most=top, least=least, allowed=allowed)
            ]
            if len(found) >= top or wanted >= len(seeds):
                break
            wanted *= 4
        return sorted(found, key=lambda span: (-span.score, span.first))[:top]

    def _grown(self, part: int, curve: _Curve, taken: npt.NDArray[np.bool_], origin: int) -> FoundSpan:
        """Grow the span of a part.

        Args:
            curve: of the video.
            taken: (m,) segments of the video, from `origin` on, that belong to earlier spans.
        """
        parts = self.parts
        a, b = parts.scenes[parts.scene_of[part] : parts.scene_of[part] + 2].tolist()
        low, high = parts.bounds[part : part + 2].tolist()
        a += int(np.searchsorted(parts.start_s[a:low], parts.start_s[low] - REACH_S))
        b = high + int(np.searchsorted(parts.end_s[high:b], parts.end_s[high - 1] + REACH_S, side="right"))
        frames = np.round(self.frames(a, b), _DECIMALS)
        free = np.flatnonzero(~taken[low - origin : high - origin])
        best = low + int(free[np.argmax(frames[low - a : high - a][free])])
        level = _middle(curve.cosines, float(frames[best - a]))
        if level > frames[best - a]:  # below the median of the video, which has better spans: the whole scene
            level = -np.inf
        first, stop = self._within_scene(frames >= level, a, b, best)
        before, behind = np.flatnonzero(taken[first - origin : best - origin]), np.flatnonzero(taken[best - origin :])
        if len(before):
            first += int(before[-1]) + 1
        if len(behind):
            stop = min(stop, best + int(behind[0]))
        first, stop = self._with_neighbours(part, curve, first, stop, taken, origin)
        return FoundSpan(first=first, stop=stop, best=best, score=float(np.round(self.scores[part], _DECIMALS)))

    def _within_scene(self, high: npt.NDArray[np.bool_], a: int, b: int, best: int) -> tuple[int, int]:
        """Extend from the best frame while the frames' scores are high, in the scene from segment a up to b."""
        parts = self.parts
        first, stop = best, best + 1
        for number in range(best + 1, b):
            if high[number - a]:
                stop = number + 1
            elif parts.length_s(stop, number + 1) > GAP_S:
                break
        for number in range(best - 1, a - 1, -1):
            if high[number - a]:
                first = number
            elif parts.length_s(number, first) > GAP_S:
                break
        first = first if parts.length_s(a, first) > LEAST_S else a
        stop = stop if parts.length_s(stop, b) > LEAST_S else b
        while parts.length_s(first, stop) < LEAST_S and (first > a or stop < b):
            first, stop = max(first - 1, a), min(stop + 1, b)
        return first, stop

    def _with_neighbours(
        self, part: int, curve: _Curve, first: int, stop: int, taken: npt.NDArray[np.bool_], origin: int
    ) -> tuple[int, int]:
        """Add whole parts before and behind that look alike and have high scores, where the span reaches them."""
        bounds, own, scores = self.parts.bounds, curve.own, curve.scores
        least = _middle(scores, float(scores[part - own.start]))

        def joins(new: int, old: int) -> bool:
            if new not in own or scores[new - own.start] < least or self.means[new] @ self.means[old] < ALIKE:
                return False
            return not taken[bounds[new] - origin : bounds[new + 1] - origin].any()

        last = int(np.searchsorted(bounds, stop)) - 1  # the part in which the span ends
        while bounds[last + 1] == stop and joins(last + 1, last):
            last += 1
            stop = int(bounds[last + 1])
        lead = int(np.searchsorted(bounds, first, side="right")) - 1
        while bounds[lead] == first and joins(lead - 1, lead):
            lead -= 1
            first = int(bounds[lead])
        return first, stop


def _middle(scores: Float32, best: float) -> float:
    median = float(np.median(scores))
    return median + SHARE * (best - median)
