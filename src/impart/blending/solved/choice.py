"""Tuning of solved references: choose `SolvedSettings` by cross-validation on the set itself (`folds`).

Kernel, ridge, penalty and whitening are constant: to choose them too only adds noise (measured on other data sets than
those of the evaluation: `docs/reference-sets.md`).

**Closed**: logistic regression. The usual alpha is 20, or 8 where the plain model names most references correctly.
One image per name leaves nothing else to choose by. With more, alpha is chosen by accuracy, smoothed over its
neighbours in the grid. A distance from the usual one costs accuracy, the more the fewer the images: a fold leaves out
one image of each name, and with two images the other one alone is a poor guide.

**Open**: the gate on the largest prediction opens between the median and the 95% quantile of images whose own name was
left out: an unknown thing of the same kind gets such predictions. Then the floor of the z-score rises until both gates
together are open by 5% at most for the background set, and until the set does little harm: leaving the own name out
must cost less than 0.75 of what the own name gains.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from impart.blending.questions import ENOUGH, are_names, own_questions
from impart.blending.solved.blender import MOST_SOLVED, DistinctNames, Fitted, names_of
from impart.blending.solved.folds import Folded, OnProgress, folded, logistic_offsets
from impart.blending.vanilla import gate
from impart.config import SolvedSettings
from impart.encoders.base import Float32, l2_normalise
from impart.refset.refset import ReferenceSet
from impart.retrieval.near_duplicates import BACKGROUND_COPY

__all__ = ["SolvedChoice", "choose_closed", "choose_open", "opened_by", "solvable"]

ALPHAS = (4.0, 5.5, 8.0, 11.0, 16.0, 22.0, 32.0, 48.0, 64.0, 96.0)
_POWER = 0.2
_CLOSED = SolvedSettings(beta=1.0, penalty=0.1, debias=0.2)
_USUAL = 20.0  # alpha of a closed set with one image per name
_USUAL_KNOWN = 8.0  # ... that the plain model knows
_PRIOR = 0.08  # accuracy that a factor of e from the usual alpha must gain, by the square of the images per name
_KNOWN = 0.7  # accuracy from which it does
_MOST_TRIED = 1500  # references of one cross-validation
_OPEN_TO_BACKGROUND = 0.05  # largest mean of the gates
_OPEN = SolvedSettings(alpha=512.0, text_ridge=0.3, floor=3.5, ramp=3.0)
_QUANTILES = (0.5, 0.95)
_STEP = 0.05
_HARM = 0.75
_HIGHEST = 8.0  # floor above which a set is not solved
_INDEPENDENT = 1e-3  # least eigenvalue of the texts' products from which their duals are exact
_CLOSED_RIDGE = 0.01


@dataclass(frozen=True, kw_only=True)
class SolvedChoice:
    """Chosen settings, and the answers of cross-validation.

    Attributes:
        settings: the choice.
        hits: (Q,) share of the orders in which each question was answered correctly; empty without questions.
        before: (Q,) 1 where the plain encoder answers correctly.
    """

    settings: SolvedSettings
    hits: npt.NDArray[np.float64]
    before: npt.NDArray[np.float64]


def solvable(references: ReferenceSet) -> bool:
    """Whether a set can be solved: `MOST_SOLVED` images at most, of two names or more, one name of few words each."""
    if not 2 <= len(references) <= MOST_SOLVED or len(np.unique(references.images)) < len(references):
        return False
    return are_names(references.texts) and len(set(references.texts)) > 1


def choose_open(
    references: ReferenceSet,
    background: ReferenceSet | None,
    *,
    target: float,
    on_progress: OnProgress | None = None,
) -> SolvedChoice | None:
    """Choose the settings of a set for images of any kind.

    Args:
        references: a solvable set with its background statistics.
        background: unrelated images; None = the gate follows from the set alone.
        target: cosine of well encoded images with their texts.
        on_progress: called after each fold.

    Returns:
        None where names have too few images to check the set, or where no floor keeps it from harm.
    """
    start = dataclasses.replace(_OPEN, power=_POWER if background is not None else 0.0, target=target)
    trial = _Trial.of(references, start, on_progress)
    if len(trial.rows) < ENOUGH:
        return None
    low, high = np.quantile([one.unnamed.max(axis=1)[trial.rows] for one in trial.orders], _QUANTILES).round(3).tolist()
    start = dataclasses.replace(start, low=max(low, 0.0), high=max(high, low + 0.01, 0.01))
    floor = start.floor if background is None else _floor(references, background, start)
    ungated = dataclasses.replace(start, floor=0.0)
    known, unnamed = trial.added(ungated, unnamed=False), trial.added(ungated, unnamed=True)
    while floor <= _HIGHEST:
        settings = dataclasses.replace(start, floor=floor)
        hits = trial.hits(known, settings, unnamed=False)
        lost = trial.before - trial.hits(unnamed, settings, unnamed=True)
        if lost.mean() <= _HARM * (hits - trial.before).mean():
            return SolvedChoice(settings=settings, hits=hits, before=trial.before)
        floor = round(floor + _STEP, 2)
    return None


def choose_closed(
    references: ReferenceSet, *, whitened: bool, on_progress: OnProgress | None = None
) -> SolvedChoice | None:
    """Choose the settings of a closed set.

    Args:
        references: a solvable set with its background statistics.
        whitened: the statistics are those of a background set.
        on_progress: called after each fold.

    Returns:
        None where names have too few images to check the set, and more names than the embedding has numbers.
    """
    names = names_of(references)
    least = np.linalg.eigvalsh(names.texts.astype(np.float64) @ names.texts.T)[0]
    ridge = 0.0 if least >= _INDEPENDENT else _CLOSED_RIDGE
    start = dataclasses.replace(_CLOSED, power=_POWER if whitened else 0.0, text_ridge=ridge)
    v = l2_normalise(references.image_embeddings)
    known = ((v @ names.texts.T).argmax(axis=1) == names.labels).mean() >= _KNOWN
    usual = _USUAL_KNOWN if known else _USUAL
    some, rows = _with_questions(references)
    if len(rows) < ENOUGH:
        if len(names.texts) > names.texts.shape[1]:
            return None
        none = np.zeros(0)
        return SolvedChoice(settings=dataclasses.replace(start, alpha=usual), hits=none, before=none)
    asked = names_of(some)
    v, right = l2_normalise(some.image_embeddings)[rows], asked.labels[rows]
    answers = {alpha: np.zeros(len(rows)) for alpha in ALPHAS}
    fitted = {alpha: Fitted(some, dataclasses.replace(start, alpha=alpha)) for alpha in ALPHAS}
    nowhere = np.zeros((len(rows), 1), np.float32)  # z-scores: there is no gate
    orders = 0
    for alpha, found in logistic_offsets(some, asked, start, alphas=ALPHAS, on_progress=on_progress):
        added, _ = fitted[alpha].added(v, found[rows], nowhere)
        answers[alpha] += ((v + added) @ asked.texts.T).argmax(axis=1) == right
        orders += alpha == ALPHAS[0]
    means = np.array([answers[alpha].mean() for alpha in ALPHAS]) / orders
    padded = np.concatenate([means[:1], means, means[-1:]])
    smooth = padded[:-2] / 4 + padded[1:-1] / 2 + padded[2:] / 4
    per_name = len(some) / len(asked.texts)
    best = ALPHAS[int((smooth - _PRIOR / per_name**2 * np.log(np.array(ALPHAS) / usual) ** 2).argmax())]
    before = ((v @ asked.texts.T).argmax(axis=1) == right).astype(np.float64)
    return SolvedChoice(settings=dataclasses.replace(start, alpha=best), hits=answers[best] / orders, before=before)


def _with_questions(references: ReferenceSet) -> tuple[ReferenceSet, npt.NDArray[np.int64]]:
    """Take the questions alone of a large set; return it and the rows (Q,) that share their name with another."""
    own = own_questions(references).rows
    some = references if len(references) <= len(own) or len(references) <= _MOST_TRIED else references.take(own)
    labels = names_of(some).labels
    return some, np.flatnonzero(np.bincount(labels)[labels] > 1)


@dataclass(frozen=True)
class _Trial:
    """A set with its cross-validated predictions.

    Attributes:
        references: the set, or of a large one the questions alone.
        names: of it.
        rows: (Q,) rows of the questions: images that share their name with another.
        orders: predictions.
    """

    references: ReferenceSet
    names: DistinctNames
    rows: npt.NDArray[np.int64]
    orders: list[Folded]

    @classmethod
    def of(cls, references: ReferenceSet, settings: SolvedSettings, on_progress: OnProgress | None) -> _Trial:
        some, rows = _with_questions(references)
        names = names_of(some)
        orders = folded(some, names, settings, on_progress=on_progress) if len(rows) >= ENOUGH else []
        return cls(some, names, rows, orders)

    @cached_property
    def before(self) -> npt.NDArray[np.float64]:
        """(Q,) 1 where the plain encoder answers correctly."""
        return self._right(self._v[self.rows])

    def added(self, settings: SolvedSettings, *, unnamed: bool) -> list[Float32]:
        """Compute what is added (Q, D) to the embeddings, per order."""
        fitted = Fitted(self.references, settings)
        vectors = []
        for one in self.orders:
            found, z_scores = (one.unnamed, one.z_unnamed) if unnamed else (one.known, one.z_known)
            vectors.append(fitted.added(self._v[self.rows], found[self.rows], z_scores[self.rows])[0])
        return vectors

    def hits(self, added: list[Float32], settings: SolvedSettings, *, unnamed: bool) -> npt.NDArray[np.float64]:
        """Compute the share of orders (Q,) in which a question is answered correctly, under a floor."""
        total = np.zeros(len(self.rows))
        for one, vectors in zip(self.orders, added, strict=True):
            z_scores = (one.z_unnamed if unnamed else one.z_known)[self.rows]
            opened = gate(z_scores, floor=settings.floor, ramp=settings.ramp)
            total += self._right(self._v[self.rows] + vectors * opened[:, None])
        return total / len(self.orders)

    @cached_property
    def _v(self) -> Float32:
        return l2_normalise(self.references.image_embeddings)

    def _right(self, v: Float32) -> npt.NDArray[np.float64]:
        found = (v @ self.names.texts.T).argmax(axis=1)
        right: npt.NDArray[np.float64] = (found == self.names.labels[self.rows]).astype(np.float64)
        return right


def _floor(references: ReferenceSet, background: ReferenceSet, settings: SolvedSettings) -> float:
    """The lowest floor at which the gates are open by `_OPEN_TO_BACKGROUND` at most for unrelated images.

    Where none up to `_HIGHEST` is high enough, the result is above it.
    """
    z_scores, sure = _of_background(references, background, settings)
    floor = settings.floor
    while floor <= _HIGHEST and len(sure):
        if (gate(z_scores, floor=floor, ramp=settings.ramp) * sure).mean() <= _OPEN_TO_BACKGROUND:
            break
        floor = round(floor + _STEP, 2)
    return floor


def opened_by(references: ReferenceSet, background: ReferenceSet, settings: SolvedSettings) -> float:
    """Compute the mean of the gates over the background images that are not in the set."""
    z_scores, sure = _of_background(references, background, settings)
    opened = gate(z_scores, floor=settings.floor, ramp=settings.ramp) * sure
    return float(opened.mean()) if len(sure) else 0.0


def _of_background(
    references: ReferenceSet, background: ReferenceSet, settings: SolvedSettings
) -> tuple[Float32, Float32]:
    """z-scores (M, 1) and gates on the prediction (M,) of the background images that are not in the set."""
    retrieval = background.retrieval_embeddings
    sims = references.search(retrieval, 1).sims
    others = sims[:, 0] < BACKGROUND_COPY
    retrieval, sims = retrieval[others], sims[others]
    fitted = Fitted(references, settings)
    sure = fitted.sure(fitted.similar(retrieval) @ fitted.weights)
    return references.znorm.z_scores(retrieval, sims), sure
