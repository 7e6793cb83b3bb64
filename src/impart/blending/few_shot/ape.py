"""APE without training (Zhu et al., ICCV 2023, sections 3.2 and 3.3): Tip-Adapter on channels that differ by class.

    g(x) = alpha sum_i exp(-beta (1 - f(x) . f_i)) exp(gamma KL_i) y_i

f are the retrieval embeddings on the chosen channels, normalised again. A channel k is good where classes differ in
it: J_k = -w_0 S_k + w_1 V_k, S_k the mean product of two vectors of different classes (texts and references), V_k the
variance of the class vectors over the classes. KL_i = log2(1 / p_i), p_i the softmax probability of the right class of
reference i by its cosines with the texts (no logit scale, as in the authors' code), on the chosen channels of the
embeddings.

The method assumes texts and images in one space. Where an encoder has a retrieval embedding of its own, its channels
are chosen by the references alone, with the class means in place of the texts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from impart.blending.few_shot.support import Support
from impart.encoders.base import Float32, ImageEmbeddings, l2_normalise

__all__ = ["Ape", "Refined", "channels"]

_WEIGHTS = (0.5, 0.5)  # w_0, w_1 of the authors' configuration of Caltech-101
_TINY = 1e-6

Channels = npt.NDArray[np.int64]


def channels(
    sums: npt.NDArray[np.float64],
    counts: npt.NDArray[np.int64],
    classes: npt.NDArray[np.float64],
    *,
    kept: int,
) -> Channels:
    """Choose the channels in which classes differ.

    Args:
        sums: (C, W) sum of the vectors of each class.
        counts: (C,) vectors per class.
        classes: (C, W) the vector of each class, for the variance.
        kept: number of channels.

    Returns:
        Their numbers, ascending.
    """
    pairs = counts.sum() ** 2 - (counts**2).sum()
    alike = (sums.sum(axis=0) ** 2 - (sums**2).sum(axis=0)) / max(1, pairs)  # (W,)
    found = -_WEIGHTS[0] * alike + _WEIGHTS[1] * classes.var(axis=0, ddof=1)
    return np.sort(np.argsort(-found, kind="stable")[:kept])


@dataclass(frozen=True)
class Refined:
    """References on their chosen channels.

    Attributes:
        support: the references.
        share: of the channels that is kept.
    """

    support: Support
    share: float

    @cached_property
    def chosen(self) -> tuple[Channels, Channels]:
        """Channels of the retrieval embedding and of the embedding."""
        return self._channels()

    @cached_property
    def divergences(self) -> Float32:
        """(R,) KL_i."""
        return self._divergences(self.chosen[1])

    def cosines(self, images: ImageEmbeddings) -> Float32:
        """Compute the cosines (B, R) with the references, on the chosen channels."""
        own = self.chosen[0]
        found: Float32 = l2_normalise(images.retrieval[:, own]) @ l2_normalise(self.support.retrieval[:, own]).T
        return found

    @cached_property
    def left_out(self) -> tuple[Float32, Float32]:
        """Cosines and KL (both (R, R)) of each reference with the others, by the channels chosen without it."""
        support = self.support
        cosines, divergences = np.empty((2, len(support), len(support)), dtype=np.float32)
        keys: dict[bytes, Float32] = {}
        known: dict[bytes, Float32] = {}
        for row in range(len(support)):
            own, text = self._channels(row)
            if own.tobytes() not in keys:
                keys[own.tobytes()] = l2_normalise(support.retrieval[:, own])
            if text.tobytes() not in known:
                known[text.tobytes()] = self._divergences(text)
            cosines[row] = keys[own.tobytes()] @ keys[own.tobytes()][row]
            divergences[row] = known[text.tobytes()]
        return cosines, divergences

    def _channels(self, left_out: int | None = None) -> tuple[Channels, Channels]:
        images, one_space = self._sums
        counts = self.support.counts
        sums = images.copy()
        if left_out is not None:
            label = self.support.labels[left_out]
            counts = counts - self.support.one_hot[left_out].astype(np.int64)
            sums[label] -= self._both[left_out]
        width = self.support.retrieval.shape[1]
        texts = self.support.texts.astype(np.float64)
        retrieval, embedding = sums[:, :width], sums[:, width:]
        by_text = channels(embedding + texts, counts + 1, texts, kept=self._kept(texts.shape[1]))
        if one_space:
            return by_text, by_text
        means = retrieval[counts > 0] / counts[counts > 0, None]
        return channels(retrieval, counts, means, kept=self._kept(width)), by_text

    def _kept(self, width: int) -> int:
        return max(1, round(self.share * width))

    @cached_property
    def _both(self) -> npt.NDArray[np.float64]:
        return np.concatenate([self.support.retrieval, self.support.embeddings], axis=1).astype(np.float64)

    @cached_property
    def _sums(self) -> tuple[npt.NDArray[np.float64], bool]:
        one_space = np.array_equal(self.support.retrieval, self.support.embeddings)
        return self.support.one_hot.T.astype(np.float64) @ self._both, one_space

    def _divergences(self, chosen: Channels) -> Float32:
        support = self.support
        cosines = l2_normalise(support.embeddings[:, chosen]) @ l2_normalise(support.texts[:, chosen]).T
        shares = np.exp(cosines - cosines.max(axis=1, keepdims=True))
        right = shares[np.arange(len(support)), support.labels] / shares.sum(axis=1)
        found: Float32 = np.log2((1 + _TINY) / (right + _TINY)).astype(np.float32)
        return found


@dataclass(frozen=True)
class Ape:
    """Cache model on chosen channels.

    Attributes:
        refined: the references on these channels.
        beta: sharpness of the kernel.
        gamma: weight of the divergence; 0 = every reference counts alike.
        alpha: weight of the cache, in logits.
    """

    refined: Refined
    beta: float
    gamma: float
    alpha: float

    def offsets(self, images: ImageEmbeddings) -> Float32:
        """Compute the offsets g (B, C) of the zero-shot logits of B images."""
        return self._read(self.refined.cosines(images), self.refined.divergences)

    def left_out(self) -> Float32:
        """Compute the offsets (R, C) of the references, each without itself."""
        cosines, divergences = self.refined.left_out
        return self._read(cosines, divergences, alone=True)

    def _read(self, cosines: Float32, divergences: Float32, *, alone: bool = False) -> Float32:
        weights = np.exp(self.beta * (cosines - 1) + self.gamma * divergences)
        if alone:
            np.fill_diagonal(weights, 0)
        offsets: Float32 = (self.alpha * weights @ self.refined.support.one_hot).astype(np.float32)
        return offsets
