"""Class prototypes on top of zero-shot (Snell et al., NeurIPS 2017, with cosines).

    g_c(x) = alpha q(x) . p_c,  p_c = normalise(mean of the retrieval embeddings of class c)

With one or two references per class there is little to solve, and the mean is the best that leave-one-out can choose.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from impart.blending.few_shot.support import Support
from impart.encoders.base import Float32, ImageEmbeddings, l2_normalise

__all__ = ["Prototypes"]


@dataclass(frozen=True)
class Prototypes:
    """Nearest class mean.

    Attributes:
        support: the references.
        alpha: weight of the cosine with a prototype, in logits.
    """

    support: Support
    alpha: float

    @cached_property
    def _sums(self) -> Float32:
        return self.support.one_hot.T @ self.support.retrieval  # (C, Q)

    def offsets(self, images: ImageEmbeddings) -> Float32:
        """Compute the offsets g (B, C) of the zero-shot logits of B images."""
        offsets: Float32 = self.alpha * (images.retrieval @ l2_normalise(self._sums).T)
        return offsets

    def left_out(self) -> Float32:
        """Compute the offsets (R, C) of the references, each without itself.

        A class whose only reference is left out has the mean cosine of the other classes: it can be chosen by its name.
        """
        support = self.support
        q = support.retrieval
        found = q @ l2_normalise(self._sums).T
        own = l2_normalise(self._sums[support.labels] - q)  # (R, Q)
        alone = support.counts[support.labels] == 1
        rows = range(len(support))
        others = (found.sum(axis=1) - found[rows, support.labels]) / max(1, len(support.texts) - 1)
        cosine = (q * own).sum(axis=1)
        cosine[alone] = others[alone]
        found[rows, support.labels] = cosine
        offsets: Float32 = self.alpha * found
        return offsets
