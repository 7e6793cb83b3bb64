"""Bootstrap intervals: items, or whole clusters of them (the captions of one image), drawn with replacement.

A draw is a row of weights: how often each item was drawn. The same items, clusters and seed give the same draws, so the
replicates of two encoders are paired: their difference replicate by replicate has the interval of the difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["REPEATS", "SEED", "class_means", "draws", "interval", "means", "medians"]

Float64 = npt.NDArray[np.float64]
Counts = npt.NDArray[np.uint16]

REPEATS = 1000
SEED = 0
_CELLS = 20_000_000  # widened to floats at once


def draws(clusters: npt.NDArray[np.int64] | int, *, repeats: int = REPEATS, seed: int = SEED) -> Counts:
    """How often each of q items is drawn in each of R replicates: (R, q).

    Args:
        clusters: (q,) numbers, items of one number are drawn together; or q, where each item stands alone.
        repeats: R.
        seed: the same seed and clusters give the same draws.

    >>> draws(np.array([7, 7, 9]), repeats=4).tolist()
    [[0, 0, 2], [1, 1, 1], [2, 2, 0], [2, 2, 0]]
    """
    if isinstance(clusters, int | np.integer):
        cluster_of, count = None, int(clusters)
    else:
        names, cluster_of = np.unique(clusters, return_inverse=True)
        count = len(names)
    rng = np.random.default_rng(seed)
    drawn = np.zeros((repeats, count), dtype=np.uint16)
    for row in drawn:
        row[:] = np.bincount(rng.integers(0, count, count), minlength=count)
    return drawn if cluster_of is None else drawn[:, cluster_of]


def means(values: npt.NDArray[Any], drawn: npt.NDArray[Any]) -> Float64:
    """The mean of the values (q,) in each replicate: (R,) from draws (R, q).

    >>> means(np.array([1.0, 0.0]), np.array([[1, 1], [2, 0]])).tolist()
    [0.5, 1.0]
    """
    assert drawn.shape[1:] == values.shape, (drawn.shape, values.shape)
    wide = values.astype(np.float64)
    return np.concatenate([part @ wide / part.sum(axis=1) for part in _wide(drawn)])


def medians(values: npt.NDArray[Any], drawn: npt.NDArray[Any]) -> Float64:
    """The median of the values (q,) in each replicate: (R,).

    >>> medians(np.array([1, 5, 9]), np.array([[1, 1, 1], [2, 0, 2], [0, 3, 0]])).tolist()
    [5.0, 5.0, 5.0]
    """
    order = np.argsort(values, kind="stable")
    ordered = values[order].astype(np.float64)
    result = []
    for part in _wide(drawn):
        upto = np.cumsum(part[:, order], axis=1)  # (r, q)
        total = upto[:, -1:]
        low = (upto > (total - 1) // 2).argmax(axis=1)
        high = (upto > total // 2).argmax(axis=1)
        result.append((ordered[low] + ordered[high]) / 2)
    return np.concatenate(result)


def class_means(values: npt.NDArray[Any], labels: npt.NDArray[np.int64], drawn: npt.NDArray[Any]) -> Float64:
    """Mean over the classes that were drawn of the mean of the values (q,) within the class: (R,)."""
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    result = []
    for part in _wide(drawn):
        weight = part[:, order]
        number = np.add.reduceat(weight, starts, axis=1)  # (r, C)
        total = np.add.reduceat(weight * values[order], starts, axis=1)
        present = number > 0
        within = np.divide(total, number, out=np.zeros_like(total), where=present)
        result.append(within.sum(axis=1) / present.sum(axis=1))
    return np.concatenate(result)


def interval(replicates: npt.NDArray[Any], level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of replicates (R,); those that are NaN (nothing to measure was drawn) do not count.

    >>> low, high = interval(np.arange(101.0), 0.9)
    >>> round(low, 6), round(high, 6)
    (5.0, 95.0)
    """
    low, high = np.nanquantile(replicates, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _wide(drawn: npt.NDArray[Any]) -> Iterator[Float64]:
    """Some replicates at a time as doubles."""
    step = max(1, _CELLS // max(1, drawn.shape[1]))
    return (drawn[first : first + step].astype(np.float64) for first in range(0, len(drawn), step))
