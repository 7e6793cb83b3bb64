"""Labelled reference images, and what every few-shot method computes from them.

A method adds an offset g_c(x) to the zero-shot logit of each class:

    logits_c(x) = s v . t_c + g_c(x)

It is an encoder too. With the dual texts d (d_c . t_c' is 1 for c = c' and 0 otherwise)

    v' = v + (1 / s) sum_c g_c(x) d_c        gives        s v' . t_c = s v . t_c + g_c(x)

so that every user of an encoder gets the method's answer. The norm of v' is the same for all classes of an image.

Letters: B images, R references, C classes, D embedding width, Q retrieval width.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from impart.encoders.base import Float32, ImageEmbeddings, l2_normalise

__all__ = ["LOGIT_SCALE", "FewShot", "OffsetMethod", "Support", "augmented", "dual_texts"]

LOGIT_SCALE = 100.0
"""s, the inverse temperature of CLIP at the end of its training, by which published methods weight their offsets."""


@dataclass(frozen=True)
class Support:
    """Labelled references of a few-shot problem.

    Attributes:
        embeddings: (R, D) L2-normalised.
        retrieval: (R, Q) L2-normalised.
        labels: (R,) class number of each; every class has one reference at least.
        texts: (C, D) L2-normalised class embeddings.
        prompts: (C, P, D) L2-normalised embeddings of each class in P prompts; None = the texts alone.
    """

    embeddings: Float32
    retrieval: Float32
    labels: npt.NDArray[np.int64]
    texts: Float32
    prompts: Float32 | None = None

    def __post_init__(self) -> None:
        assert self.embeddings.shape == (len(self), self.texts.shape[1]), (self.embeddings.shape, self.texts.shape)
        assert self.retrieval.shape[:1] == self.labels.shape, (self.retrieval.shape, self.labels.shape)

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def one_hot(self) -> Float32:
        """(R, C) 1 at the class of each reference."""
        return np.eye(len(self.texts), dtype=np.float32)[self.labels]

    @cached_property
    def counts(self) -> npt.NDArray[np.int64]:
        """(C,) references per class."""
        return np.bincount(self.labels, minlength=len(self.texts)).astype(np.int64)

    @property
    def images(self) -> ImageEmbeddings:
        return ImageEmbeddings(self.embeddings, self.retrieval)

    def only(self, rows: npt.NDArray[np.bool_]) -> Support:
        """Select references (R,); every class keeps one at least."""
        kept = (self.embeddings[rows], self.retrieval[rows], self.labels[rows])
        return Support(*kept, self.texts, self.prompts)

    def without_singles(self, offsets: Float32) -> Float32:
        """Complete the offsets (R, C) of left-out references whose class has no other reference.

        Such a class is not known by images: it gets the mean offset of the other classes, so that it can be chosen by
        its name.
        """
        rows = np.flatnonzero(self.counts[self.labels] == 1)
        own = self.labels[rows]
        found = offsets.copy()
        others = offsets[rows].sum(axis=1) - offsets[rows, own]
        found[rows, own] = others / max(1, len(self.texts) - 1)
        return found


class OffsetMethod(Protocol):
    """A fitted few-shot method."""

    def offsets(self, images: ImageEmbeddings) -> Float32:
        """Compute the offsets g (B, C) of the zero-shot logits of B images."""
        ...


class FewShot(OffsetMethod, Protocol):
    """A fitted few-shot method with exact leave-one-out."""

    def left_out(self) -> Float32:
        """Compute the offsets (R, C) of the references, each by the method fitted without it."""
        ...


def dual_texts(texts: Float32, *, ridge: float = 0.0) -> Float32:
    """Compute the dual vectors (C, D) of texts (C, D): the rows of the transposed pseudo-inverse.

    They decorrelate the texts: an amount of d_c changes the product with t_c alone. With more texts than dimensions, or
    with equal texts, this holds in the least-squares sense.

    Args:
        texts: L2-normalised.
        ridge: added to the diagonal of the Gram matrix of the texts, so that the duals of texts that are nearly equal
            stay short. They are scaled so that d_c . t_c is 1 on average. A large ridge gives the texts themselves.

    >>> import numpy as np
    >>> texts = np.array([[1, 0, 0], [0.6, 0.8, 0]], dtype=np.float32)
    >>> (dual_texts(texts) @ texts.T).round(3).tolist()
    [[1.0, 0.0], [-0.0, 1.0]]
    """
    exact = texts.astype(np.float64)
    if not ridge:
        return np.linalg.pinv(exact, rcond=1e-6).T.astype(np.float32)
    duals = np.linalg.solve(exact @ exact.T + ridge * np.eye(len(exact)), exact)
    scaled: Float32 = (duals / (duals * exact).sum(axis=1).mean()).astype(np.float32)
    return scaled


def augmented(embeddings: Float32, offsets: Float32, duals: Float32, *, scale: float = LOGIT_SCALE) -> Float32:
    """Compute v' (B, D), L2-normalised, from v (B, D), offsets g (B, C) and dual texts (C, D)."""
    return l2_normalise(embeddings + (offsets / scale) @ duals)
