"""Ranking: pure functions from query vectors and a snapshot of the index to scores and the best groups.

- The score of a frame is the cosine q.v' of the query with the frame's (augmented) unit vector.
- The score of a video or scene is, by `mean` (IMPART 3.3), the cosine with the mean of its frame vectors; by `moment`,
  the score of its best frame. A segment counts as many times as frames were sampled in it.
- For a text, the hubness of the frame or mean is subtracted (`impart.retrieval.hubness`), where the model comes with
  captions.

A group is a video, a scene or a frame: a run of segments that gives one hit.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Lock

import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController

from impart.blending.encoder import AugmentedEncoder
from impart.encoders.base import Float32, l2_normalise
from impart.refset.refset import ReferenceSet
from impart.retrieval.hubness import CaptionBank
from impart.video.search.snapshot import Snapshot

__all__ = ["best_of", "first_copies", "frame_hubness", "frame_scores", "group_means", "path_mask", "top_groups"]

_ROWS = 4096  # segments converted to float32 at once: 10 MB at D = 640
_MOST_ROWS = 16_384  # of a piece where the reference set is larger than that: it is multiplied once per piece
_LIMITED = Lock()
_SHORTEST = np.float32(1e-12)  # a vector of zeros stays one
_COEFFICIENTS = 4_000_000  # (groups x pairs) at once: 32 MB
_DECIMALS = 6  # scores that differ by less are ties: the last bits depend on how a product was split


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


def frame_hubness(bank: CaptionBank, snapshot: Snapshot, encoder: AugmentedEncoder | None) -> Float32:
    """Compute the hubness (n,) of each segment, see `impart.retrieval.hubness`."""
    result = np.empty(len(snapshot), np.float32)
    blend = snapshot.blend

    def score(part: slice) -> None:
        base = snapshot.vectors[part].astype(np.float32)  # (b, D)
        vectors = l2_normalise(base) if encoder is None or blend is None else encoder.apply(base, blend[part])
        result[part] = bank.hubness(vectors)

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
    # Of two searches at once, the second would take the limit of the first for the state to return to.
    with _LIMITED, _blas().limit(limits=1, user_api="blas"), ThreadPoolExecutor(workers, "impart-rank") as pool:
        for _ in pool.map(work, pieces):
            pass


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()  # finding the libraries takes milliseconds


def group_means(snapshot: Snapshot, starts: npt.NDArray[np.int64], *, references: ReferenceSet | None) -> Float32:
    """Compute the unit means (G, D) of the vectors v' of consecutive groups of segments.

    The mean of v' is linear in the base vectors and in the reference pairs, so v' itself is never formed: base vectors
    are summed with weight / norm, and pairs with the sum of their coefficients over the group.

    Args:
        starts: (G,) first segment of each group; the groups cover all segments.
        references: the set in force; None takes the base vectors.
    """
    blend = snapshot.blend if references is not None else None
    share = snapshot.weight.astype(np.float32)  # (n,)
    if blend is not None:
        share = share / blend.norm
    stops = np.append(starts, len(snapshot))[1:]
    sums = np.empty((len(starts), snapshot.vectors.shape[1]), np.float32)
    for i, (first, stop) in enumerate(zip(starts.tolist(), stops.tolist(), strict=True)):
        sums[i] = share[first:stop] @ snapshot.vectors[first:stop].astype(np.float32)
        if blend is not None and blend.added is not None:
            sums[i] += share[first:stop] @ blend.added[first:stop].astype(np.float32)
    if blend is not None and blend.added is None and references is not None and len(references):
        group = np.repeat(np.arange(len(starts)), stops - starts)  # (n,)
        for vectors, weights in (
            (references.image_embeddings, blend.img),
            (references.text_embeddings, blend.txt),
        ):
            _add_pairs(sums, vectors, blend.ids, share[:, None] * weights, group=group)
    return l2_normalise(sums)


def top_groups(scores: Float32, *, top: int, allowed: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.int64]:
    """Select the best of G groups, best first; ties go to the lower number, which is the earlier path and time.

    Args:
        scores: (G,).
        allowed: (G,) groups that may be returned; None = all.

    >>> top_groups(np.array([0.1, 0.5, 0.3, 0.5], np.float32), top=3).tolist()
    [1, 3, 2]
    """
    scores = np.round(scores, _DECIMALS)
    if allowed is not None:
        scores = np.where(allowed, scores, -np.inf)
    cut = np.partition(scores, -top)[-top] if top < len(scores) else -np.inf
    candidates = np.flatnonzero((scores >= cut) & np.isfinite(scores))
    return candidates[np.argsort(-scores[candidates], kind="stable")][:top]


def best_of(frames: Float32) -> int:
    """Find the number of the best frame; of ties, the first.

    >>> best_of(np.array([0.2, 0.7, 0.7], np.float32))
    1
    """
    return int(np.argmax(np.round(frames, _DECIMALS)))


def first_copies(
    snapshot: Snapshot, allowed: npt.NDArray[np.bool_] | None, *, own: int | None = None
) -> npt.NDArray[np.bool_]:
    """Select one of the videos with the same content: the first that is allowed.

    Args:
        allowed: (V,) videos; None = all.
        own: number of a video that is selected in place of its copies.

    Returns:
        (V,) the selected videos.
    """
    result = np.ones(len(snapshot.paths), bool) if allowed is None else allowed.copy()
    for copies in set(snapshot.copies.values()):
        first = own if own in copies else next((video for video in copies if result[video]), None)
        result[[video for video in copies if video != first]] = False
    return result


def path_mask(snapshot: Snapshot, pattern: str) -> npt.NDArray[np.bool_]:
    """Match the paths of V videos with a shell pattern.

    A pattern without a slash is matched with the file name, one with a slash with the whole path or its end.
    """
    if "/" not in pattern and os.sep not in pattern:
        videos = [fnmatch.fnmatch(path.name, pattern) for path in snapshot.paths]
    else:
        tail = pattern if os.path.isabs(pattern) else f"*/{pattern}"  # noqa: PTH117
        videos = [fnmatch.fnmatch(path.as_posix(), tail.replace(os.sep, "/")) for path in snapshot.paths]
    return np.array(videos, bool)


def _add_pairs(
    sums: Float32, vectors: Float32, ids: npt.NDArray[np.int32], weights: Float32, *, group: npt.NDArray[np.int64]
) -> None:
    """Add the sum of weight * vectors[id] to each group.

    Segments of a group share most of their pairs. So the coefficients (G, N) are summed first and then multiplied with
    all pairs, some groups at a time.

    Args:
        sums: (G, D), changed in place.
        vectors: (N, D).
        ids, weights: (n, K); -1 = none.
        group: (n,) group of each segment, in ascending order.
    """
    count = len(vectors)
    step = max(1, _COEFFICIENTS // count)
    for first in range(0, len(sums), step):
        begin, end = np.searchsorted(group, [first, first + step])
        if begin == end:
            continue
        here, amount = ids[begin:end], weights[begin:end]
        used = here >= 0
        key = ((group[begin:end, None] - first) * count + here)[used]
        total = np.bincount(key, weights=amount[used], minlength=min(step, len(sums) - first) * count)
        coefficients = total.reshape(-1, count).astype(np.float32)  # (g, N)
        named = np.flatnonzero(coefficients.any(axis=0))  # of a large set, these groups use few
        sums[first : first + step] += coefficients[:, named] @ vectors[named]
