"""Choose n of the N pairs of a reference set, or corrupt its texts, to measure the effect of its size and quality.

Each selection orders the rows and takes the first n, so that for one seed a larger choice contains the smaller. It uses
the set alone: no test item and no target label. `ReferenceSet.take(rows)` makes the smaller set.

| name | order | what the seed changes |
| --- | --- | --- |
| `random` | a permutation | the whole order |
| `class` | round robin over the texts: one pair of each, then a second of each | texts, and pairs within one |
| `cluster` | round robin over k-means clusters of the retrieval embeddings | clusters, and pairs within one |
| `coverage` | each row is the farthest from those before it (greedy k-centre) | the first row |
| `agreement` | by the cosine of image and text embedding, best first (as CLIP-filtered web data) | nothing |
| `dedup` | a permutation without near-duplicates of earlier rows; may give fewer than n | the whole order |

Source of k-centre: Gonzalez, Clustering to minimize the maximum intercluster distance, 1985 (within twice the optimum).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from impart.encoders.base import Float32
from impart.errors import ConfigError, ReferenceSetError
from impart.refset.refset import ReferenceSet

__all__ = [
    "FIXED",
    "WAYS",
    "agreement",
    "choose",
    "class_balanced",
    "cluster_balanced",
    "corrupt",
    "coverage",
    "deduplicated",
    "random",
    "texts_exchanged",
]

Rows: TypeAlias = npt.NDArray[np.int64]

_BLOCK = 2048  # rows compared at a time
_SWAPS = 50  # attempts to find another text for a row


def choose(references: ReferenceSet, way: str, n: int, *, seed: int = 0) -> Rows:
    """Choose at most n rows by one of `WAYS`, sorted.

    Raises:
        ConfigError: there is no such way, or n is below 1.
        ReferenceSetError: the set has fewer than n pairs.
    """
    if way not in WAYS:
        raise ConfigError(f"unknown selection {way!r}: there are {', '.join(WAYS)}")
    if n < 1:
        raise ConfigError(f"{n} references cannot be chosen: at least 1")
    if n > len(references):
        raise ReferenceSetError(f"reference set {references.name!r} has {len(references)} pairs: cannot choose {n}")
    return np.sort(WAYS[way](references, n, seed=seed))


def random(references: ReferenceSet, n: int, *, seed: int = 0) -> Rows:
    """Choose n rows at random."""
    return np.random.default_rng(seed).permutation(len(references))[:n]


def class_balanced(references: ReferenceSet, n: int, *, seed: int = 0) -> Rows:
    """Choose n rows with equal numbers per text where it has enough; of captions, which all differ, random rows."""
    numbers: dict[str, int] = {}
    groups = np.array([numbers.setdefault(text, len(numbers)) for text in references.texts], dtype=np.int64)
    return round_robin(groups, np.random.default_rng(seed))[:n]


def cluster_balanced(references: ReferenceSet, n: int, *, seed: int = 0, clusters: int = 0) -> Rows:
    """Choose n rows with equal numbers per k-means cluster of the retrieval embeddings.

    Args:
        references: the set.
        n: rows wanted.
        seed: of clustering and draw.
        clusters: 0 = the square root of N; it does not depend on n, so that choices are nested.
    """
    vectors = np.ascontiguousarray(references.retrieval_embeddings, dtype=np.float32)
    count = min(clusters or max(1, round(len(vectors) ** 0.5)), len(vectors))
    groups = _k_means(vectors, count, seed)
    return round_robin(groups, np.random.default_rng(seed))[:n]


def coverage(references: ReferenceSet, n: int, *, seed: int = 0) -> Rows:
    """Choose n rows such that every image is near to one of them: each row is the farthest from those before it.

    The first is drawn with the seed; of equally far rows the lowest is taken.
    """
    first = int(np.random.default_rng(seed).integers(len(references)))
    return farthest_first(references.retrieval_embeddings, n, first)


def agreement(references: ReferenceSet, n: int, *, seed: int = 0) -> Rows:  # noqa: ARG001 - nothing is random
    """Choose the n rows with the highest cosine of image and text embedding."""
    cosines = np.einsum("nd,nd->n", references.image_embeddings, references.text_embeddings)
    lengths = np.linalg.norm(references.image_embeddings, axis=1) * np.linalg.norm(references.text_embeddings, axis=1)
    return np.argsort(-cosines / np.maximum(lengths, 1e-12), kind="stable")[:n].astype(np.int64)


def deduplicated(references: ReferenceSet, n: int, *, seed: int = 0, threshold: float = 0.0) -> Rows:
    """Choose at most n rows at random, without near-duplicates of earlier ones.

    Of captions of one image one stays.

    Args:
        references: the set.
        n: rows wanted; fewer are given where the set has fewer different images.
        seed: of the order.
        threshold: cosine from which two images are near-duplicates; 0 = the set's own bound (`CopyBounds`).
    """
    threshold = threshold or references.copy_bounds.copy
    order = np.random.default_rng(seed).permutation(len(references))
    vectors, images = references.retrieval_embeddings, references.images
    kept: list[int] = []
    for first in range(0, len(order), _BLOCK):
        block = order[first : first + _BLOCK]
        near = vectors[block] @ vectors[kept].T >= threshold
        known = near.any(axis=1) | np.isin(images[block], images[kept])  # (b,) near a row of earlier blocks
        alike = vectors[block] @ vectors[block].T >= threshold  # (b, b)
        alike |= images[block][:, None] == images[block][None]
        taken = np.zeros(len(block), dtype=bool)
        for place in np.flatnonzero(~known):
            taken[place] = not (alike[place] & taken).any()
        kept += block[taken].tolist()
        if len(kept) >= n:
            break
    return np.asarray(kept[:n], dtype=np.int64)


WAYS: Mapping[str, Callable[..., Rows]] = {
    "random": random,
    "class": class_balanced,
    "cluster": cluster_balanced,
    "coverage": coverage,
    "agreement": agreement,
    "dedup": deduplicated,
}
"""Selections by their names on the command line."""

FIXED = frozenset({"agreement"})
"""Selections that do not depend on the seed."""


def corrupt(references: ReferenceSet, fraction: float, *, seed: int = 0) -> ReferenceSet:
    """Exchange the texts of a fraction of the rows; see `texts_exchanged`."""
    texts = texts_exchanged(references, fraction, seed=seed)
    return references.take(np.arange(len(references)), texts_of=texts) if fraction else references


def texts_exchanged(references: ReferenceSet, fraction: float, *, seed: int = 0) -> Rows:
    """Draw the row whose text each row gets (N,) when `round(fraction * N)` rows exchange their texts at random.

    No text is lost or doubled. Where possible, a row gets a text that differs from its own and is not another caption
    of its own image. For one seed the rows of a smaller fraction are among those of a larger.

    Raises:
        ConfigError: the fraction is not from 0 to 1.
    """
    if not 0 <= fraction <= 1:
        raise ConfigError(f"a fraction of {fraction} of the captions cannot be corrupted: from 0 to 1")
    count = len(references)
    owners = np.arange(count)
    rows = np.random.default_rng(seed).permutation(count)[: round(fraction * count)]
    if len(rows) < 2:
        return owners
    rng = np.random.default_rng([seed, len(rows)])
    given = np.roll(rows, 1)  # rows are in random order; each gets the text of the one before it
    texts, images = references.texts, references.images

    def own(row: int, owner: int) -> bool:
        return texts[row] == texts[owner] or bool(images[row] == images[owner])

    for place in [i for i in range(len(rows)) if own(rows[i], given[i])]:
        if not own(rows[place], given[place]):  # an earlier exchange has changed it
            continue
        for other in rng.integers(len(rows), size=_SWAPS):
            if not own(rows[place], given[other]) and not own(rows[other], given[place]):
                given[[place, other]] = given[[other, place]]
                break
    owners[rows] = given
    return owners


def round_robin(groups: Rows, rng: np.random.Generator) -> Rows:
    """Order all rows: one of each group, then a second of each, and so on; each round has its own order of groups.

    >>> order = round_robin(np.array([0, 0, 0, 1, 2, 2]), np.random.default_rng(0))
    >>> [sorted(np.array([0, 0, 0, 1, 2, 2])[part].tolist()) for part in (order[:3], order[3:5], order[5:])]
    [[0, 1, 2], [0, 2], [0]]
    """
    order = rng.permutation(len(groups))
    by_group = order[np.argsort(groups[order], kind="stable")]  # groups together, random within
    sizes = np.bincount(groups)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    rounds = np.arange(len(groups)) - starts[groups[by_group]]  # (N,) place of a row in its group
    shuffled = rng.permutation(len(groups))
    return by_group[np.lexsort((shuffled, rounds))]


def farthest_first(vectors: Float32, n: int, first: int) -> Rows:
    """Order L2-normalised rows (N, R) by greedy k-centre: `first`, then each time the row farthest from its nearest.

    >>> angles = np.radians([0, 10, 90, 180])
    >>> farthest_first(np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32), 3, 0).tolist()
    [0, 3, 2]
    """
    chosen = np.empty(n, dtype=np.int64)
    nearest = np.full(len(vectors), -np.inf, dtype=np.float32)  # (N,) cosine with the nearest chosen row
    row = first
    for place in range(n):
        chosen[place] = row
        np.maximum(nearest, vectors @ vectors[row], out=nearest)
        nearest[row] = np.inf  # never taken again, even where other rows are equal to it
        row = int(nearest.argmin())
    return chosen


def _k_means(vectors: Float32, clusters: int, seed: int) -> Rows:
    """Assign each row to a cluster (N,) by spherical k-means."""
    import faiss

    trained = faiss.Kmeans(
        vectors.shape[1], clusters, niter=20, nredo=5, seed=seed + 1, spherical=True, min_points_per_centroid=1
    )
    trained.train(vectors)
    return np.asarray(trained.index.search(vectors, 1)[1][:, 0], dtype=np.int64)
