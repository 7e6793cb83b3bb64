"""Query-bank normalisation: items that are near to everything (hubs) are held back, judged by a bank of queries.

Where the bank is the test queries themselves, as tasks here use it, the figure is transductive (each query is answered
with knowledge of the others) and stands apart from the plain one.

Source: Bogolin et al., "Cross Modal Retrieval with Querybank Normalisation", CVPR 2022 (dynamic inverted softmax, with
its beta of 20 and k of 1).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["BETA", "dynamic_inverted_softmax"]

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
