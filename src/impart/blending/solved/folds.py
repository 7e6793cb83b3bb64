"""Cross-validation of solved references: leave one image of every name out, exactly and without fitting again.

With leave-one-out, the name of the left-out image has one image fewer than the others. Its prediction is low, and the
weight that is chosen is too small. So one image of every name is left out at a time: fold j has the j-th image of each
name in a random order. Answers are averaged over several orders.

Two predictions are made of each image: by the other folds, and by the other folds without the references of its own
name. The second one shows what the set does to an image of a thing that it does not name.

With A the rows of other folds, P = (K_AA + lambda I)^-1 and w = k(x, A), the prediction of x is w P Y. Without the rows
C of a name it is  w P Y - (w P)_C P_CC^-1 (P Y)_C.

Logistic regression has no such formula: it is fitted again without each fold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from impart.blending.few_shot.logistic import logistic_weights
from impart.blending.solved.blender import DistinctNames, balanced_logits, own_kernel
from impart.config import SolvedSettings
from impart.encoders.base import Float32
from impart.refset.refset import ReferenceSet
from impart.retrieval.threads import each
from impart.retrieval.znorm import ZNorm

__all__ = ["Folded", "OnProgress", "folded", "logistic_offsets"]

OnProgress = Callable[[int, int], None]
"""Takes the folds done and all of them."""
_FOLDS = 8
_ORDERS = ((400, 4), (1000, 2))  # orders up to a size of the set; one above


@dataclass(frozen=True)
class Folded:
    """Predictions of Q reference images in one order.

    Attributes:
        known: (Q, C) without the images of the same fold.
        unnamed: (Q, C) also without the references of the own name.
        z_known, z_unnamed: (Q, 1) z-scores of the nearest references that are left.
    """

    known: Float32
    unnamed: Float32
    z_known: Float32
    z_unnamed: Float32


def folded(
    references: ReferenceSet,
    names: DistinctNames,
    settings: SolvedSettings,
    *,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> list[Folded]:
    """Predict every reference image by the images of other folds, in several orders."""
    matrix = own_kernel(references, settings)
    matrix += settings.lam * np.eye(len(matrix))
    retrieval = references.retrieval_embeddings
    sims = retrieval @ retrieval.T
    orders = _orders(names.labels, seed)
    told = _Told(orders, on_progress)
    return [_predict(matrix, sims, retrieval, names, references.znorm, splits, told) for splits in orders]


def logistic_offsets(
    references: ReferenceSet,
    names: DistinctNames,
    settings: SolvedSettings,
    *,
    alphas: Sequence[float],
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> Iterator[tuple[float, Float32]]:
    """Predict every reference image by logistic regression on the images of other folds, in several orders.

    Yields:
        Per order and alpha, alpha and f (R, C).
    """
    matrix = own_kernel(references, settings).astype(np.float32)
    zero_shot = balanced_logits(references, names, settings)
    orders = _orders(names.labels, seed)
    told = _Told(orders, on_progress)
    for splits in orders:
        offsets = {alpha: np.zeros_like(names.one_hot) for alpha in alphas}

        def predict(split: _Split, offsets: dict[float, Float32] = offsets) -> None:
            left, kept = split
            similar = matrix[np.ix_(left, kept)]
            solved = logistic_weights(
                matrix[np.ix_(kept, kept)],
                names.one_hot[kept],
                zero_shot[kept],
                penalty=settings.penalty,
                taus=[1 / alpha for alpha in alphas],
            )
            for alpha, weights in zip(alphas, solved, strict=True):
                offsets[alpha][left] = similar @ weights

        each(splits, predict, on_done=told)
        yield from offsets.items()


_Split = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""Rows that are left out, and rows that are kept."""


def _orders(labels: npt.NDArray[np.int64], seed: int) -> list[list[_Split]]:
    """Divide the rows at random, several times, into folds."""
    rng = np.random.default_rng(seed)
    orders = []
    for _ in range(next((count for size, count in _ORDERS if len(labels) <= size), 1)):
        fold = np.empty(len(labels), dtype=np.int64)
        for label in range(labels.max() + 1):
            own = rng.permutation(np.flatnonzero(labels == label))
            fold[own] = np.arange(len(own)) % _FOLDS
        splits = [(np.flatnonzero(fold == number), np.flatnonzero(fold != number)) for number in range(fold.max() + 1)]
        orders.append([(left, kept) for left, kept in splits if len(kept)])
    return orders


class _Told:
    """Counts the folds that are done, and tells it."""

    def __init__(self, orders: list[list[_Split]], on_progress: OnProgress | None):
        self._done, self._all, self._tell = 0, sum(map(len, orders)), on_progress

    def __call__(self) -> None:
        self._done += 1
        if self._tell is not None:
            self._tell(self._done, self._all)


def _predict(
    matrix: npt.NDArray[np.float64],
    sims: Float32,
    retrieval: Float32,
    names: DistinctNames,
    background: ZNorm,
    splits: list[_Split],
    told: _Told,
) -> Folded:
    labels, one_hot = names.labels, names.one_hot
    known, unnamed = np.zeros_like(one_hot), np.zeros_like(one_hot)
    nearest, others = np.full((len(labels), 1), -1, np.float32), np.full((len(labels), 1), -1, np.float32)

    def predict(split: _Split) -> None:
        left, kept = split
        inverse = np.linalg.inv(matrix[np.ix_(kept, kept)])
        weights = inverse @ one_hot[kept]
        similar = matrix[np.ix_(left, kept)]
        products = similar @ inverse
        known[left] = similar @ weights
        unnamed[left] = known[left]
        near = sims[np.ix_(left, kept)]
        nearest[left, 0] = near.max(axis=1)
        same = labels[left][:, None] == labels[kept]
        others[left, 0] = np.where(same, -1, near).max(axis=1)
        for label in np.unique(labels[left]):
            images, own = np.flatnonzero(labels[left] == label), np.flatnonzero(labels[kept] == label)
            if len(own):
                without = np.linalg.solve(inverse[np.ix_(own, own)], weights[own])
                unnamed[left[images]] -= (products[np.ix_(images, own)] @ without).astype(np.float32)

    each(splits, predict, on_done=told)
    return Folded(known, unnamed, background.z_scores(retrieval, nearest), background.z_scores(retrieval, others))
