"""Solved references: kernel ridge regression in whitened retrieval space, on a debiased zero-shot classifier.

    g(x) = alpha k(q'(x), Q') (K + lambda I)^-1 Y - b

Two closed-form corrections make it better than plain kernel ridge regression, most of all with one to three references
per class:

- q' = normalise(q W) with W = C^-p, C the covariance of unrelated images. Directions in which all images differ say
  little about a class.
- b is the bias of the zero-shot logits: b_c = log(mean_i softmax_c(h z_i)) / h over the references, each class with
  equal weight. Some names attract all images of a domain (compare Allingham et al., ICML 2023). It is a constant
  vector per class, so that the result is still an encoder.

Alpha is chosen by cross-validation on the references. Each fold leaves out images of all classes at once. Leave-one-out
would compare a class of n - 1 images with classes of n, and choose an alpha that is two to six times too small. A fold
is exact too: its residual is (I - H_BB)^-1 (y - H y)_B.

The constants were chosen on named images that are no part of any evaluation set.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from impart.blending.few_shot.ridge import Spectrum, kernel
from impart.blending.few_shot.support import LOGIT_SCALE, Support
from impart.encoders.base import Float32, ImageEmbeddings, l2_normalise

__all__ = ["ALPHAS", "Solved", "Solver", "choose_alpha", "debias", "whitening"]

ALPHAS = (8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0, 96.0, 128.0, 192.0, 256.0, 384.0, 512.0, 768.0, 1024.0)
"""Weights that cross-validation chooses from, in logits."""

_BETA = 2.0
_LAMBDA = 0.1
_POWER = 0.2  # p of the whitening
_SHRINKAGE = 0.1  # of the covariance, in mean eigenvalues
_HEAT = 0.2  # h of the debiasing
_LEAST = 1e-4  # probability that keeps the logarithm finite
_FOLDS = 8
_REPEATS = 8
_ONE_IMAGE = 96.0  # alpha where every class has one image, and nothing can choose it
_KNOWN_ALPHA = 24.0  # the same where the encoder knows the classes
_KNOWN = 0.75  # zero-shot accuracy on the references from which it does


def whitening(unrelated: Float32) -> Float32:
    """Compute the map W (Q, Q) from retrieval embeddings (N, Q) of unrelated images.

    >>> import numpy as np
    >>> rows = np.random.default_rng(0).standard_normal((500, 2)).astype(np.float32) * (4, 1)
    >>> w = whitening(rows)
    >>> bool(w[0, 0] < w[1, 1])
    True
    """
    values, vectors = np.linalg.eigh(np.cov(unrelated.astype(np.float64).T))
    values = np.maximum(values, 0) + _SHRINKAGE * values.mean()
    found: Float32 = ((vectors * values**-_POWER) @ vectors.T).astype(np.float32)
    return found


def debias(logits: Float32, labels: npt.NDArray[np.int64]) -> Float32:
    """Compute the bias b (C,) of zero-shot logits (R, C) of references with these labels (R,)."""
    heated = _HEAT * (logits - logits.max(axis=1, keepdims=True))
    shares = np.exp(heated)
    shares /= shares.sum(axis=1, keepdims=True)
    counts = np.bincount(labels, minlength=logits.shape[1])
    weights = 1 / (counts[labels] * (counts > 0).sum())
    found: Float32 = (np.log(weights @ shares + _LEAST) / _HEAT).astype(np.float32)
    return found


@dataclass(frozen=True)
class Solver:
    """A support with its kernel matrix decomposed: everything but alpha.

    Attributes:
        support: the references.
        basis: (Q, Q) of `whitening`; None = the retrieval embeddings as they are.
    """

    support: Support
    basis: Float32 | None = None

    def features(self, retrieval: Float32) -> Float32:
        """Map retrieval embeddings (B, Q) to q' (B, Q), L2-normalised."""
        return retrieval if self.basis is None else l2_normalise(retrieval @ self.basis)

    @cached_property
    def spectrum(self) -> Spectrum:
        """Decomposition of the kernel matrix of q'."""
        support = self.support
        return Spectrum(
            Support(support.embeddings, self.features(support.retrieval), support.labels, support.texts), _BETA
        )

    @cached_property
    def zero_shot(self) -> Float32:
        """(R, C) zero-shot logits of the references, less the bias."""
        return self.logits - self.bias

    @cached_property
    def bias(self) -> Float32:
        """(C,) bias of the zero-shot logits."""
        return debias(self.logits, self.support.labels)

    @cached_property
    def weights(self) -> Float32:
        """(R, C) solved weights (K + lambda I)^-1 Y."""
        return self.spectrum.weights(_LAMBDA)

    def kernel(self, retrieval: Float32) -> Float32:
        """Compare retrieval embeddings (B, Q) with the references: k (B, R)."""
        return kernel(self.features(retrieval), self.spectrum.support.retrieval, beta=_BETA)

    def left_out(self) -> Float32:
        """Predict the label (R, C) of each reference from the others, exactly."""
        return self.spectrum.left_out(_LAMBDA)

    def folded(self, rng: np.random.Generator) -> Float32:
        """Predict the label (R, C) of each reference from the other folds, exactly.

        A class has at most one image more in one fold than in another. The only image of a class is never left out:
        its prediction is NaN.
        """
        labels, y = self.support.labels, self.support.one_hot.astype(np.float64)
        fold = _folds(labels, rng)
        hat = self.spectrum.hat(_LAMBDA)
        residual = y - hat @ y
        found = np.full(y.shape, np.nan, dtype=np.float32)
        for number in range(fold.max() + 1):
            rows = np.flatnonzero(fold == number)
            block = np.eye(len(rows)) - hat[np.ix_(rows, rows)]
            found[rows] = y[rows] - np.linalg.solve(block, residual[rows])
        return found

    @property
    def logits(self) -> Float32:
        """(R, C) zero-shot logits of the references."""
        logits: Float32 = (LOGIT_SCALE * self.support.embeddings @ self.support.texts.T).astype(np.float32)
        return logits


@dataclass(frozen=True)
class Solved:
    """Solved references with a chosen alpha.

    Attributes:
        solver: the decomposed support.
        alpha: weight of the prediction, in logits.
    """

    solver: Solver
    alpha: float

    @classmethod
    def fit(cls, support: Support, *, basis: Float32 | None = None) -> Solved:
        """Choose alpha by cross-validation on the references.

        Args:
            support: the references.
            basis: of `whitening`.
        """
        solver = Solver(support, basis)
        return cls(solver, choose_alpha(solver))

    def offsets(self, images: ImageEmbeddings) -> Float32:
        """Compute the offsets g (B, C) of the zero-shot logits of B images."""
        solver = self.solver
        offsets: Float32 = self.alpha * (solver.kernel(images.retrieval) @ solver.weights) - solver.bias
        return offsets

    def left_out(self) -> Float32:
        """Compute the offsets (R, C) of the references, each without itself; the bias is that of all."""
        offsets: Float32 = np.float32(self.alpha) * self.solver.left_out() - self.solver.bias
        return offsets


def choose_alpha(solver: Solver, *, seed: int = 0) -> float:
    """Choose alpha by the accuracy of cross-validation, averaged over random folds and smoothed over alpha.

    With one image per class nothing can be left out. A fixed weight is taken then, a smaller one where the zero-shot
    classifier already knows most references.

    Args:
        solver: the decomposed support.
        seed: of the folds.
    """
    labels = solver.support.labels
    asked = solver.support.counts[labels] > 1
    if not asked.any():
        known = (solver.logits.argmax(axis=1) == labels).mean()
        return _KNOWN_ALPHA if known >= _KNOWN else _ONE_IMAGE
    rng = np.random.default_rng(seed)
    found = np.zeros(len(ALPHAS))
    zero_shot, right = solver.zero_shot[asked], labels[asked]
    for _ in range(_REPEATS):
        predicted = solver.folded(rng)[asked]
        found += [((zero_shot + alpha * predicted).argmax(axis=1) == right).mean() for alpha in ALPHAS]
    smooth = np.convolve(np.pad(found, 1, mode="edge"), (0.25, 0.5, 0.25), "valid")
    return ALPHAS[int(smooth.argmax())]


def _folds(labels: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Assign references (R,) to folds at random, those of a class to different ones; -1 for the only one of a class."""
    counts = np.bincount(labels)
    folds = int(np.clip(np.median(counts[counts > 1]), 2, _FOLDS))
    found = np.full(len(labels), -1, dtype=np.int64)
    for number in np.flatnonzero(counts > 1):
        own = rng.permutation(np.flatnonzero(labels == number))
        found[own] = np.arange(len(own)) % folds
    return found
