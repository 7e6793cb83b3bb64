"""Ranking metrics from scores (Q, n): Recall@K, median and mean rank, mean reciprocal rank, nDCG.

The rank of a query is the rank of its best relevant item. Ties are broken pessimistically: an irrelevant item with an
equal score, or with NaN, ranks first. So a constant score is not perfect.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["LOWER_IS_BETTER", "caption_ranks", "ndcg", "rank_figures", "rank_values", "ranks_of", "recall_at"]

Ints = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

LOWER_IS_BETTER = frozenset({"median rank", "mean rank"})
_RECALLS = (1, 5, 10)
_CELLS = 50_000_000  # per comparison of relevant items with all items: 50 MB of booleans


def ranks_of(scores: npt.NDArray[Any], relevant: npt.NDArray[np.bool_]) -> Ints:
    """Rank the best relevant item of each query.

    Args:
        scores: (Q, n), higher is better.
        relevant: (Q, n); every query has at least one relevant item.

    Returns:
        (Q,) ranks, 1 = first.

    >>> ranks_of(np.array([[0.5, 0.5, 0.1]], dtype=np.float32), np.array([[True, False, False]])).tolist()
    [2]
    """
    assert scores.shape == relevant.shape, (scores.shape, relevant.shape)
    assert relevant.any(axis=1).all(), "every query needs a relevant item"
    best = np.where(relevant, scores, -np.inf).max(axis=1, keepdims=True)  # (Q, 1)
    ahead: Ints = (~(scores < best) & ~relevant).sum(axis=1, dtype=np.int64)  # (Q,)
    return ahead + 1


def caption_ranks(scores: npt.NDArray[Any], owners: Ints) -> tuple[Ints, Ints]:
    """Rank captions and images of a paired set both ways, text to image and image to text.

    Args:
        scores: (T, B), row text, column image.
        owners: (T,) image of each text; an image may have several texts.

    Returns:
        Rank of each text's image (T,), and rank of the best own text of each image that has one.

    >>> text, image = caption_ranks(np.array([[0.9, 0.1], [0.8, 0.2]], dtype=np.float32), np.array([0, 1]))
    >>> text.tolist(), image.tolist()
    ([1, 2], [1, 1])
    """
    assert owners.shape == scores.shape[:1], (owners.shape, scores.shape)
    relevant = owners[:, None] == np.arange(scores.shape[1])  # (T, B)
    described = relevant.any(axis=0)  # (B,)
    return ranks_of(scores, relevant), ranks_of(scores.T[described], relevant.T[described])


def recall_at(ranks: Ints, ks: Sequence[int] = _RECALLS) -> dict[int, float]:
    """Compute Recall@K: fraction of the queries whose rank (Q,) is at most K.

    >>> recall_at(np.array([1, 3, 20]), ks=(1, 5))
    {1: 0.3333333333333333, 5: 0.6666666666666666}
    """
    return {k: float((ranks <= k).mean()) for k in ks}


def ndcg(scores: npt.NDArray[Any], relevant: npt.NDArray[np.bool_], *, k: int | None = 10) -> Float64:
    """Compute the normalised discounted cumulative gain per query, with gain 1 per relevant item.

    Source:
        Järvelin & Kekäläinen, "Cumulated gain-based evaluation of IR techniques", 2002.

    Args:
        scores: (Q, n).
        relevant: (Q, n); every query has at least one relevant item.
        k: ranks that count; None = all.

    Returns:
        (Q,) in 0..1.

    >>> ndcg(np.array([[0.9, 0.5, 0.1]]), np.array([[False, True, True]])).round(4).tolist()
    [0.6934]
    """
    assert scores.shape == relevant.shape, (scores.shape, relevant.shape)
    query, item = np.nonzero(relevant)  # (P,) relevant pairs, by query
    own = scores[query, item]
    order = np.lexsort((-own, query))  # the relevant items of each query, best first; query itself is sorted
    own = own[order]
    wanted = np.bincount(query, minlength=len(scores))  # (Q,) relevant items per query
    assert wanted.all(), "every query needs a relevant item"
    place = np.arange(len(query)) - np.repeat(np.cumsum(wanted) - wanted, wanted)  # 0, 1, ... within the query
    ahead = np.empty(len(query), dtype=np.int64)
    step = max(1, _CELLS // scores.shape[1])
    for first in range(0, len(query), step):
        part = slice(first, first + step)
        ahead[part] = (~(scores[query[part]] < own[part, None]) & ~relevant[query[part]]).sum(axis=1)
    rank = 1 + place + ahead  # irrelevant items with an equal score rank first
    cut = scores.shape[1] if k is None else k
    gain = np.where(rank <= cut, 1 / np.log2(1 + rank), 0.0)
    ideal = np.cumsum(1 / np.log2(1 + np.arange(1, max(wanted.max(), 1) + 1)))  # of 1, 2, ... relevant items
    return np.asarray(np.bincount(query, weights=gain, minlength=len(scores)) / ideal[np.minimum(wanted, cut) - 1])


def rank_values(ranks: Ints) -> dict[str, Float64]:
    """Compute the values whose means are the figures: figure -> (Q,).

    >>> rank_values(np.array([1, 3, 20]))["R@5"].tolist()
    [1.0, 1.0, 0.0]
    """
    recalls = {f"R@{k}": (ranks <= k).astype(np.float64) for k in _RECALLS}
    return recalls | {"mean rank": ranks.astype(np.float64), "MRR": 1.0 / ranks}


def rank_figures(ranks: Ints) -> dict[str, float]:
    """Compute R@1, R@5, R@10, median rank, mean rank and MRR of ranks (Q,); recalls are fractions, ranks start at 1.

    >>> figures = rank_figures(np.array([1, 3, 20]))
    >>> figures["R@1"], figures["median rank"], figures["mean rank"]
    (0.3333333333333333, 3.0, 8.0)
    """
    figures = {name: float(values.mean()) for name, values in rank_values(ranks).items()}
    return figures | {"median rank": float(np.median(ranks))}
