"""Solved references: kernel regression of the names on the reference images, as an encoder.

    f(x) = k(x, Q) (K + lambda I)^-1 Y,    k(a, b) = exp(-beta (1 - a . b))
    v' = v + (1 / s) sum_c (alpha f_c(x) - b_c) d_c

Q are the retrieval embeddings of the R references, Y their names (one-hot over the C distinct texts), d the dual texts
(`impart.blending.few_shot.support`) and s = 100. Vanilla counts neighbours that look alike several times, and the texts
that it adds are correlated. Here references that are alike share their weight, and an amount of d_c changes the cosine
with the text t_c alone. f_c is near 1 for images of the name c and near 0 for others.

Retrieval embeddings are whitened in part by the second moments M of the background set: q M^(-power), normalised.

**Closed sets** need no gate. b balances the zero-shot classes over the references (`debias`). With `text_ridge` 0 the
encoder gives the logits of the classifier, s v . t_c - b_c + alpha f_c. With a `penalty` above 0 the weights are not
those of ridge regression. They let zero-shot and f together name the references, by logistic regression at temperature
1 / alpha (`few_shot/logistic.py`): f(x) = k(x, Q) W, and p_c is the softmax of (s v . t_c - b_c) / alpha + f_c. A
reference that zero-shot names already weighs little.

**Open sets** have a gate on the z-score of the nearest reference, as Vanilla has, and one on the largest f, from `low`
to `high`: an image that no name fits is not changed. A target bounds what is added: v is turned until its cosine with
the text of the predicted name is the target, and no further.

As an explanation, reference i adds alpha / s k(x, q_i) W_ic to the product with the text of the predicted name c, W the
solved weights. These amounts have signs, and the K largest are named.
"""

from __future__ import annotations

import dataclasses
import json
import warnings
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from impart.blending.base import Amounts
from impart.blending.few_shot.logistic import logistic_weights
from impart.blending.few_shot.ridge import kernel
from impart.blending.few_shot.support import LOGIT_SCALE, dual_texts
from impart.blending.questions import plain_text
from impart.blending.vanilla import gate
from impart.config import SolvedSettings
from impart.encoders.base import Encoder, Float32, ImageEmbeddings, l2_normalise
from impart.errors import ImpartWarning, ReferenceSetError
from impart.refset.refset import ReferenceSet
from impart.retrieval.nearest import Neighbours
from impart.retrieval.znorm import ZNorm

__all__ = [
    "MOST_SOLVED",
    "Fitted",
    "DistinctNames",
    "Solved",
    "balanced_logits",
    "names_of",
    "own_kernel",
    "solve",
    "whitening",
    "with_solved_weights",
    "within_name",
]

MOST_SOLVED = 4096
"""Largest set that is solved: time grows with the cube of its size."""

_PART = 512  # images at a time
_EPSILON = 0.1  # share of the mean eigenvalue that is added before whitening
_RARE = 1e-4  # smallest share of a class in the balance


@dataclass(frozen=True)
class DistinctNames:
    """Distinct texts of a set.

    Attributes:
        labels: (R,) number of the text of each row.
        texts: (C, D) embeddings, L2-normalised: the mean of the rows of a text.
    """

    labels: npt.NDArray[np.int64]
    texts: Float32

    @cached_property
    def one_hot(self) -> Float32:
        """(R, C) 1 at the text of each row."""
        return np.eye(len(self.texts), dtype=np.float32)[self.labels]

    def balance(self, embeddings: Float32, *, temperature: float) -> Float32:
        """Compute b (C,), by which the zero-shot logits of classes are too high over images (R, D).

        b_c is the logarithm of the mean probability of the class over the images, each of the set's names with equal
        weight, at a temperature below 1 so that few images are enough. At 0, b is 0. The images are those of `labels`.
        """
        if not temperature:
            return np.zeros(len(self.texts), np.float32)
        logits = temperature * LOGIT_SCALE * (embeddings @ self.texts.T)
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        weights = 1 / (np.bincount(self.labels)[self.labels] * len(self.texts))
        found: Float32 = (np.log(weights @ shares + _RARE) / temperature).astype(np.float32)
        return found


def names_of(references: ReferenceSet) -> DistinctNames:
    """Number the distinct texts of a set, in the order of their first rows; case and a leading article do not count."""
    numbers: dict[str, int] = {}
    labels = np.array([numbers.setdefault(plain_text(text), len(numbers)) for text in references.texts], dtype=np.int64)
    one_hot = np.eye(len(numbers), dtype=np.float32)[labels]
    return DistinctNames(labels, l2_normalise(one_hot.T @ references.text_embeddings))


def whitening(background: ZNorm, *, power: float) -> Float32:
    """Compute the matrix (Q, Q) that whitens retrieval embeddings in part: the power -`power` of the second moments."""
    if not power:
        return np.eye(len(background.mean), dtype=np.float32)
    moments = background.covariance.astype(np.float64) + np.outer(background.mean, background.mean)
    values, vectors = np.linalg.eigh(moments)
    values = np.maximum(values, 0)
    matrix = (vectors * (values + _EPSILON * max(values.mean(), 1e-12)) ** -power) @ vectors.T
    found: Float32 = matrix.astype(np.float32)
    return found


def own_kernel(references: ReferenceSet, settings: SolvedSettings) -> npt.NDArray[np.float64]:
    """Compute the kernel matrix K (R, R) of a set."""
    matrix = whitening(references.znorm, power=settings.power)
    own = l2_normalise(references.retrieval_embeddings @ matrix).astype(np.float64)
    found: npt.NDArray[np.float64] = np.exp(settings.beta * (own @ own.T - 1))
    return found


def solve(references: ReferenceSet, settings: SolvedSettings) -> Float32:
    """Compute the weights W (R, C) of a set: (K + lambda I)^-1 Y, or with a penalty those of logistic regression."""
    names, matrix = names_of(references), own_kernel(references, settings)
    if settings.penalty:
        zero_shot = balanced_logits(references, names, settings)
        small = matrix.astype(np.float32)
        taus = (1 / settings.alpha,)
        (found,) = logistic_weights(small, names.one_hot, zero_shot, penalty=settings.penalty, taus=taus)
        return found
    matrix += settings.lam * np.eye(len(matrix))
    weights: Float32 = np.linalg.solve(matrix, names.one_hot.astype(np.float64)).astype(np.float32)
    return weights


def balanced_logits(references: ReferenceSet, names: DistinctNames, settings: SolvedSettings) -> Float32:
    """Compute s v . t_c - b_c (R, C) of the images of a set."""
    own = l2_normalise(references.image_embeddings)
    logits: Float32 = LOGIT_SCALE * (own @ names.texts.T) - names.balance(own, temperature=settings.debias)
    return logits.astype(np.float32, copy=False)


def with_solved_weights(references: ReferenceSet, settings: SolvedSettings) -> ReferenceSet:
    """Solve a set and return it with its weights."""
    return references.with_solved(dataclasses.asdict(settings), solve(references, settings))


@dataclass(frozen=True)
class Fitted:
    """A set with its solved weights: those stored with it, or solved at the first image.

    Attributes:
        references: the set.
        settings: as tuned.
    """

    references: ReferenceSet
    settings: SolvedSettings

    def similar(self, retrieval: Float32) -> Float32:
        """Compute k(x, Q) (B, R) of retrieval embeddings (B, Q)."""
        return kernel(l2_normalise(retrieval @ self._whitening), self._own, beta=self.settings.beta)

    def added(self, v: Float32, found: Float32, z_scores: Float32) -> tuple[Float32, Float32]:
        """Compute what is added (B, D) to image embeddings, and the share (B,) of it that gates and target leave.

        Args:
            v: (B, D), L2-normalised.
            found: f (B, C), predictions of the names.
            z_scores: (B, K) z-scores of the nearest references.
        """
        options = self.settings
        offsets = (np.float32(options.alpha) * found - self._bias) / np.float32(LOGIT_SCALE)
        added: Float32 = (offsets @ self._duals).astype(np.float32, copy=False)
        share = gate(z_scores, floor=options.floor, ramp=options.ramp) * self.sure(found)
        if options.target > 0:
            share = share * within_name(v, added, self.names.texts[found.argmax(axis=1)], target=options.target)
        share = share.astype(np.float32, copy=False)
        return added * share[:, None], share

    def sure(self, found: Float32) -> Float32:
        """Compute the gate (B,) on the largest prediction, from 0 to 1."""
        if not self.settings.high:
            return np.ones(len(found), np.float32)
        low, high = self.settings.low, self.settings.high
        share: Float32 = np.clip((found.max(axis=1) - low) / (high - low), 0, 1).astype(np.float32)
        return share

    @cached_property
    def names(self) -> DistinctNames:
        return names_of(self.references)

    @cached_property
    def weights(self) -> Float32:
        """(R, C); a damaged file costs a warning, since the rows have all that it is made from."""
        try:
            stored = self.references.solved_weights
        except ReferenceSetError as error:
            warnings.warn(f"solved again from the rows of the set: {error}", ImpartWarning, stacklevel=2)
            stored = None
        fits = self.references.manifest.solved == dataclasses.asdict(self.settings)
        return stored if stored is not None and fits else solve(self.references, self.settings)

    @cached_property
    def _whitening(self) -> Float32:
        return whitening(self.references.znorm, power=self.settings.power)

    @cached_property
    def _own(self) -> Float32:
        return l2_normalise(self.references.retrieval_embeddings @ self._whitening)

    @cached_property
    def _duals(self) -> Float32:
        return dual_texts(self.names.texts, ridge=self.settings.text_ridge)

    @cached_property
    def _bias(self) -> Float32:
        own = l2_normalise(self.references.image_embeddings)
        return self.names.balance(own, temperature=self.settings.debias)


@dataclass(frozen=True)
class Solved:
    """Blender by solved references.

    Example:
        >>> from impart import ReferenceSet
        >>> unit = np.eye(3, dtype=np.float32)
        >>> references = ReferenceSet.from_arrays(
        ...     ["a dog", "a tree"],
        ...     image=unit[:2],
        ...     text=unit[1:],
        ...     retrieval=unit[:2],
        ...     encoder_id="mini",
        ...     encoder_fingerprint="0123456789abcdef",
        ... )
        >>> solved = Solved(SolvedSettings(beta=8, alpha=100, power=0))
        >>> images = ImageEmbeddings(unit[:1], unit[:1])
        >>> nearest = references.search(unit[:1], 2)
        >>> added = solved.amounts(images, nearest, nearest.sims, references).added
        >>> [round(float(number), 1) for number in added[0]]  # towards "a dog"
        [0.0, 0.9, 0.0]
    """

    settings: SolvedSettings
    _kept: list[Fitted] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def name(self) -> str:
        return "solved"

    @property
    def k(self) -> int:
        """K, pairs that are named as an explanation."""
        return self.settings.k

    @property
    def digest(self) -> str:
        """JSON of the settings; the weights follow from them and the set."""
        return json.dumps(dataclasses.asdict(self.settings), sort_keys=True)

    def check_encoder(self, base: Encoder) -> None:
        """Accept any encoder: the set itself is checked."""

    def fitted(self, references: ReferenceSet) -> Fitted:
        """Return a set with its solved weights; those of the last set are kept."""
        kept = next((one for one in self._kept if one.references is references), None)
        if kept is None:
            kept = Fitted(references, self.settings)
            self._kept[:] = [kept]
        return kept

    def amounts(
        self, images: ImageEmbeddings, neighbours: Neighbours, z_scores: Float32, references: ReferenceSet
    ) -> Amounts:
        """Compute the dense blend, and the K largest contributions to the product with the predicted name's text."""
        shape = neighbours.ids.shape  # (B, K)
        added = np.zeros_like(images.embeddings, dtype=np.float32)
        ids, shares = np.full(shape, -1, np.int32), np.zeros(shape, np.float32)
        fitted = self.fitted(references)
        for first in range(0, len(added) if len(references) else 0, _PART):
            part = slice(first, first + _PART)
            similar = fitted.similar(images.retrieval[part])
            found = similar @ fitted.weights  # (b, C)
            added[part], share = fitted.added(images.embeddings[part], found, z_scores[part])
            amounts = similar * fitted.weights[:, found.argmax(axis=1)].T  # (b, R)
            amounts *= share[:, None] * np.float32(self.settings.alpha / LOGIT_SCALE)
            most = np.argsort(-np.abs(amounts), axis=1, kind="stable")[:, : shape[1]]
            ids[part, : most.shape[1]] = most
            shares[part, : most.shape[1]] = np.take_along_axis(amounts, most, axis=1)
        ids[shares == 0] = -1
        return Amounts(np.zeros_like(shares), shares, added, ids)


def within_name(v: Float32, added: Float32, texts: Float32, *, target: float) -> Float32:
    """Compute the factors that limit added vectors, so that they bring v to at most the target cosine with a text.

    Args:
        v: (B, D), L2-normalised.
        added: (B, D).
        texts: (B, D), L2-normalised: of the predicted names.
        target: cosine, above 0 and below 1.

    Returns:
        (B,) factors from 0 to 1.

    >>> v, t = np.array([[1, 0]], np.float32), np.array([[0, 1]], np.float32)
    >>> moved = v + within_name(v, 2 * t, t, target=0.6)[:, None] * 2 * t
    >>> (moved / np.linalg.norm(moved)).round(3).tolist()
    [[0.800000011920929, 0.6000000238418579]]
    """
    near, rise = (v * texts).sum(axis=1), (added * texts).sum(axis=1)
    along, length = (v * added).sum(axis=1), (added * added).sum(axis=1)
    # (near + x rise)^2 = target^2 (1 + 2 x along + x^2 length), its smallest positive root x
    constant = near**2 - target**2
    half = near * rise - target**2 * along
    inside = half**2 - (rise**2 - target**2 * length) * constant
    below = half + np.sqrt(np.maximum(inside, 0))
    reached = (inside >= 0) & (below > 0) & (rise > 0) & (constant < 0)
    factors = np.where(reached, -constant / np.where(below > 0, below, 1), 1)
    factors = np.where(near >= target, 0, np.clip(factors, 0, 1))
    return factors.astype(np.float32)
