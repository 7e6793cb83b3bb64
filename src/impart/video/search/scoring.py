"""Scoring: pure functions from query vectors and a snapshot of the index to the scores of its frames.

The score of a frame is the cosine q.v' of the query with the frame's (augmented) unit vector. For a text, the hubness
of the frame is subtracted (`impart.retrieval.hubness`), where the model comes with captions.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from impart.blending.encoder import AugmentedEncoder
from impart.encoders.base import Float32, l2_normalise
from impart.retrieval.hubness import CaptionBank
from impart.retrieval.threads import one_blas_thread
from impart.video.search.snapshot import Snapshot

__all__ = ["FrameCosines", "frame_hubness", "frame_scores", "frame_vectors", "without_hubs"]

_ROWS = 4096  # segments converted to float32 at once: 10 MB at D = 640
_MOST_ROWS = 16_384  # of a piece where the reference set is larger than that: it is multiplied once per piece
_SHORTEST = np.float32(1e-12)  # a vector of zeros stays one


def frame_scores(
    queries: Float32,
    snapshot: Snapshot,
    encoder: AugmentedEncoder | None,
    *,
    rows: npt.NDArray[np.int64] | None = None,
) -> Float32:
    """Compute the cosines of queries (T, D) with segments.

    Args:
        encoder: the augmentation in force; None scores the base vectors.
        rows: (m,) numbers of the segments; None = all n.

    Returns:
        (T, m) or (T, n).
    """
    count = len(snapshot) if rows is None else len(rows)
    scores = np.empty((len(queries), count), np.float32)
    blend = snapshot.blend

    def score(part: slice) -> None:
        taken = part if rows is None else rows[part]
        base = snapshot.vectors[taken].astype(np.float32)  # (b, D)
        if encoder is None or blend is None:
            lengths = np.sqrt(np.einsum("bd,bd->b", base, base))  # float16 rounded them
            np.divide(queries @ base.T, np.maximum(lengths, _SHORTEST), out=scores[:, part])
        else:
            scores[:, part] = encoder.scores(queries, base, blend[taken])

    large = encoder is not None and len(encoder.references) > _MOST_ROWS
    _in_pieces(count, score, rows=_MOST_ROWS if large else _ROWS)
    return scores


class FrameCosines:
    """Cosines of T queries (T, D) with a few segments each; the products with the reference set are computed once.

    Args:
        encoder: the augmentation in force; None scores the base vectors.
    """

    def __init__(self, queries: Float32, snapshot: Snapshot, encoder: AugmentedEncoder | None) -> None:
        self._queries, self._snapshot, self._encoder = queries, snapshot, encoder
        self._products: dict[str, Float32] = {}  # (N, T), when they are first used
        blend = snapshot.blend
        self._sparse = False
        if encoder is not None and blend is not None and blend.added is None:
            self._sparse = 0 < len(encoder.references) <= _MOST_ROWS

    def of(self, query: int, rows: npt.NDArray[np.int64]) -> Float32:
        """Compute the cosines (m,) of one query with the segments `rows` (m,)."""
        blend = self._snapshot.blend
        if not self._sparse or blend is None or self._encoder is None:
            cosines: Float32 = frame_vectors(self._snapshot, self._encoder, rows) @ self._queries[query]
            return cosines
        found: Float32 = self._snapshot.vectors[rows].astype(np.float32) @ self._queries[query]
        ids = np.maximum(blend.ids[rows], 0)  # (m, K); absent ones have a weight of 0
        for side, weights in (("image_embeddings", blend.img[rows]), ("text_embeddings", blend.txt[rows])):
            if weights.any():
                if side not in self._products:
                    self._products[side] = getattr(self._encoder.references, side) @ self._queries.T
                found += np.einsum("mk,mk->m", weights, self._products[side][ids, query])
        return found / blend.norm[rows]


def frame_vectors(snapshot: Snapshot, encoder: AugmentedEncoder | None, part: slice | npt.NDArray[np.int64]) -> Float32:
    """Compute the unit vectors v' (m, D) of some segments."""
    base = snapshot.vectors[part].astype(np.float32)
    if encoder is None or snapshot.blend is None:
        return l2_normalise(base)
    return encoder.apply(base, snapshot.blend[part])


def frame_hubness(bank: CaptionBank, snapshot: Snapshot, encoder: AugmentedEncoder | None) -> Float32:
    """Compute the hubness (n,) of each segment, see `impart.retrieval.hubness`."""
    result = np.empty(len(snapshot), np.float32)

    def score(part: slice) -> None:
        result[part] = bank.hubness(frame_vectors(snapshot, encoder, part))

    _in_pieces(len(snapshot), score, rows=_ROWS)
    return result


def _in_pieces(count: int, work: Callable[[slice], None], *, rows: int) -> None:
    """Call `work` for all pieces of n segments, in threads.

    Each piece is computed on one thread. The threads of a BLAS would instead wait for the next product in a loop, which
    takes the cores from the work between two products (measured: `benchmarks/frame_ranking.py`).
    """
    pieces = [slice(first, min(first + rows, count)) for first in range(0, count, rows)]
    if len(pieces) <= 1:
        for piece in pieces:
            work(piece)
        return
    workers = min(len(pieces), os.cpu_count() or 1)
    with one_blas_thread(), ThreadPoolExecutor(workers, "impart-rank") as pool:
        for _ in pool.map(work, pieces):
            pass


def without_hubs(scores: Float32, by_text: npt.NDArray[np.bool_] | None, hubness: Float32 | None) -> Float32:
    """Subtract the hubness from the scores of texts.

    Args:
        scores: (T, G).
        by_text: (T,) queries that are texts; None = none is.
        hubness: (G,); None = nothing is subtracted.
    """
    if by_text is None or hubness is None:
        return scores
    return scores - by_text[:, None].astype(np.float32) * hubness[None]
