"""Tip-Adapter without training (Zhang et al., ECCV 2022, equations 2 to 4): a cache of labelled images.

    g(x) = alpha sum_i exp(-beta (1 - q(x) . q_i)) y_i

Images that are alike count as often as they occur.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from impart.blending.few_shot.ridge import kernel
from impart.blending.few_shot.support import Support
from impart.encoders.base import Float32, ImageEmbeddings

__all__ = ["TipAdapter"]


@dataclass(frozen=True)
class TipAdapter:
    """Cache model.

    Attributes:
        support: the references.
        beta: sharpness of the kernel.
        alpha: weight of the cache, in logits.
    """

    support: Support
    beta: float
    alpha: float

    def offsets(self, images: ImageEmbeddings) -> Float32:
        """Compute the offsets g (B, C) of the zero-shot logits of B images."""
        return self._read(kernel(images.retrieval, self.support.retrieval, beta=self.beta))

    def left_out(self) -> Float32:
        """Compute the offsets (R, C) of the references, each without itself."""
        found = kernel(self.support.retrieval, self.support.retrieval, beta=self.beta)
        np.fill_diagonal(found, 0)
        return self._read(found)

    def _read(self, weights: Float32) -> Float32:
        offsets: Float32 = (self.alpha * weights @ self.support.one_hot).astype(np.float32)
        return offsets
