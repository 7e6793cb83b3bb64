"""ProKeR: proximal kernel ridge regression with zero-shot as its centre (Bendou et al., CVPR 2025).

    f(x) = z(x) + k(x, Q) (K / lambda + I)^-1 (Y - Z),   k(a, b) = exp(-beta (1 - a . b))

z are the cosines with the texts, Z those of the references, Y their labels (one-hot): the kernel predicts what
zero-shot lacks. This is the form of the authors' code. It equals lambda times kernel ridge regression of the residuals.
In logits,

    g(x) = s (f(x) - z(x)) = s lambda k(x, Q) (K + lambda I)^-1 (Y - Z)

The prediction of a reference without itself is exact, as in `ridge`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from impart.blending.few_shot.ridge import Spectrum, kernel
from impart.blending.few_shot.support import LOGIT_SCALE
from impart.encoders.base import Float32, ImageEmbeddings

__all__ = ["ProKeR"]


@dataclass(frozen=True)
class ProKeR:
    """Kernel ridge regression of the residuals of zero-shot.

    Attributes:
        spectrum: of the support.
        lam: lambda, the ridge.
        alpha: factor of the offsets; 1 = as published.
    """

    spectrum: Spectrum
    lam: float
    alpha: float = 1.0

    @cached_property
    def _residuals(self) -> npt.NDArray[np.float64]:
        support = self.spectrum.support
        return support.one_hot - support.embeddings.astype(np.float64) @ support.texts.T

    def offsets(self, images: ImageEmbeddings) -> Float32:
        """Compute the offsets g (B, C) of the zero-shot logits of B images."""
        found = kernel(images.retrieval, self.spectrum.support.retrieval, beta=self.spectrum.beta)
        return self._scaled(found @ self.spectrum.solve(self.lam, self._residuals))

    def left_out(self) -> Float32:
        """Compute the offsets (R, C) of the references, each without itself."""
        return self._scaled(self.spectrum.predict_left_out(self.lam, self._residuals))

    def _scaled(self, found: npt.NDArray[np.float64]) -> Float32:
        return (self.alpha * LOGIT_SCALE * self.lam * found).astype(np.float32)
