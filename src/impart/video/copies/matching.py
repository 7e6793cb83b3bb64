"""Match a clip with a part of an indexed video: spans that run in parallel, and whether they are a copy.

A pair of frames is evidence by its normalised similarity r (`impart.video.copies.background`). Along a line the
evidence above `FLOOR` is summed. A copy lasts a second or longer and has a *score* of `COPY`: the mean of r along the
line, plus up to `_FOR_ORDER` where the order of the frames agrees, that is, where frames at the same place of the line
are more alike than frames a second apart. Where nothing changes there is no order, so r alone must be high.

Flat frames, such as black ones, are no evidence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from impart.encoders.base import Float32
from impart.video.copies.alignment import Line, best_line, on_grid
from impart.video.copies.background import CopyBackground, normalised
from impart.video.copies.frames import FrameRun

__all__ = ["COPY", "FLOOR", "Parallel", "parallels"]

FLOOR = 0.35
"""Normalised similarity from which a pair of frames speaks for a copy."""
COPY = 0.68
"""Least score of a copy; see `Parallel.score`."""

_MOST_EVIDENCE = 1 - FLOOR  # of one pair of frames, for a copy: they are equal
_LEAST_EVIDENCE = -0.35  # of one pair of frames, against a copy: a few frames with a title do not end a span
_LEAST_S, _LEAST_FRAMES = 1.0, 3  # of a copy
_LEAST_EVIDENCE_S = 0.5  # seconds of equal frames that its evidence must reach
_FOR_ORDER = 0.2  # largest addition to the score
_FULL_ORDER = 0.4  # difference of r that earns all of it
_APART_S = 1.0  # frames that are compared to learn whether the order agrees
_SPANS = 4  # of one pair of videos
_ROUNDING = 1e-5


@dataclass(frozen=True, kw_only=True)
class Parallel:
    """A span of a clip that runs in parallel with a span of an indexed video.

    Attributes:
        start_s, end_s: in the clip.
        video_start_s, video_end_s: in the indexed video.
        speed: seconds of the indexed video per second of the clip.
        score: mean normalised similarity along the line, with what the order of the frames adds.
        order: mean r along the line less that of frames a second apart; 0 where nothing changes.
        evidence_s: sum of the evidence along the line, as seconds of equal frames.
    """

    start_s: float
    end_s: float
    video_start_s: float
    video_end_s: float
    speed: float
    score: float
    order: float
    evidence_s: float


def parallels(
    a: FrameRun, b: FrameRun, background: CopyBackground, *, fps: float, least: float = COPY
) -> list[Parallel]:
    """Find the spans of two clips that are copies of one another, most evidence first; they do not overlap.

    Args:
        fps: samples per second of the common time grid.
        least: smallest score.
    """
    if not len(a) or not len(b):
        return []
    near = normalised(a.rows @ b.rows.T, a.levels, b.levels)
    of_a = on_grid(a.starts_s, a.ends_s, fps=fps)
    shortest = max(_LEAST_FRAMES, math.ceil(_LEAST_S * fps))
    if not _reaches(near.max(axis=1)[of_a], least - _FOR_ORDER, count=shortest):
        return []  # no line can have that score: by far most of the pairs that are compared
    evidence = np.clip(near - FLOOR, _LEAST_EVIDENCE, _MOST_EVIDENCE)
    flat = background.flat(a.rows)[:, None] | background.flat(b.rows)[None]
    evidence[flat] = np.minimum(evidence[flat], 0)
    of_b = on_grid(b.starts_s, b.ends_s, fps=fps)
    near, evidence = near[of_a[:, None], of_b[None]], evidence[of_a[:, None], of_b[None]]
    needed = _LEAST_EVIDENCE_S * _MOST_EVIDENCE * fps
    if float(evidence.max(axis=1).clip(min=0).sum()) < needed:
        return []
    found: list[Parallel] = []
    for _ in range(_SPANS):
        line = best_line(evidence)
        if line is None or line.evidence < needed or line.stop - line.first < shortest:
            break
        rows, columns = line.columns(near.shape[1])
        one = _measured(line, near[rows[:, None], columns[None]], a, b, fps=fps)
        if one.score >= least:
            found.append(one)
        low, high = int(columns.min()), int(columns.max()) + 1
        around_b = _grown(evidence[line.first : line.stop].mean(axis=0) > 0, low, high)
        around_a = _grown(evidence[:, low:high].mean(axis=1) > 0, line.first, line.stop)
        evidence[line.first : line.stop, around_b] = _LEAST_EVIDENCE
        evidence[around_a, low:high] = _LEAST_EVIDENCE
    return found


def _reaches(values: Float32, mean: float, *, count: int) -> bool:
    """Whether a run of `count` values or more has at least this mean.

    >>> _reaches(np.array([0.2, 0.6, 0.5, 0.4], np.float32), 0.5, count=3)
    True
    >>> _reaches(np.array([0.9, 0.2, 0.2, 0.9], np.float32), 0.6, count=2)
    False
    """
    sums = np.concatenate([[0.0], np.cumsum(values - mean, dtype=np.float64)])
    if len(sums) <= count:
        return False
    return bool((sums[count:] - np.minimum.accumulate(sums[:-count])).max() >= -_ROUNDING)


def _grown(alike: npt.NDArray[np.bool_], low: int, high: int) -> slice:
    """Grow a run [low, high) by its neighbours that are like it: a still image is no second copy of itself."""
    before, after = np.flatnonzero(~alike[:low]), np.flatnonzero(~alike[high:])
    return slice(int(before[-1]) + 1 if len(before) else 0, high + int(after[0]) if len(after) else len(alike))


def _measured(line: Line, near: Float32, a: FrameRun, b: FrameRun, *, fps: float) -> Parallel:
    """Measure a line, from the normalised similarities (n, n) of its frames in A with its frames in B."""
    count = len(near)
    along = float(np.diag(near).mean())
    apart = np.abs(np.subtract.outer(np.arange(count), np.arange(count))) >= _APART_S * fps
    order = max(0.0, along - float(near[apart].mean())) if apart.any() else 0.0
    score = along + _FOR_ORDER * min(1.0, order / _FULL_ORDER)
    first_s, end_s = float(a.starts_s[0]), float(a.ends_s[-1])
    origin_s = float(b.starts_s[0])
    start_s = first_s + line.first / fps
    stop_s = min(end_s, first_s + line.stop / fps)
    video_start_s = max(origin_s, origin_s + line.at(line.first) / fps)
    video_end_s = min(float(b.ends_s[-1]), origin_s + line.at(line.stop) / fps)
    return Parallel(
        start_s=start_s,
        end_s=stop_s,
        video_start_s=video_start_s,
        video_end_s=max(video_end_s, video_start_s),
        speed=line.speed,
        score=min(1.0, score),
        order=order,
        evidence_s=line.evidence / _MOST_EVIDENCE / fps,
    )
