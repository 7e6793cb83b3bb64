"""Metrics of spans: the overlap of predicted spans with the right spans of a query.

R1@t, mean IoU and mAP are those of the QVHighlights evaluation (Lei et al., NeurIPS 2021). A query may have several
right spans. R1 compares its best-scored prediction with the right span that it overlaps most. AP is computed per query
over its ranked predictions, with interpolated precision, each right span to be found once, and averaged over IoU 0.5 to
0.95. Predictions are an ordered list, as in that evaluation: of equal scores the first given counts as the better one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["IOUS", "VERY_GOOD", "average_precisions", "hit_at_1", "iou", "top_iou"]

Float64 = npt.NDArray[np.float64]

IOUS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
"""Thresholds over which mAP is averaged: 0.5, 0.55, ... 0.95."""

VERY_GOOD = 4.0
"""Lowest saliency (0..4) of a highlight."""

_SLACK = 1e-9  # an IoU of 0.7 computed from rounded times counts as 0.7


def iou(spans: npt.ArrayLike, others: npt.ArrayLike) -> Float64:
    """Compute the intersection over union of spans (a, 2) and (b, 2): (a, b); 0 where both have no length.

    >>> iou([(0, 10)], [(5, 15), (20, 30), (0, 10)]).round(3).tolist()
    [[0.333, 0.0, 1.0]]
    """
    one, other = _intervals(spans)[:, None], _intervals(others)[None]  # (a, 1, 2), (1, b, 2)
    inside = np.maximum(0, np.minimum(one[..., 1], other[..., 1]) - np.maximum(one[..., 0], other[..., 0]))
    union = (one[..., 1] - one[..., 0]) + (other[..., 1] - other[..., 0]) - inside
    shares: Float64 = np.divide(inside, union, out=np.zeros_like(inside), where=union > 0)
    return shares


def top_iou(windows: npt.ArrayLike, scores: npt.ArrayLike, right: npt.ArrayLike) -> float:
    """Compute the IoU of the best-scored prediction with the right span that it overlaps most; 0 without predictions.

    Args:
        windows: (p, 2) predicted spans.
        scores: (p,), higher is better; of equal scores the first counts.
        right: (g, 2) right spans.

    >>> top_iou([(0, 10), (50, 60)], [0.9, 0.2], [(0, 5), (50, 60)])
    0.5
    """
    score = np.asarray(scores, dtype=np.float64)
    if not len(score):
        return 0.0
    return float(iou(windows, right)[score.argmax()].max(initial=0.0))


def average_precisions(
    windows: npt.ArrayLike, scores: npt.ArrayLike, right: npt.ArrayLike, *, ious: Sequence[float] = IOUS
) -> Float64:
    """Compute the AP of the ranked predictions of one query at each IoU threshold: (t,).

    From the best prediction down, each is matched to the unmatched right span that it overlaps most, if the overlap
    reaches the threshold; else it is wrong. Precision is interpolated, so that it never falls with falling recall.

    Args:
        windows: (p, 2) predicted spans.
        scores: (p,), higher is better; predictions of equal scores are ranked in the order given.
        right: (g, 2) right spans, at least one.
        ious: t thresholds.

    >>> average_precisions([(0, 10), (50, 60)], [0.9, 0.2], [(50, 60)], ious=[0.5]).tolist()
    [0.5]
    """
    overlap = iou(windows, right)  # (p, g)
    assert overlap.shape[1], "a query needs a right span"
    order = np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")
    return np.array([_interpolated(_found(overlap[order], threshold), overlap.shape[1]) for threshold in ious])


def hit_at_1(scores: npt.ArrayLike, saliency: npt.NDArray[Any], *, least: float = VERY_GOOD) -> bool:
    """Whether the best-scored clip is a highlight.

    Args:
        scores: (clips,) predicted; of equal scores the first clip counts. Clips without a rating are no highlights.
        saliency: (clips, people) ratings, of which one must reach `least` (as in QVHighlights), or (clips,).
        least: lowest saliency of a highlight.

    >>> hit_at_1([0.1, 0.9], np.array([[0, 0, 0], [4, 2, 3]])), hit_at_1([0.1, 0.9], np.array([4, 3]))
    (True, False)
    """
    score = np.asarray(scores, dtype=np.float64)
    if not len(score):
        return False
    rated = (saliency if saliency.ndim == 1 else saliency.max(axis=1)) >= least
    best = int(score.argmax())
    return bool(best < len(rated) and rated[best])


def _found(overlap: Float64, threshold: float) -> npt.NDArray[np.bool_]:
    """Match predictions (p,), best first, to right spans: True where a prediction is right."""
    taken = np.zeros(overlap.shape[1], dtype=bool)
    hits = np.zeros(len(overlap), dtype=bool)
    for number, row in enumerate(overlap):
        free = np.where(taken, -1.0, row)
        best = int(free.argmax())
        if free[best] >= threshold - _SLACK:
            taken[best] = hits[number] = True
    return hits


def _interpolated(hits: npt.NDArray[np.bool_], wanted: int) -> float:
    """Compute the area under the precision envelope."""
    if not hits.any():
        return 0.0
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(envelope[hits].sum() / wanted)


def _intervals(spans: npt.ArrayLike) -> Float64:
    return np.asarray(spans, dtype=np.float64).reshape(-1, 2)
