"""Ranking: pure functions from scores to the best groups.

The score of a video or scene is, by `mean` (IMPART 3.3), the cosine with the mean of its frame vectors; by `moment`,
the score of its best frame. A segment counts as many times as frames were sampled in it. Scores of frames:
`impart.video.search.scoring`.

A group is a video, a scene or a frame: a run of segments that gives one hit.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from impart.encoders.base import Float32, l2_normalise
from impart.refset.refset import ReferenceSet
from impart.retrieval.rows import StoredRows
from impart.video.search.snapshot import Snapshot

__all__ = ["best_of", "group_means", "group_sums", "top_groups"]

_COEFFICIENTS = 4_000_000  # (groups x pairs) at once: 32 MB
_DECIMALS = 6  # scores that differ by less are ties: the last bits depend on how a product was split


def group_means(snapshot: Snapshot, starts: npt.NDArray[np.int64], *, references: ReferenceSet | None) -> Float32:
    """Compute the unit means (G, D) of the vectors v' of consecutive groups of segments; see `group_sums`."""
    return l2_normalise(group_sums(snapshot, starts, references=references))


def group_sums(snapshot: Snapshot, starts: npt.NDArray[np.int64], *, references: ReferenceSet | None) -> Float32:
    """Compute the sums (G, D) of the vectors v' of consecutive groups of segments; a segment counts `weight` times.

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
            (references.image_rows, blend.img),
            (references.text_rows, blend.txt),
        ):
            _add_pairs(sums, vectors, blend.ids, share[:, None] * weights, group=group)
    return sums


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


def _add_pairs(
    sums: Float32,
    vectors: Float32 | StoredRows,
    ids: npt.NDArray[np.int32],
    weights: Float32,
    *,
    group: npt.NDArray[np.int64],
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
