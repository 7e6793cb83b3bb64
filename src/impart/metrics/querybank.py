"""Query-bank normalisation: items that are near to everything (hubs) are held back, judged by a bank of queries.

Where the bank is the test queries themselves, as tasks here use it, the figure is transductive (each query is answered
with knowledge of the others) and stands apart from the plain one.

Sources: Bogolin et al., "Cross Modal Retrieval with Querybank Normalisation", CVPR 2022 (dynamic inverted softmax, with
its beta of 20 and k of 1); Conneau et al., "Word Translation Without Parallel Data", ICLR 2018 (CSLS).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["BETA", "csls", "dynamic_inverted_softmax"]

Array = npt.NDArray[Any]
Float64 = npt.NDArray[np.float64]

BETA = 20.0


def dynamic_inverted_softmax(scores: Array, bank: Array, *, beta: float = BETA, k: int = 1) -> Float64:
    """Scores (Q, n) with hubs held back, where the query's best item is one that some query of the bank also picks.

    The paper divides exp(beta s) of an item by the sum of the same over the bank; here its logarithm over beta is
    returned, which orders the items of a query the same way and does not overflow. Queries whose best item no bank
    query has among its k best keep their cosines: scores are comparable within a query only.

    Args:
        scores: (Q, n) cosines of queries and items.
        bank: (M, n) cosines of the bank's queries with the same items.
        beta: inverse temperature.
        k: items that each query of the bank marks.

    >>> hub = np.array([[0.9, 0.8], [0.9, 0.1], [0.9, 0.2]])  # everything is near to item 0
    >>> dynamic_inverted_softmax(hub, hub).argmax(axis=1).tolist()
    [1, 0, 0]
    """
    assert bank.shape[1] == scores.shape[1], (bank.shape, scores.shape)
    result = scores.astype(np.float64)
    k = min(k, bank.shape[1])
    marked = np.zeros(scores.shape[1], dtype=bool)
    marked[np.argpartition(-bank, k - 1, axis=1)[:, :k]] = True
    best = result.max(axis=1, keepdims=True)
    active = ((result == best) & marked).any(axis=1)  # (Q,)
    top = bank.max(axis=0).astype(np.float64)  # (n,)
    total = np.exp(beta * (bank - top)).sum(axis=0, dtype=np.float64)
    result[active] -= top + np.log(total) / beta
    return result


def csls(scores: Array, bank: Array, *, k: int = 10) -> Float64:
    """Cross-domain similarity local scaling: 2 s - (mean of the query's k best) - (mean of the item's k best).

    Args:
        scores: (Q, n) cosines of queries and items.
        bank: (M, n) cosines of the bank's queries with the same items, over which an item's k best are taken.
        k: neighbours on either side.

    >>> csls(np.array([[0.9, 0.8]]), np.array([[0.9, 0.8], [0.9, 0.1]]), k=1).round(2).tolist()
    [[0.0, -0.1]]
    """
    assert bank.shape[1] == scores.shape[1], (bank.shape, scores.shape)
    of_query = _best_mean(scores, k=k)  # (Q,)
    of_item = _best_mean(bank.T, k=k)  # (n,)
    return np.asarray(2 * scores.astype(np.float64) - of_query[:, None] - of_item[None, :])


def _best_mean(scores: Array, *, k: int) -> Float64:
    """Mean of the k highest of each row."""
    k = min(k, scores.shape[1])
    return np.asarray(-np.partition(-scores, k - 1, axis=1)[:, :k].mean(axis=1, dtype=np.float64))
