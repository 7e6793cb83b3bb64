"""Combine the frame scores of several queries in time: A followed by B, and A and B in one span.

The scores of two queries have different means and widths: a long sentence scores lower than one word. They are first
standardised over the frames of the index (`standardised`), so that neither outweighs the other. Then

    A then B:  c(i) = (z_A(i) + max z_B(j)) / 2                j starts after i ends, at most `within_s` later
    A with B:  c(i) = (max z_A(j) + max z_B(j)) / 2            j at most 2 s from i, in the same scene

where j is a frame of the same video. The mean was chosen on slide shows of Flickr8k `val` images, 25 of 20 images each:
of 475 pairs of captions it finds the right join for 78% within 5 s, the weaker of the two scores 70%, the first caption
alone 41%. The maximum over all windows takes O(n log w) for windows of w frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from impart.config import Group
from impart.encoders.base import Float32
from impart.video.search.query import Query
from impart.video.search.ranking import best_of, top_groups
from impart.video.search.snapshot import Snapshot
from impart.video.search.spans.moments import FoundSpan

__all__ = ["Found", "Windows", "extent", "find_sequences", "standardised"]

_LEAST_SD = np.float32(1e-6)  # of the scores of an index in which all frames are equal
_ALSO_S = 2.0  # most seconds between two things in one span
_MOST_OVERLAPPING = {"moment": 4, "frame": 32}  # times as many sequences are found as are returned: some share segments
_MORE = 3  # further sequences of a video
_LEAST_SHARE = 0.5  # of the best score of its video that a further sequence has
_EPSILON_S = 1e-6  # times of neighbouring frames are equal up to rounding


@dataclass(frozen=True)
class Windows:
    """For each of n frames, the frames [first, stop) of its window; empty where stop <= first.

    Attributes:
        first, stop: (n,).
    """

    first: npt.NDArray[np.int64]
    stop: npt.NDArray[np.int64]

    @classmethod
    def after(
        cls,
        start_s: npt.NDArray[np.float64],
        end_s: npt.NDArray[np.float64],
        offsets: npt.NDArray[np.int64],
        *,
        within_s: float,
    ) -> Windows:
        """Find the frames that start when a frame has ended, at most `within_s` later, in the same video.

        Args:
            start_s, end_s: (n,) of the frames, ascending in each video.
            offsets: (V + 1,) the frames of video i are [offsets[i], offsets[i + 1]).

        >>> times = np.arange(4.0)
        >>> found = Windows.after(times, times + 1, np.array([0, 4]), within_s=1)
        >>> found.first.tolist(), found.stop.tolist()
        ([1, 2, 3, 4], [3, 4, 4, 4])
        """
        shift = _apart(start_s, end_s, offsets, gap_s=within_s)
        starts, ends = start_s + shift, end_s + shift
        first = np.arange(1, len(starts) + 1)
        overlapping = np.flatnonzero(starts[1:] < ends[:-1] - _EPSILON_S)  # rare: most frames end where the next starts
        found = np.searchsorted(starts, ends[overlapping] - _EPSILON_S, side="left")
        first[overlapping] = np.maximum(found, first[overlapping])
        return cls(first, np.searchsorted(starts, ends + within_s + _EPSILON_S, side="right"))

    @classmethod
    def around(
        cls,
        start_s: npt.NDArray[np.float64],
        end_s: npt.NDArray[np.float64],
        offsets: npt.NDArray[np.int64],
        *,
        within_s: float,
    ) -> Windows:
        """Find the frames of which a part is at most `within_s` from a frame, in the same run; with the frame itself.

        Args:
            start_s, end_s: (n,) of the frames, ascending in each run.
            offsets: (S + 1,) the frames of run (video or scene) i are [offsets[i], offsets[i + 1]).
        """
        shift = _apart(start_s, end_s, offsets, gap_s=within_s)
        starts, ends = start_s + shift, end_s + shift
        first = np.searchsorted(ends, starts - within_s - _EPSILON_S, side="left")
        return cls(first, np.searchsorted(starts, ends + within_s + _EPSILON_S, side="right"))

    def maxima(self, values: Float32) -> Float32:
        """Compute the largest value (n,) of each window; minus infinity where it is empty.

        A table of the maxima of runs of 1, 2, 4, ... frames is passed once. A window is the union of two such runs.
        """
        assert values.shape == self.first.shape, (values.shape, self.first.shape)
        lengths = np.maximum(self.stop - self.first, 0)
        result = np.full(len(values), -np.inf, np.float32)
        level = np.frexp(lengths.astype(np.float64))[1] - 1  # floor(log2), -1 of 0
        runs = values  # the maxima of runs of `length` frames that start at each frame
        for power in range(int(level.max(initial=-1)) + 1):
            length = 1 << power
            here = np.flatnonzero(level == power)
            result[here] = np.maximum(runs[self.first[here]], runs[self.stop[here] - length])
            runs = np.maximum(runs[:-length], runs[length:]) if len(runs) > length else runs[:0]
        return result

    def best(self, values: Float32, frame: int) -> int:
        """Find the first frame with the largest value in the window of a frame, which is not empty."""
        first = int(self.first[frame])
        return first + int(np.argmax(values[first : int(self.stop[frame])]))


def _apart(
    start_s: npt.NDArray[np.float64],
    end_s: npt.NDArray[np.float64],
    offsets: npt.NDArray[np.int64],
    *,
    gap_s: float,
) -> npt.NDArray[np.float64]:
    """Compute what is added to the times of n frames to put runs one after the other, further apart than a window."""
    sizes = np.diff(offsets)
    runs = np.flatnonzero(sizes)
    begin, last = start_s[offsets[runs]], end_s[offsets[runs + 1] - 1]
    lengths = last - begin + 2 * gap_s + 1
    at = np.concatenate([[0.0], np.cumsum(lengths[:-1])]) if len(runs) else np.zeros(0)
    return np.repeat(at - begin, sizes[runs])


def standardised(scores: Float32, *, weight: npt.NDArray[np.int32]) -> Float32:
    """Compute the z-scores (T, n) of frame scores over the frames of an index.

    Args:
        scores: (T, n).
        weight: (n,) sampled frames per segment.

    >>> standardised(np.array([[1, 1, 3, 3]], np.float32), weight=np.ones(4, np.int32)).tolist()
    [[-1.0, -1.0, 1.0, 1.0]]
    """
    share = (weight / max(int(weight.sum()), 1)).astype(np.float32)
    centred = scores - (scores @ share)[:, None]
    sd = np.maximum(np.sqrt(np.square(centred) @ share), _LEAST_SD)
    return np.divide(centred, sd[:, None], dtype=np.float32)


@dataclass(frozen=True)
class Found:
    """A sequence in one video: its spans in the order of time, and the mean of their z-scores."""

    spans: tuple[FoundSpan, ...]
    score: float

    def whole(self, keep: str) -> FoundSpan:
        """Return the span of a hit: from the first to the last, or the `first` or the `last` alone."""
        first, last = {"all": (0, -1), "first": (0, 0), "last": (-1, -1)}[keep]
        begin, end = self.spans[first], self.spans[last]
        return FoundSpan(first=begin.first, stop=end.stop, best=begin.best, score=round(self.score, 6))

    def overlaps(self, other: Found) -> bool:
        """Whether both have a segment in common."""
        return self.spans[0].first < other.spans[-1].stop and other.spans[0].first < self.spans[-1].stop


def find_sequences(
    query: Query,
    scores: Float32,
    snapshot: Snapshot,
    starts: npt.NDArray[np.int64],
    *,
    allowed: npt.NDArray[np.bool_] | None,
    top: int,
    group: Group,
) -> list[list[Found]]:
    """Find the best sequence of each of the best groups, and further ones of the same video.

    Args:
        scores: (P, n) frame scores of the P parts of the query, see `Query.parts`.
        starts: (G,) first segment of each group: a sequence starts in its group, and may end in a later one.
        allowed: (G,) groups that may be returned; None = all.
        top: groups returned.
        group: what the groups are. A `video` has further sequences, which share no segment with a better one. Of
            `moment`s and `frame`s, those that share a segment with a better one are left out.

    Returns:
        For each group, best first, its sequences, best first.
    """
    steps = _step_scores(query, scores, snapshot)
    queries = query.steps()
    windows = [
        Windows.after(snapshot.start_s, snapshot.end_s, snapshot.offsets, within_s=step.within_s)
        for step in queries[:-1]
    ]
    totals = [steps[-1]]  # of the steps from k on, where step k is at each segment
    for step, window in zip(reversed(steps[:-1]), reversed(windows), strict=True):
        totals.insert(0, step + window.maxima(totals[0]))
    stops = np.append(starts, len(snapshot))[1:]
    best = np.maximum.reduceat(totals[0], starts)
    result: list[list[Found]] = []
    for number in top_groups(best, top=top * _MOST_OVERLAPPING.get(group, 1), allowed=allowed):
        if len(result) == top:
            break
        first = int(starts[number])
        left = totals[0][first : stops[number]].copy()
        found: list[Found] = []
        while np.isfinite(left).any() and len(found) <= (_MORE if group == "video" else 0):
            frame = first + best_of(left)
            score = float(totals[0][frame]) / len(steps)
            if found and score < _LEAST_SHARE * found[0].score:
                break
            one = Found(tuple(_spans(frame, steps, totals, windows, snapshot)), score)
            if not any(one.overlaps(other) for other in found):
                found.append(one)
                left[max(one.spans[0].first - first, 0) : one.spans[-1].stop - first] = -np.inf
            left[frame - first] = -np.inf
        if group not in _MOST_OVERLAPPING or not any(found[0].overlaps(of_group[0]) for of_group in result):
            result.append(found)
    return result


def extent(values: Float32, frame: int, *, first: int, stop: int) -> tuple[int, int]:
    """Grow a span from its best frame: the frames around it with at least half of its z-score.

    Args:
        first, stop: bounds of the span, such as those of the scene.

    Returns:
        Its first frame, and the frame behind its last.

    >>> extent(np.array([0.1, 1.2, 2.0, 1.1, 0.3], np.float32), 2, first=0, stop=5)
    (1, 4)
    """
    low_ones = np.flatnonzero(values[first:stop] < values[frame] / 2) + first
    before, after = low_ones[low_ones < frame], low_ones[low_ones > frame]
    return (int(before[-1]) + 1 if len(before) else first), (int(after[0]) if len(after) else stop)


def _step_scores(query: Query, scores: Float32, snapshot: Snapshot) -> list[Float32]:
    """Compute the z-scores (n,) of each step; of a step with `also`, the mean of both within 2 s."""
    rows = iter(standardised(scores, weight=snapshot.weight))
    scenes = np.append(snapshot.scenes, len(snapshot))
    steps = []
    for step in query.steps():
        own = next(rows)
        if step.also is not None:
            near = Windows.around(snapshot.start_s, snapshot.end_s, scenes, within_s=_ALSO_S)
            own = (near.maxima(own) + near.maxima(next(rows))) / np.float32(2)
        steps.append(own)
    return steps


def _spans(
    frame: int, steps: Sequence[Float32], totals: Sequence[Float32], windows: Sequence[Windows], snapshot: Snapshot
) -> list[FoundSpan]:
    """Find the spans of the best sequence whose first step is at a frame. They do not overlap, or cross scenes."""
    frames = [frame]
    for window, total in zip(windows, totals[1:], strict=True):
        frames.append(window.best(total, frames[-1]))
    scenes = np.append(snapshot.scenes, len(snapshot))
    spans: list[FoundSpan] = []
    for number, at in enumerate(frames):
        scene = int(snapshot.scene_of[at])
        first = max(int(scenes[scene]), frames[number - 1] + 1 if number else 0, spans[-1].stop if spans else 0)
        stop = min(int(scenes[scene + 1]), frames[number + 1] if number + 1 < len(frames) else len(snapshot))
        low, high = extent(steps[number], at, first=first, stop=stop)
        score = round(float(steps[number][at]), 6)
        spans.append(FoundSpan(first=low, stop=high, best=at, score=score))
    return spans
