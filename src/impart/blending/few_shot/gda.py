"""GDA: Gaussian discriminant analysis beside zero-shot (Wang et al., ICLR 2024, equations 4 to 7).

    g_c(x) = alpha (mu_c P q(x) - mu_c P mu_c / 2),   P = W (S + tr(S) / (N - 1) I)^-1

mu_c are the class means, S the scatter within classes of the N vectors of width W. The precision P is the paper's
empirical-Bayes ridge estimate. With one reference per class there is no scatter, and P is W I.

Leaving a reference out changes one mean, S by a matrix of rank one, and the ridge. In the eigenbasis of S the ridge is
a number, and the rest follows from the Sherman-Morrison formula: the predictions are exact at the cost of one
eigendecomposition.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from impart.blending.few_shot.support import Support
from impart.encoders.base import Float32, ImageEmbeddings

__all__ = ["Gda", "discriminant", "precision"]

Float64 = npt.NDArray[np.float64]


def precision(scatter: Float64, count: int) -> Float64:
    """Estimate the precision P (W, W) from the scatter (W, W) within classes of `count` vectors."""
    width = len(scatter)
    trace = float(np.trace(scatter))
    if trace <= 1e-12 * width:
        return width * np.eye(width)
    return np.asarray(width * np.linalg.inv(scatter + trace / (count - 1) * np.eye(width)), dtype=np.float64)


def discriminant(means: Float64, inverse: Float64) -> tuple[Float64, Float64]:
    """Compute the weights (W, C) and biases (C,) of class means (C, W) and a precision (W, W)."""
    weights = inverse @ means.T
    return weights, -0.5 * (means * weights.T).sum(axis=1)


@dataclass(frozen=True)
class Gda:
    """Gaussian discriminant analysis of the retrieval embeddings.

    Attributes:
        support: the references.
        alpha: weight of the discriminant, in logits.
    """

    support: Support
    alpha: float

    @cached_property
    def _vectors(self) -> Float64:
        return self.support.retrieval.astype(np.float64)

    @cached_property
    def _means(self) -> Float64:
        return (self.support.one_hot.T @ self._vectors) / self.support.counts[:, None]

    @cached_property
    def _centred(self) -> Float64:
        return self._vectors - self._means[self.support.labels]

    def offsets(self, images: ImageEmbeddings) -> Float32:
        """Compute the offsets g (B, C) of the zero-shot logits of B images."""
        inverse = precision(self._centred.T @ self._centred, len(self.support))
        weights, biases = discriminant(self._means, inverse)
        offsets: Float32 = (self.alpha * (images.retrieval @ weights + biases)).astype(np.float32)
        return offsets

    def left_out(self) -> Float32:
        """Compute the offsets (R, C) of the references, each without itself."""
        support = self.support
        labels, rows = support.labels, np.arange(len(support))
        others = np.maximum(support.counts[labels] - 1, 0).astype(np.float64)  # (R,)
        scatter = self._centred.T @ self._centred
        values, basis = np.linalg.eigh(scatter)
        x, away, means = self._vectors @ basis, self._centred @ basis, self._means @ basis
        rank_one = np.divide(others + 1, others, out=np.zeros_like(others), where=others > 0)  # factor of away away^T
        trace = np.maximum(values, 0).sum() - rank_one * (away**2).sum(axis=1)
        ridge = trace / max(1, len(support) - 2)
        none = trace <= 1e-9 * max(1.0, float(values.max()))  # no scatter is left
        scaled = 1 / (np.maximum(values, 0) + np.where(none, 1, ridge)[:, None])  # (R, W)
        scaled[none] = 1
        rank_one[none] = 0
        own = means[labels] - np.divide(away, others[:, None], out=np.zeros_like(away), where=others[:, None] > 0)

        x_means, away_means, squares = (x * scaled) @ means.T, (away * scaled) @ means.T, scaled @ (means**2).T
        x_means[rows, labels] = (x * scaled * own).sum(axis=1)
        away_means[rows, labels] = (away * scaled * own).sum(axis=1)
        squares[rows, labels] = (scaled * own**2).sum(axis=1)
        x_away, squared = (x * scaled * away).sum(axis=1), (away**2 * scaled).sum(axis=1)
        factor = (rank_one / (1 - rank_one * squared))[:, None]
        found = x_means + factor * away_means * x_away[:, None] - 0.5 * (squares + factor * away_means**2)
        width = self._vectors.shape[1]
        return support.without_singles((self.alpha * width * found).astype(np.float32))
