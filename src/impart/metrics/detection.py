"""Average precision of categories over labelled boxes.

The boxes are given (ROI classification), so nothing is localised. For each category, all boxes are ranked by their
score. AP is the area under the step-wise precision-recall curve, as in scikit-learn (no interpolation). Ties are
broken pessimistically: boxes of other categories with an equal score rank first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["FREQUENCIES", "average_precision", "category_ap", "mean_ap", "mean_ap_replicates"]

Float64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FREQUENCIES = {"r": "rare", "c": "common", "f": "frequent"}
"""Groups of LVIS categories by number of training images: at most 10, at most 100, more."""

_CELLS = 10_000_000  # weights per block


def average_precision(scores: npt.NDArray[Any], relevant: npt.NDArray[np.bool_]) -> float:
    """Average the precision at the rank of each relevant item; NaN without relevant items.

    Args:
        scores: (b,), higher is better.
        relevant: (b,).

    >>> average_precision(np.array([0.9, 0.8, 0.7]), np.array([True, False, True])).__round__(4)
    0.8333
    >>> average_precision(np.array([0.5, 0.5]), np.array([True, False]))
    0.5
    """
    return float(_weighted(scores, relevant, np.ones((1, len(scores))))[0])


def category_ap(scores: npt.NDArray[Any], labels: Ints) -> Float64:
    """Compute the AP per category (C,) from scores (b, C) and labels (b,); NaN for a category without boxes."""
    assert labels.shape == scores.shape[:1], (labels.shape, scores.shape)
    return np.array([average_precision(scores[:, c], labels == c) for c in range(scores.shape[1])])


def mean_ap(ap: Float64, within: npt.NDArray[np.bool_] | None = None) -> float:
    """Average AP (C,) over the categories that have boxes; NaN where there are none.

    Args:
        ap: (C,), NaN for a category without boxes.
        within: (C,) categories to average; None = all.

    >>> mean_ap(np.array([0.5, np.nan, 1.0])), mean_ap(np.array([0.5, np.nan]), np.array([False, True]))
    (0.75, nan)
    """
    chosen = ap if within is None else ap[within]
    chosen = chosen[~np.isnan(chosen)]
    return float(chosen.mean()) if len(chosen) else float("nan")


def mean_ap_replicates(
    scores: npt.NDArray[Any],
    labels: Ints,
    drawn: npt.NDArray[Any],
    groups: dict[str, npt.NDArray[np.bool_]],
) -> dict[str, Float64]:
    """Compute the mean AP of each bootstrap replicate, per group of categories.

    A box that is drawn w times has weight w at one rank, as with scikit-learn's `sample_weight`.

    Args:
        scores: (b, C).
        labels: (b,).
        drawn: (R, b), see `impart.metrics.bootstrap.draws`.
        groups: name -> categories (C,) to average.

    Returns:
        Name of the group -> (R,).
    """
    total = {name: np.zeros(len(drawn)) for name in groups}
    count = {name: np.zeros(len(drawn)) for name in groups}
    step = max(1, _CELLS // max(1, len(labels)))
    for category in np.unique(labels):
        relevant = labels == category
        parts = [drawn[first : first + step] for first in range(0, len(drawn), step)]
        ap = np.concatenate([_weighted(scores[:, category], relevant, part) for part in parts])  # (R,)
        known = ~np.isnan(ap)
        for name, within in groups.items():
            if within[category]:
                total[name][known] += ap[known]
                count[name] += known
    return {
        name: np.divide(total[name], count[name], out=np.full(len(drawn), np.nan), where=count[name] > 0)
        for name in groups
    }


def _weighted(scores: npt.NDArray[Any], relevant: npt.NDArray[np.bool_], weights: npt.NDArray[Any]) -> Float64:
    """Compute the AP per row of weights (R, b): (R,), NaN where no relevant item has weight."""
    known = np.where(np.isnan(scores) & ~relevant, np.inf, scores)  # NaN of an irrelevant item ranks first
    order = np.lexsort((relevant, -known))  # of equal scores the irrelevant ones first
    right = relevant[order]
    ordered = weights[:, order].astype(np.float64)  # (R, b)
    seen = np.cumsum(ordered, axis=1)[:, right]  # (R, P) weight up to the rank of each relevant item
    own = ordered[:, right]
    hits = np.cumsum(own, axis=1)
    precision = np.divide(hits, seen, out=np.zeros_like(hits), where=seen > 0)
    wanted = own.sum(axis=1)
    sums = (own * precision).sum(axis=1)
    means: Float64 = np.divide(sums, wanted, out=np.full(len(wanted), np.nan), where=wanted > 0)
    return means
