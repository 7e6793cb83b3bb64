"""Retrieval metrics: R@K, median and mean rank, mean reciprocal rank.

A query's rank is the place of its best relevant item. Ties are broken pessimistically: an irrelevant item that scores
the same counts as ahead, so that a constant score does not look perfect.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from impart.encoders.base import Encoder, Float32
from impart.evaluate.datasets import CaptionedImages, embed_files

__all__ = ["RetrievalReport", "image_retrieval", "rank_metrics", "ranks_of"]


@dataclass(frozen=True, kw_only=True)
class RetrievalReport:
    """Metrics over Q queries and n items; recalls are fractions of 1, ranks start at 1.

    Attributes:
        queries: Q.
        items: n.
        recall_at_1: fraction of queries whose first hit is relevant.
        recall_at_5: likewise within five.
        recall_at_10: likewise within ten.
        median_rank: MedR.
        mean_rank: MeanR.
        mrr: mean of 1 / rank.
    """

    queries: int
    items: int
    recall_at_1: float
    recall_at_5: float
    recall_at_10: float
    median_rank: float
    mean_rank: float
    mrr: float


def ranks_of(scores: Float32, relevant: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Rank of each query's best relevant item.

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
    ahead: npt.NDArray[np.int64] = ((scores >= best) & ~relevant).sum(axis=1, dtype=np.int64)  # (Q,)
    return ahead + 1


def rank_metrics(ranks: npt.NDArray[np.int64], *, items: int) -> RetrievalReport:
    """Summarise ranks (Q,) over n items.

    >>> rank_metrics(np.array([1, 3, 20]), items=50).recall_at_5
    0.6666666666666666
    """
    return RetrievalReport(
        queries=len(ranks),
        items=items,
        recall_at_1=float((ranks <= 1).mean()),
        recall_at_5=float((ranks <= 5).mean()),
        recall_at_10=float((ranks <= 10).mean()),
        median_rank=float(np.median(ranks)),
        mean_rank=float(ranks.mean()),
        mrr=float((1.0 / ranks).mean()),
    )


def image_retrieval(
    encoder: Encoder, dataset: CaptionedImages, *, batch: int = 32
) -> tuple[RetrievalReport, RetrievalReport, Sequence[str]]:
    """Text-to-image and image-to-text retrieval over one set of captioned pictures.

    Returns:
        Text-to-image (one query a caption), image-to-text (one query a picture, any of its captions is relevant),
        and a reason for each picture that could not be read.

    Raises:
        DataError: no picture could be read.
    """
    embedded = embed_files(encoder, dataset.files, batch=batch)
    images = np.concatenate([part.embeddings for part in embedded.batches])  # (n, D)
    kept = np.asarray(embedded.kept)
    owners = np.asarray(dataset.owners)
    answerable = np.isin(owners, kept)
    texts = encoder.encode_texts([caption for caption, use in zip(dataset.captions, answerable, strict=True) if use])
    relevant = owners[answerable][:, None] == kept[None, :]  # (T, n)
    scores = texts @ images.T  # (T, n)
    to_image = rank_metrics(ranks_of(scores, relevant), items=len(kept))
    to_text = rank_metrics(ranks_of(scores.T, relevant.T), items=len(texts))
    return to_image, to_text, embedded.unreadable
