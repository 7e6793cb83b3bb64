"""Scoring: pure functions from query vectors and a snapshot of the index to the scores of its frames.

The score of a frame is the cosine q.v' of the query with the frame's (augmented) unit vector. For a text, the hubness
of the frame is subtracted (`impart.retrieval.hubness`), where the model comes with captions.

Of a query with a taught name, the score is a product: presence of the name (`impart.video.names.presence`), times how
well the rest of the sentence fits. Scores of a context differ little between frames, so they are standardised over the
index first:

    score = prod_names presence * logistic((z - 3) / 0.6),    z = (c - mean c) / sd c

The constants were chosen on rendered images (168 of 42 things on scenes, among 408): the right thing on the right scene
is first for 67%, by presence alone 23%, by the text with the true noun 23%. From 2 to 3.5 and from 0.5 to 0.7 they are
about equally good.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from threading import Lock

import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController

from impart.blending.encoder import AugmentedEncoder
from impart.encoders.base import Float32, l2_normalise
from impart.retrieval.hubness import CaptionBank
from impart.video.search.snapshot import Snapshot

__all__ = [
    "PRESENT",
    "NamedScores",
    "context_fit",
    "frame_hubness",
    "frame_scores",
    "frame_vectors",
    "group_averages",
    "named_scores",
    "without_hubs",
]

PRESENT = 0.5
"""Presence from which a segment shows a name."""

_ROWS = 4096  # segments converted to float32 at once: 10 MB at D = 640
_MOST_ROWS = 16_384  # of a piece where the reference set is larger than that: it is multiplied once per piece
_LIMITED = Lock()
_CONTEXT_Z, _CONTEXT_WIDTH_Z = 3.0, 0.6  # where the context fits by half, and how fast that changes
_LEAST_DEVIATION = 1e-6  # of the scores of an index in which all frames are equal
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


@dataclass(frozen=True, kw_only=True)
class NamedScores:
    """What a query with taught names found.

    Attributes:
        scores: (n,) of the segments, see `named_scores`.
        present: (n,) presence of each name that the segments shall show.
    """

    scores: Float32
    present: Mapping[str, Float32]

    def names_in(self, segments: slice | npt.NDArray[np.int64]) -> tuple[str, ...]:
        """List the names that are present in one of some segments."""
        return tuple(name for name, presence in self.present.items() if (presence[segments] >= PRESENT).any())


def context_fit(context: Float32, weight: npt.NDArray[np.integer]) -> Float32:
    """Compute how well the context of a name fits (u,), from 0 to 1: the logistic of its z-scores.

    Args:
        context: (u,) scores of the query without the names, of all segments or parts of the index.
        weight: (u,) sampled frames of each.

    >>> context_fit(np.float32([0.1, 0.1, 0.1, 0.9]), np.array([9, 9, 9, 1])).round(2).tolist()
    [0.0, 0.0, 0.0, 1.0]
    """
    mean = np.average(context, weights=weight)
    deviation = np.sqrt(np.average((context - mean) ** 2, weights=weight))
    z_scores = (context - mean) / max(float(deviation), _LEAST_DEVIATION)
    fit: Float32 = (1 / (1 + np.exp((_CONTEXT_Z - z_scores) / _CONTEXT_WIDTH_Z))).astype(np.float32)
    return fit


def named_scores(
    fit: Float32 | None, presences: Sequence[Float32], absences: Sequence[Float32] = (), *, count: int
) -> Float32:
    """Compute the scores (n,) of a query with taught names, from 0 to 1.

    Args:
        fit: (n,) `context_fit` of the segments; None = the query is the names alone.
        presences: (n,) presence of each name that the segments shall show.
        absences: (n,) presence of each name that they shall not show.
        count: n.

    >>> named_scores(np.float32([0.9, 0.1, 0.9]), [np.float32([1, 1, 0])], count=3).round(1).tolist()
    [0.8999999761581421, 0.10000000149011612, 0.0]
    """
    scores = np.ones(count, np.float32) if fit is None else fit.copy()
    for presence in presences:
        scores *= presence
    for presence in absences:
        scores *= 1 - presence
    return scores


def group_averages(values: Float32, weight: npt.NDArray[np.integer], starts: npt.NDArray[np.int64]) -> Float32:
    """Average values (n,) over G consecutive groups of segments; a segment counts as many times as frames.

    >>> group_averages(np.float32([1, 0, 0.5]), np.array([3, 1, 1]), np.array([0, 2])).tolist()
    [0.75, 0.5]
    """
    share = weight.astype(np.float64)
    averages: Float32 = (np.add.reduceat(values * share, starts) / np.add.reduceat(share, starts)).astype(np.float32)
    return averages


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
    # Of two searches at once, the second would take the limit of the first for the state to return to.
    with _LIMITED, _blas().limit(limits=1, user_api="blas"), ThreadPoolExecutor(workers, "impart-rank") as pool:
        for _ in pool.map(work, pieces):
            pass


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()  # finding the libraries takes milliseconds


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
