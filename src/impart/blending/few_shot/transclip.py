"""TransCLIP-FS: transduction with labelled references (Zanella et al., NeurIPS 2024, equations 2 to 8).

All test images are classified together: this needs every test image at once and gives no encoder. Each class is a
Gaussian of the retrieval embeddings with a common diagonal covariance. The assignments z of the B test images are found
by turns with means and variances:

    z_i ~ y_i^lambda exp((log p(x_i | c) + (50 / 6) sum_j w_ij z_j) / 50)

y_i are the zero-shot probabilities. w are the cosines of each image with its 3 nearest test images, both ways;
the labelled references are neighbours too, with z fixed. References count `gamma` 50 times as much as the test images
together. The constants (lambda 1/2, 3 neighbours, 50, 10 rounds of 5) are those of the authors' code.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from impart.blending.few_shot.support import LOGIT_SCALE, Support
from impart.encoders.base import Float32, ImageEmbeddings, l2_normalise

__all__ = ["TransClip"]

_LAMBDA = 0.5
_NEIGHBOURS = 3
_SOFTNESS = 50.0
_ROUNDS, _STEPS = 10, 5
_BLOCK = 1024  # rows of one matrix of cosines


@dataclass(frozen=True)
class TransClip:
    """Transductive classifier.

    Attributes:
        support: the references.
        gamma: weight of the references against the test images.
        alpha: factor of the offsets; 1 = as published.
    """

    support: Support
    gamma: float
    alpha: float = 1.0

    def offsets(self, images: ImageEmbeddings) -> Float32:
        """Compute the offsets g (B, C) that make the zero-shot logits of B test images their log-assignments."""
        logits = LOGIT_SCALE * images.embeddings.astype(np.float64) @ self.support.texts.T
        found = np.log(np.maximum(self.assign(images.retrieval, logits), 1e-300))
        return (self.alpha * (found - logits)).astype(np.float32)

    def assign(self, x: Float32, logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Assign B test images to classes: probabilities z (B, C), by embeddings (B, Q) and zero-shot logits (B, C)."""
        support, width = self.support, x.shape[1]
        prior = np.exp(logits - logits.max(axis=1, keepdims=True))
        prior /= prior.sum(axis=1, keepdims=True)
        z = prior.copy()
        means = l2_normalise(support.one_hot.T @ support.retrieval)
        variances = np.full(width, 1 / width)
        one_hot = support.one_hot.astype(np.float64)
        mutual = _Nearest.of(x, x, skip=1)
        from_labelled = _Nearest.of(support.retrieval, x).spread(one_hot, len(x))  # (B, C)
        total = self.gamma * _SOFTNESS
        for step in range(_ROUNDS + 1):
            scaled = x / variances
            likelihood = -0.5 * (
                (x * scaled).sum(axis=1)[:, None] - 2 * scaled @ means.T + (means**2 / variances).sum(1)
            )
            for _ in range(_STEPS):
                near = mutual.spread(z, len(x)) + from_labelled + mutual.gather(z)
                exponent = likelihood + _SOFTNESS / (2 * _NEIGHBOURS) * near
                exponent -= exponent.max(axis=1, keepdims=True)
                z = prior**_LAMBDA * np.exp(exponent / _SOFTNESS)
                z /= z.sum(axis=1, keepdims=True)
            if step == _ROUNDS:
                break
            ours, theirs = z / len(x), total * one_hot / len(support)
            mass = ours.sum(axis=0) + theirs.sum(axis=0)
            means = l2_normalise((ours.T @ x + theirs.T @ support.retrieval) / mass[:, None])
            spread = _spread(ours, x, means) + _spread(theirs, support.retrieval, means)
            variances = np.maximum(spread / (1 + total), 1e-12)
        return np.asarray(z)


@dataclass(frozen=True)
class _Nearest:
    """The 3 nearest test images of n images: numbers and cosines (n, 3)."""

    ids: npt.NDArray[np.int64]
    cosines: npt.NDArray[np.float64]

    @classmethod
    def of(cls, rows: Float32, x: Float32, *, skip: int = 0) -> _Nearest:
        """Search the test images x (B, Q) nearest to each of the rows (n, Q), without the first `skip`."""
        ids = []
        for first in range(0, len(rows), _BLOCK):
            cosines = rows[first : first + _BLOCK] @ x.T
            ids.append(np.argsort(-cosines, axis=1, kind="stable")[:, skip : skip + _NEIGHBOURS])
        found = np.concatenate(ids)
        return cls(found, np.einsum("nq,nkq->nk", rows, x[found]).astype(np.float64))

    def gather(self, z: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Sum what the nearest images are assigned to, by cosine: (n, C) from z (B, C)."""
        total: npt.NDArray[np.float64] = np.einsum("nk,nkc->nc", self.cosines, z[self.ids])
        return total

    def spread(self, z: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.float64]:
        """Add z (n, C) of each image to its nearest of `count` test images, by cosine: (B, C)."""
        total = np.zeros((count, z.shape[1]))
        for column in range(self.ids.shape[1]):
            np.add.at(total, self.ids[:, column], self.cosines[:, column, None] * z)
        return total


def _spread(weights: npt.NDArray[np.float64], x: Float32, means: Float32) -> npt.NDArray[np.float64]:
    """Sum weights (n, C) times squared distances per dimension: (Q,)."""
    wide, centres = x.astype(np.float64), means.astype(np.float64)
    spread: npt.NDArray[np.float64] = weights.sum(axis=1) @ wide**2 + weights.sum(axis=0) @ centres**2
    spread -= 2 * ((weights.T @ wide) * centres).sum(axis=0)
    return spread
