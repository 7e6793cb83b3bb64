"""Bootstrap intervals: draw items, or clusters of items (the captions of one image), with replacement.

A replicate is a row of weights: how often each item was drawn. Equal items, clusters and seed give equal draws, so the
replicates of two encoders are paired: the differences per replicate give the interval of the difference.
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
_CELLS = 20_000_000  # float64 values per block


def draws(clusters: npt.NDArray[np.int64] | int, *, repeats: int = REPEATS, seed: int = SEED) -> Counts:
    """Draw R replicates of q items: (R, q), how often each item was drawn.

    Args:
        clusters: (q,) cluster numbers, items of one cluster are drawn together; or q, where each item is one cluster.
        repeats: R.
        seed: equal seeds and clusters give equal draws.

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
    """Compute the mean of the values (q,) per replicate: (R,) from draws (R, q).

    >>> means(np.array([1.0, 0.0]), np.array([[1, 1], [2, 0]])).tolist()
    [0.5, 1.0]
    """
    assert drawn.shape[1:] == values.shape, (drawn.shape, values.shape)
    wide = values.astype(np.float64)
    return np.concatenate([part @ wide / part.sum(axis=1) for part in _wide(drawn)])


def medians(values: npt.NDArray[Any], drawn: npt.NDArray[Any]) -> Float64:
    """Compute the median of the values (q,) per replicate: (R,) from draws (R, q).

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
    """Average the values (q,) within each class, then over the drawn classes, per replicate: (R,)."""
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
    """Compute the percentile interval of replicates (R,). NaN is ignored: nothing that can be measured was drawn.

    >>> low, high = interval(np.arange(101.0), 0.9)
    >>> round(low, 6), round(high, 6)
    (5.0, 95.0)
    """
    low, high = np.nanquantile(replicates, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _wide(drawn: npt.NDArray[Any]) -> Iterator[Float64]:
    """Convert replicates to float64, block by block."""
    step = max(1, _CELLS // max(1, drawn.shape[1]))
    return (drawn[first : first + step].astype(np.float64) for first in range(0, len(drawn), step))
