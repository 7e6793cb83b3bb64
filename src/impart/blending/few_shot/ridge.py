"""Kernel ridge regression on the references, on top of zero-shot: solved references.

    w(x) = k(x, Q) (K + lambda I)^-1,  g(x) = alpha sum_i w_i(x) y_i,  k(a, b) = exp(-beta (1 - a . b))

Q are the retrieval embeddings of the references, K their kernel matrix, y_i their labels (one-hot). References that are
alike share their weight. The prediction of a reference without itself is exact, with H = K (K + lambda I)^-1
(Allen 1974, PRESS; Rifkin and Lippert 2007):

    g_i = alpha (y_i - (y_i - (H y)_i) / (1 - H_ii))

One eigendecomposition of K serves every lambda.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from impart.blending.few_shot.support import Support
from impart.encoders.base import Float32, ImageEmbeddings

__all__ = ["KernelRidge", "Spectrum", "kernel"]


def kernel(a: Float32, b: Float32, *, beta: float) -> Float32:
    """Compute exp(-beta (1 - a . b)) (A, B) of unit vectors a (A, Q) and b (B, Q)."""
    found: Float32 = np.exp(beta * (a @ b.T - 1)).astype(np.float32)
    return found


@dataclass(frozen=True)
class Spectrum:
    """Eigendecomposition of the kernel matrix of a support, K = U diag(e) U^T.

    Attributes:
        support: the references.
        beta: sharpness of the kernel.
    """

    support: Support
    beta: float

    @cached_property
    def _decomposed(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        q = self.support.retrieval.astype(np.float64)
        values, vectors = np.linalg.eigh(np.exp(self.beta * (q @ q.T - 1)))
        return np.maximum(values, 0), vectors

    def solve(self, lam: float, targets: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Compute (K + lambda I)^-1 T (R, C) of targets T (R, C)."""
        values, vectors = self._decomposed
        solved: npt.NDArray[np.float64] = (vectors / (values + lam)) @ (vectors.T @ targets)
        return solved

    def predict_left_out(self, lam: float, targets: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Predict the target (R, C) of each reference from the others, exactly."""
        values, vectors = self._decomposed
        shrunk = vectors * (values / (values + lam))
        predicted = shrunk @ (vectors.T @ targets)  # H T
        own = (shrunk * vectors).sum(axis=1, keepdims=True)  # H_ii
        found: npt.NDArray[np.float64] = targets - (targets - predicted) / np.maximum(1 - own, 1e-9)
        return found

    def weights(self, lam: float) -> Float32:
        """Compute (K + lambda I)^-1 Y (R, C), Y the one-hot labels."""
        weights: Float32 = self.solve(lam, self.support.one_hot.astype(np.float64)).astype(np.float32)
        return weights

    def left_out(self, lam: float) -> Float32:
        """Predict the label (R, C) of each reference from the others, exactly."""
        found: Float32 = self.predict_left_out(lam, self.support.one_hot.astype(np.float64)).astype(np.float32)
        return found


@dataclass(frozen=True)
class KernelRidge:
    """Kernel ridge regression of the labels.

    Attributes:
        spectrum: of the support.
        lam: lambda, the ridge.
        alpha: weight of the prediction, in logits.
    """

    spectrum: Spectrum
    lam: float
    alpha: float

    @cached_property
    def _weights(self) -> Float32:
        return self.spectrum.weights(self.lam)

    def offsets(self, images: ImageEmbeddings) -> Float32:
        """Compute the offsets g (B, C) of the zero-shot logits of B images."""
        found = kernel(images.retrieval, self.spectrum.support.retrieval, beta=self.spectrum.beta)
        offsets: Float32 = (self.alpha * found @ self._weights).astype(np.float32)
        return offsets

    def left_out(self) -> Float32:
        """Compute the offsets (R, C) of the references, each without itself."""
        offsets: Float32 = (self.alpha * self.spectrum.left_out(self.lam)).astype(np.float32)
        return offsets
