"""Align two videos in time: the spans in which one shows what the other shows, at a constant speed.

A copy is a line in the matrix of similarities of two videos: frame i of one is like frame `o + v i` of the other. All
offsets `o` and speeds `v` are tried, a Hough vote. The span on a line is the run with the largest sum of evidence
(Kadane's algorithm), so that a part of the one may lie anywhere in the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from impart.encoders.base import Float32

__all__ = ["SPEEDS", "Line", "best_line", "on_grid"]

SPEEDS = tuple(float(round(speed, 4)) for speed in np.geomspace(0.8, 1.25, 11))
"""Speeds that are tried first: seconds of the indexed video per second of the query. The middle one is 1."""

_FINER = np.linspace(-0.024, 0.024, 9)  # around the best speed: half the distance between two of `SPEEDS`
_AS_RECORDED = 1.01  # another speed must have this many times the evidence of speed 1
_OUTSIDE = -100.0  # evidence of a frame that has no counterpart: ends a span


@dataclass(frozen=True, kw_only=True)
class Line:
    """A run of frames of A that continue in B at a constant speed.

    Attributes:
        first, stop: frames [first, stop) of A.
        offset, speed: frame i of A is at `offset + speed * i` in B.
        evidence: sum over the run.
    """

    first: int
    stop: int
    offset: float
    speed: float
    evidence: float

    def at(self, frame: float) -> float:
        """Compute the position in B of a position in A, both in frames."""
        return self.offset + self.speed * frame

    def columns(self, width: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """List the frames of the run, in A and in B (of `width` frames)."""
        rows = np.arange(self.first, self.stop)
        return rows, np.floor(self.offset + self.speed * rows + 0.5).astype(np.int64).clip(0, width - 1)


def best_line(evidence: Float32) -> Line | None:
    """Find the line with the largest sum of evidence.

    Args:
        evidence: (A, B) of each pair of frames, on one time grid: positive where they show the same.

    Returns:
        None where no pair has positive evidence.

    Example:
        >>> matrix = np.full((4, 9), -1, np.float32)
        >>> matrix[[1, 2, 3], [5, 6, 7]] = 2
        >>> line = best_line(matrix)
        >>> line.first, line.stop, line.offset, line.speed, line.evidence
        (1, 4, 4.0, 1.0, 6.0)
    """
    count, width = evidence.shape
    if not count or not width or float(evidence.max()) <= 0:
        return None
    framed = np.pad(evidence, ((0, 0), (1, 1)), constant_values=_OUTSIDE)  # column j is at j + 1
    offsets = [np.arange(-np.ceil(speed * (count - 1)), width) for speed in SPEEDS]
    speeds = [np.full(len(of_speed), speed) for speed, of_speed in zip(SPEEDS, offsets, strict=True)]
    best, middle = _best_of(framed, np.concatenate(speeds), np.concatenate(offsets))
    if middle is not None and middle.evidence * _AS_RECORDED >= best.evidence:
        return middle
    nearby = best.offset + np.arange(-3, 3.5, 0.5)
    pivot = (best.first + best.stop) / 2  # the run turns around its middle
    speeds = [np.full(len(nearby), best.speed + change) for change in _FINER]
    finer, _ = _best_of(framed, np.concatenate(speeds), np.concatenate([nearby - change * pivot for change in _FINER]))
    return max(best, finer, key=lambda line: line.evidence)


def _best_of(
    framed: Float32, speeds: npt.NDArray[np.floating], offsets: npt.NDArray[np.floating]
) -> tuple[Line, Line | None]:
    """Find the best run of L lines; `framed` (A, B + 2) has one column outside on either side.

    Returns:
        The best of all, and the best at speed 1 where it is among the speeds.
    """
    count, width = framed.shape
    frames = np.arange(count, dtype=np.float32)
    columns = speeds.astype(np.float32) * frames[:, None] + (offsets + 1.5).astype(np.float32)  # (A, L)
    np.clip(columns, 0, width - 1, out=columns)
    along = np.take_along_axis(framed, columns.astype(np.int64), axis=1)  # (A, L)
    total = np.zeros(len(speeds), np.float32)
    largest = np.zeros(len(speeds), np.float32)
    for row in along:
        np.maximum(total, 0, out=total)
        total += row
        np.maximum(largest, total, out=largest)

    def line(number: int) -> Line:
        return _run(along[:, number], speed=float(speeds[number]), offset=float(offsets[number]))

    recorded = np.flatnonzero(speeds == 1)
    best = line(int(largest.argmax()))
    return best, line(int(recorded[largest[recorded].argmax()])) if len(recorded) else None


def _run(along: Float32, *, speed: float, offset: float) -> Line:
    """Find the run with the largest sum on one line (A,)."""
    sums = np.cumsum(along, dtype=np.float64)
    before = np.concatenate([[0.0], sums[:-1]])
    last = int((sums - np.minimum.accumulate(before)).argmax())
    first = int(before[: last + 1].argmin())
    return Line(first=first, stop=last + 1, offset=offset, speed=speed, evidence=float(sums[last] - before[first]))


def on_grid(
    starts_s: npt.NDArray[np.floating], ends_s: npt.NDArray[np.floating], *, fps: float
) -> npt.NDArray[np.int64]:
    """Spread segments over a grid of `fps` samples per second.

    Args:
        starts_s, ends_s: (n,) of consecutive segments.

    Returns:
        Row of each sample from the start of the first segment on; a gap shows the segment before it.

    >>> on_grid(np.array([0.0, 0.5]), np.array([0.5, 0.75]), fps=4).tolist()
    [0, 0, 1]
    """
    if not len(starts_s):
        return np.zeros(0, np.int64)
    samples = max(1, round((float(ends_s[-1]) - float(starts_s[0])) * fps))
    times = float(starts_s[0]) + np.arange(samples) / fps
    rows: npt.NDArray[np.int64] = np.searchsorted(starts_s, times + 1e-6, side="right") - 1
    return rows.clip(0)
