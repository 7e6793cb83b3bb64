"""The few-shot methods by name, and the choice of their constants.

Constants are chosen by accuracy: of leave-one-out on the references, of cross-validation that leaves out one reference
per class at a time (folds), or on validation images. Of equally accurate constants those with the higher mean
log-probability of the right class are chosen, then the first.

Leave-one-out is biased: the class of the left-out reference has one reference fewer than the others, so that it finds
smaller weights than are best. Folds have no such bias, but fit with one reference fewer per class.

With one reference per class both have nothing to choose by. Then a method has fixed constants, and alpha such that the
offsets of the references vary over the classes a quarter as much as their zero-shot logits. This share was chosen on
instruments30, sea_animals and sports22: named images, no evaluation data. ProKeR has no alpha and is chosen by
leave-one-out also then: the class that is left out gets the mean offset of the others (`Support.without_singles`).

Every method is a constant part plus alpha times another, so that one prediction serves all values of alpha.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice, product
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from impart.blending.few_shot.ape import Ape, Refined
from impart.blending.few_shot.gda import Gda
from impart.blending.few_shot.proker import ProKeR
from impart.blending.few_shot.prototypes import Prototypes
from impart.blending.few_shot.ridge import KernelRidge, Spectrum
from impart.blending.few_shot.support import LOGIT_SCALE, FewShot, OffsetMethod, Support
from impart.blending.few_shot.timo import Guided, Timo
from impart.blending.few_shot.tip_adapter import TipAdapter
from impart.blending.few_shot.transclip import TransClip
from impart.encoders.base import Float32, ImageEmbeddings

__all__ = ["FAMILIES", "Chosen", "MethodFamily", "Labelled", "choose", "constants_of"]


def _powers(first: int, last: int) -> tuple[float, ...]:
    return tuple(2.0**power for power in range(first, last + 1))


@dataclass(frozen=True, kw_only=True)
class MethodFamily:
    """A few-shot method with the constants to choose from.

    Attributes:
        title: its name in tables.
        source: paper and venue.
        shapes: support -> the method with alpha 1, for each combination of its other constants.
        single: the same with fixed constants, for one reference per class; None = leave-one-out.
        alphas: values of alpha.
        constant: whether the method with alpha 0 differs from zero-shot.
        transductive: whether it needs all test images at once; such a method has no `left_out`, and is no encoder.
    """

    title: str
    source: str
    shapes: Callable[[Support], Iterable[OffsetMethod]]
    single: Callable[[Support], OffsetMethod] | None = None
    alphas: tuple[float, ...] = (1.0,)
    constant: bool = False
    transductive: bool = False


_BETAS = (0.5, 1.0, 2.0, 3.5, 5.5, 8.0, 12.0, 18.0)
_LAMBDAS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
_SHARE = 0.25  # of the spread of zero-shot logits, for one reference per class
_CACHE_BETAS = (1.0, 2.0, 3.5, 5.5, 8.0, 12.0, 18.0, 25.0)


def _spectra(support: Support) -> Iterable[tuple[Spectrum, float]]:
    return ((spectrum, lam) for spectrum in (Spectrum(support, beta) for beta in _BETAS) for lam in _LAMBDAS)


FAMILIES: Mapping[str, MethodFamily] = {
    "tip-adapter": MethodFamily(
        title="Tip-Adapter",
        source="Zhang et al., ECCV 2022",
        shapes=lambda support: (TipAdapter(support, beta, 1.0) for beta in _CACHE_BETAS),
        single=lambda support: TipAdapter(support, 5.5, 1.0),
        alphas=_powers(0, 12),
    ),
    "ape": MethodFamily(
        title="APE",
        source="Zhu et al., ICCV 2023",
        shapes=lambda support: (
            Ape(refined, beta, gamma, 1.0)
            for refined in (Refined(support, share) for share in (0.5, 0.75))
            for beta, gamma in product(_CACHE_BETAS, (0.0, 0.3, 1.0))
        ),
        single=lambda support: Ape(Refined(support, 0.75), 5.5, 0.3, 1.0),
        alphas=_powers(-8, 12),
    ),
    "gda": MethodFamily(
        title="GDA",
        source="Wang et al., ICLR 2024",
        shapes=lambda support: (Gda(support, 1.0),),
        single=lambda support: Gda(support, 1.0),
        alphas=_powers(-14, 6),
    ),
    "timo": MethodFamily(
        title="TIMO",
        source="Li et al., AAAI 2025",
        shapes=lambda support: (Timo(Guided(support, gamma), 1.0) for gamma in (1.0, 50.0, 100.0)),
        single=lambda support: Timo(Guided(support, 50.0), 1.0),
        alphas=_powers(-14, 6),
        constant=True,
    ),
    "proker": MethodFamily(
        title="ProKeR",
        source="Bendou et al., CVPR 2025",
        shapes=lambda support: (ProKeR(spectrum, lam) for spectrum, lam in _spectra(support)),
    ),
    "prototypes": MethodFamily(
        title="class prototypes",
        source="Snell et al., NeurIPS 2017, with zero-shot",
        shapes=lambda support: (Prototypes(support, 1.0),),
        single=lambda support: Prototypes(support, 1.0),
        alphas=tuple(2.0 ** (power / 2) for power in range(0, 21)),
    ),
    "ridge": MethodFamily(
        title="kernel ridge",
        source="kernel ridge regression, with zero-shot",
        shapes=lambda support: (KernelRidge(spectrum, lam, 1.0) for spectrum, lam in _spectra(support)),
        single=lambda support: KernelRidge(Spectrum(support, 2.0), 0.1, 1.0),
        alphas=_powers(0, 10),
    ),
    "transclip": MethodFamily(
        title="TransCLIP-FS (transductive)",
        source="Zanella et al., NeurIPS 2024",
        shapes=lambda support: (TransClip(support, gamma) for gamma in (0.02, 0.002, 0.01, 0.2)),
        transductive=True,
    ),
}
"""Methods by the names of `--methods`; a transductive one has its first shape where no validation images are given."""


@dataclass(frozen=True)
class Labelled:
    """Images with known classes, to choose constants on.

    Attributes:
        images: B images.
        labels: (B,) class numbers.
    """

    images: ImageEmbeddings
    labels: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Chosen:
    """A method with its chosen constants.

    Attributes:
        method: as fitted to all references.
        constants: by name.
        accuracy: by which they were chosen, a fraction of 1; None = nothing could be chosen by.
    """

    method: OffsetMethod
    constants: Mapping[str, float]
    accuracy: float | None


def choose(
    family: MethodFamily, support: Support, validation: Labelled | None = None, *, folds: bool = False
) -> Chosen:
    """Choose the constants of a method.

    Args:
        family: the method.
        support: the references.
        validation: images to choose by; None = the references.
        folds: without validation images, leave out one reference per class at a time, not one reference.
    """
    if validation is None and family.transductive:
        first = next(iter(family.shapes(support)))
        return Chosen(first, constants_of(first), None)
    alone = validation is None and support.counts.max() == 1
    if alone and family.single is not None:
        method = family.single(support)
        method = _with_alpha(method, _SHARE * _spread_ratio(method, support))
        return Chosen(method, constants_of(method), None)
    trials = _folds(support) if folds and validation is None and not alone else [_Trial.of(support, validation)]
    logits = np.concatenate([trial.logits for trial in trials])
    labels = np.concatenate([trial.labelled.labels for trial in trials])
    best: tuple[float, float] = (-1.0, -np.inf)
    chosen: tuple[int, float] = (0, 1.0)
    for number, fitted in enumerate(zip(*(family.shapes(trial.support) for trial in trials), strict=True)):
        pairs = list(zip(trials, fitted, strict=True))
        slope = np.concatenate([trial.offsets(shape) for trial, shape in pairs])
        fixed = np.zeros((1, 1), dtype=np.float32)
        if family.constant:
            fixed = np.concatenate([trial.offsets(_with_alpha(shape, 0.0)) for trial, shape in pairs])
            slope = slope - fixed
        for alpha in family.alphas:
            scores = np.asarray(logits + fixed + alpha * slope, dtype=np.float32)
            accuracy = float((scores.argmax(axis=1) == labels).mean())
            if accuracy < best[0]:
                continue
            found = (accuracy, _log_probability(scores, labels))
            if found > best:
                best, chosen = found, (number, alpha)
    method = _with_alpha(next(islice(family.shapes(support), chosen[0], None)), chosen[1])
    return Chosen(method, constants_of(method), best[0])


@dataclass(frozen=True)
class _Trial:
    """References to fit a method to, and labelled images to try it on; `left_out` = these are the references."""

    support: Support
    labelled: Labelled
    left_out: bool

    @classmethod
    def of(cls, support: Support, validation: Labelled | None) -> _Trial:
        if validation is None:
            return cls(support, Labelled(support.images, support.labels), left_out=True)
        return cls(support, validation, left_out=False)

    @property
    def logits(self) -> Float32:
        return (LOGIT_SCALE * self.labelled.images.embeddings @ self.support.texts.T).astype(np.float32)

    def offsets(self, method: OffsetMethod) -> Float32:
        if self.left_out:
            return self.support.without_singles(cast(FewShot, method).left_out())
        return method.offsets(self.labelled.images)


def _folds(support: Support) -> list[_Trial]:
    """Leave out the first reference of each class, the second, and so on; a class keeps at least one reference."""
    order = np.zeros(len(support), dtype=np.int64)  # number of a reference within its class
    for number in range(len(support.texts)):
        own = np.flatnonzero(support.labels == number)
        order[own] = np.arange(len(own))
    trials = []
    for fold in range(int(support.counts.max())):
        out = (order == fold) & (support.counts[support.labels] > 1)
        images = ImageEmbeddings(support.embeddings[out], support.retrieval[out])
        trials.append(_Trial(support.only(~out), Labelled(images, support.labels[out]), left_out=False))
    return trials


def _spread_ratio(method: OffsetMethod, support: Support) -> float:
    """Compute how much more the zero-shot logits of the references vary over the classes than offsets with alpha 1."""
    logits = LOGIT_SCALE * support.embeddings @ support.texts.T
    trial = _Trial.of(support, None)
    slope = trial.offsets(_with_alpha(method, 1.0)) - trial.offsets(_with_alpha(method, 0.0))
    spread = [float((rows - rows.mean(axis=1, keepdims=True)).std()) for rows in (logits, slope)]
    return spread[0] / max(spread[1], 1e-12)


def constants_of(method: Any) -> dict[str, float]:
    """Return the constants of a method by name, also those of what it was computed from."""
    found: dict[str, float] = {}
    for item in dataclasses.fields(method):
        value = getattr(method, item.name)
        if isinstance(value, float):
            found[item.name] = value
        elif dataclasses.is_dataclass(value) and not isinstance(value, Support):
            found |= constants_of(value)
    return found


def _with_alpha(method: OffsetMethod, alpha: float) -> OffsetMethod:
    return cast(OffsetMethod, dataclasses.replace(cast(Any, method), alpha=alpha))


def _log_probability(scores: Float32, labels: npt.NDArray[np.int64]) -> float:
    top = scores.max(axis=1, keepdims=True)
    right = scores[np.arange(len(labels)), labels] - top[:, 0]
    return float((right - np.log(np.exp(scores - top).sum(axis=1))).mean())
