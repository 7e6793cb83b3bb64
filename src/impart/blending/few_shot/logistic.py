"""Kernel logistic regression on the references, on top of zero-shot, from the solved weights on.

Ridge regression (`ridge`) asks that g(x) is a constant for the right class, whatever zero-shot says. Logistic
regression asks that zero-shot and g together name the references:

    p_c(x) = softmax(tau (s v . t_c + g_c(x))),  g(x) = k(x, Q) U / tau
    U minimises  - sum_i log p_{y_i}(q_i) + (penalty / 2) tr(U^T K U)

A reference that zero-shot names already weighs little, one that it confuses weighs much. tau is the trust in zero-shot.
The Hessian of the loss is at most K/2 (Boehning 1992), so that one inverse serves every step:

    U <- U + (K/2 + penalty I)^-1 (Y - P - penalty U)

The weights used are W = (1 - share) W_ridge + share U / tau. With `share` 0 they are the solved weights exactly. The
constants depend on the references per class; mode `episodes` of `impart train` learns how (`ram.form = "solved"`). tau
is scaled by cross-validation where classes have two images: it depends on how well the model knows these names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from impart.blending.few_shot.ridge import Spectrum, kernel
from impart.blending.few_shot.support import LOGIT_SCALE, Support
from impart.encoders.base import Float32, ImageEmbeddings

__all__ = ["STEPS", "Constants", "KernelLogistic", "choose_temperature", "logistic_weights", "take"]

STEPS = 12
"""Steps of the solver."""

_FACTORS = tuple(2.0 ** (power / 4) for power in range(-5, 5))
_FOLDS = 4
_PRIOR = 0.02
"""Accuracy that a factor of e on the temperature must gain; chosen on concepts held out of `images/more`."""


@dataclass(frozen=True)
class Constants:
    """Constants of a set with a certain number of references per class.

    Attributes:
        beta: sharpness of the kernel.
        ridge: lambda of the ridge regression.
        alpha: weight of its prediction, in logits.
        penalty: of the logistic regression.
        temperature: tau, on logits of scale `LOGIT_SCALE`.
        share: of the logistic weights, from 0 (the solved weights) to 1.
    """

    beta: float
    ridge: float
    alpha: float
    penalty: float
    temperature: float
    share: float


@dataclass(frozen=True)
class KernelLogistic:
    """Fitted weights of a support, by its constants as they are (see `choose_temperature`)."""

    support: Support
    constants: Constants

    @cached_property
    def weights(self) -> Float32:
        """(R, C) W, in logits per unit of the kernel."""
        (found,) = _mixed(self.support, self.constants, taus=(self.constants.temperature,))
        return found

    def offsets(self, images: ImageEmbeddings) -> Float32:
        """Compute the offsets g (B, C) of the zero-shot logits of B images."""
        return kernel(images.retrieval, self.support.retrieval, beta=self.constants.beta) @ self.weights

    def left_out(self) -> Float32:
        """Compute the offsets (R, C) of the references, each by weights fitted without it and others of its fold.

        Those of a class's only reference are fitted with it.
        """
        offsets = self.offsets(self.support.images)
        for kept, asked in _folds(self.support):
            fitted = KernelLogistic(take(self.support, kept), self.constants)
            offsets[asked] = fitted.offsets(take(self.support, asked).images)
        return offsets


def logistic_weights(
    matrix: Float32, one_hot: Float32, zero_shot: Float32, *, penalty: float, taus: Sequence[float], steps: int = STEPS
) -> Iterator[Float32]:
    """Solve for the weights U (R, C) of each temperature; one inverse serves all.

    Args:
        matrix: (R, R) kernel matrix.
        one_hot: (R, C) labels.
        zero_shot: (R, C) zero-shot logits of the references.
        penalty: above 0.
        taus: temperatures.
        steps: of the solver.
    """
    size = len(matrix)
    inverse = np.linalg.inv(matrix.astype(np.float64) / 2 + penalty * np.eye(size)).astype(np.float32)
    for tau in taus:
        weights = np.zeros_like(one_hot)
        for _ in range(steps):
            logits = np.float32(tau) * zero_shot + matrix @ weights
            logits -= logits.max(axis=1, keepdims=True)
            shares = np.exp(logits)
            shares /= shares.sum(axis=1, keepdims=True)
            weights = weights + inverse @ (one_hot - shares - np.float32(penalty) * weights)
        yield weights


def choose_temperature(support: Support, constants: Constants) -> Constants:
    """Scale the temperature by cross-validation on the references, where classes have two or more.

    Each fold leaves out one image of a class, at most four folds. A distance from the given temperature costs
    accuracy, so that few references change it little.
    """
    taus = [constants.temperature * factor for factor in _FACTORS]
    hits, questions = np.zeros(len(taus)), 0
    for kept, asked in _folds(support) if constants.share else ():
        known, new = take(support, kept), take(support, asked)
        between, plain = kernel(new.retrieval, known.retrieval, beta=constants.beta), _zero_shot(new)
        for number, weights in enumerate(_mixed(known, constants, taus=taus)):
            hits[number] += float(((plain + between @ weights).argmax(axis=1) == new.labels).sum())
        questions += len(new)
    if not questions:
        return constants
    scores = hits / questions - _PRIOR * np.log(_FACTORS) ** 2
    return replace(constants, temperature=float(taus[int(scores.argmax())]))


def take(support: Support, rows: npt.NDArray[np.int64]) -> Support:
    """Select some references; the classes stay."""
    return Support(support.embeddings[rows], support.retrieval[rows], support.labels[rows], support.texts)


def _mixed(support: Support, constants: Constants, *, taus: Sequence[float]) -> Iterator[Float32]:
    """Yield the weights W (R, C) of each temperature."""
    share = np.float32(constants.share)
    solved = np.zeros_like(support.one_hot)
    if share < 1:
        solved += np.float32(constants.alpha) * Spectrum(support, constants.beta).weights(constants.ridge)
    if not share:
        yield from (solved for _ in taus)
        return
    matrix = kernel(support.retrieval, support.retrieval, beta=constants.beta)
    found = logistic_weights(matrix, support.one_hot, _zero_shot(support), penalty=constants.penalty, taus=taus)
    for tau, weights in zip(taus, found, strict=True):
        yield (1 - share) * solved + share / np.float32(tau) * weights


def _zero_shot(support: Support) -> Float32:
    logits: Float32 = np.float32(LOGIT_SCALE) * (support.embeddings @ support.texts.T)
    return logits


def _folds(support: Support) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Yield the rows to fit and the rows to ask, for each fold; a class's only image is never asked."""
    folds = int(min(_FOLDS, support.counts.max(initial=0)))
    place = np.full(len(support), -1)
    for label in np.flatnonzero(support.counts > 1):
        own = np.flatnonzero(support.labels == label)
        place[own] = np.arange(len(own)) % folds
    for fold in range(folds):
        if (place == fold).any():
            yield np.flatnonzero(place != fold), np.flatnonzero(place == fold)
