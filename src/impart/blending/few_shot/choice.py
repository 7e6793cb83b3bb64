"""The few-shot methods by name, and the choice of their constants.

Constants are chosen by accuracy: of leave-one-out on the references, or on validation images. Of equally accurate constants
those with the higher mean log-probability of the right class are chosen, then the first. A left-out reference that is the
only one of its class gets the mean offset of the other classes for its own (`Support.without_singles`): with one image per
class it can be chosen by its name, and offsets that are too strong cost accuracy.

Every method is a constant part plus alpha times another, so that one leave-one-out serves all values of alpha.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from impart.blending.few_shot.ape import Ape, Refined
from impart.blending.few_shot.gda import Gda
from impart.blending.few_shot.proker import ProKeR
from impart.blending.few_shot.prototypes import Prototypes
from impart.blending.few_shot.ridge import KernelRidge, Spectrum
from impart.blending.few_shot.support import LOGIT_SCALE, FewShot, Support
from impart.blending.few_shot.timo import Guided, Timo
from impart.blending.few_shot.tip_adapter import TipAdapter
from impart.blending.few_shot.transclip import TransClip
from impart.encoders.base import Float32, ImageEmbeddings

__all__ = ["FAMILIES", "Chosen", "Family", "Labelled", "choose", "constants_of"]


def _powers(first: int, last: int) -> tuple[float, ...]:
    return tuple(2.0**power for power in range(first, last + 1))


@dataclass(frozen=True, kw_only=True)
class Family:
    """A few-shot method with the constants to choose from.

    Attributes:
        title: its name in tables.
        source: paper and venue.
        shapes: support -> the method with alpha 1, for each combination of its other constants.
        alphas: values of alpha.
        constant: whether the method with alpha 0 differs from zero-shot.
        transductive: whether it needs all test images at once; such a method has no `left_out`, and is no encoder.
    """

    title: str
    source: str
    shapes: Callable[[Support], Iterable[FewShot]]
    alphas: tuple[float, ...] = (1.0,)
    constant: bool = False
    transductive: bool = False


_BETAS = (0.5, 1.0, 2.0, 3.5, 5.5, 8.0, 12.0, 18.0)
_LAMBDAS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
_CACHE_BETAS = (1.0, 2.0, 3.5, 5.5, 8.0, 12.0, 18.0, 25.0)


def _spectra(support: Support) -> Iterable[tuple[Spectrum, float]]:
    return ((spectrum, lam) for spectrum in (Spectrum(support, beta) for beta in _BETAS) for lam in _LAMBDAS)


FAMILIES: Mapping[str, Family] = {
    "tip-adapter": Family(
        title="Tip-Adapter",
        source="Zhang et al., ECCV 2022",
        shapes=lambda support: (TipAdapter(support, beta, 1.0) for beta in _CACHE_BETAS),
        alphas=_powers(0, 12),
    ),
    "ape": Family(
        title="APE",
        source="Zhu et al., ICCV 2023",
        shapes=lambda support: (
            Ape(refined, beta, gamma, 1.0)
            for refined in (Refined(support, share) for share in (0.5, 0.75))
            for beta, gamma in product(_CACHE_BETAS, (0.0, 0.3, 1.0))
        ),
        alphas=_powers(-8, 12),
    ),
    "gda": Family(
        title="GDA",
        source="Wang et al., ICLR 2024",
        shapes=lambda support: (Gda(support, 1.0),),
        alphas=_powers(-14, 6),
    ),
    "timo": Family(
        title="TIMO",
        source="Li et al., AAAI 2025",
        shapes=lambda support: (Timo(Guided(support, gamma), 1.0) for gamma in (1.0, 50.0, 100.0)),
        alphas=_powers(-14, 6),
        constant=True,
    ),
    "proker": Family(
        title="ProKeR",
        source="Bendou et al., CVPR 2025",
        shapes=lambda support: (ProKeR(spectrum, lam) for spectrum, lam in _spectra(support)),
    ),
    "prototypes": Family(
        title="class prototypes",
        source="Snell et al., NeurIPS 2017, with zero-shot",
        shapes=lambda support: (Prototypes(support, 1.0),),
        alphas=tuple(2.0 ** (power / 2) for power in range(0, 21)),
    ),
    "ridge": Family(
        title="kernel ridge",
        source="kernel ridge regression, with zero-shot",
        shapes=lambda support: (KernelRidge(spectrum, lam, 1.0) for spectrum, lam in _spectra(support)),
        alphas=_powers(0, 10),
    ),
    "transclip": Family(
        title="TransCLIP-FS (transductive)",
        source="Zanella et al., NeurIPS 2024",
        shapes=lambda support: (TransClip(support, gamma) for gamma in (0.02, 0.002, 0.01, 0.2)),
        transductive=True,
    ),
}
"""Methods by the names of `--methods`. The first shape of a transductive method is used where nothing can be chosen by."""


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

    method: FewShot
    constants: Mapping[str, float]
    accuracy: float | None


def choose(family: Family, support: Support, validation: Labelled | None = None) -> Chosen:
    """Choose the constants of a method.

    Args:
        family: the method.
        support: the references.
        validation: images to choose by; None = leave-one-out on the references.
    """
    if validation is None and family.transductive:
        first = next(iter(family.shapes(support)))
        return Chosen(first, constants_of(first), None)
    images, labels = (support.images, support.labels) if validation is None else (validation.images, validation.labels)
    logits: Float32 = LOGIT_SCALE * images.embeddings @ support.texts.T
    best: tuple[float, float] = (-1.0, -np.inf)
    chosen: FewShot | None = None
    for shape in family.shapes(support):
        fixed = _offsets(_with_alpha(shape, 0.0), support, validation) if family.constant else np.float32(0)
        slope = _offsets(shape, support, validation) - fixed
        for alpha in family.alphas:
            scores = logits + fixed + np.float32(alpha) * slope
            accuracy = float((scores.argmax(axis=1) == labels).mean())
            if accuracy < best[0]:
                continue
            found = (accuracy, _log_probability(scores, labels))
            if found > best:
                best, chosen = found, _with_alpha(shape, alpha)
    assert chosen is not None, family.title
    return Chosen(chosen, constants_of(chosen), best[0])


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


def _with_alpha(method: FewShot, alpha: float) -> FewShot:
    return cast(FewShot, dataclasses.replace(cast(Any, method), alpha=alpha))


def _offsets(method: FewShot, support: Support, validation: Labelled | None) -> Float32:
    return support.without_singles(method.left_out()) if validation is None else method.offsets(validation.images)


def _log_probability(scores: Float32, labels: npt.NDArray[np.int64]) -> float:
    top = scores.max(axis=1, keepdims=True)
    right = scores[np.arange(len(labels)), labels] - top[:, 0]
    return float((right - np.log(np.exp(scores - top).sum(axis=1))).mean())
