"""Tuning: choose the blending settings of a reference set from the set alone, without test items or target labels.

**The gate** is set by the z-score of an image's nearest reference: its similarity in standard deviations above the mean
similarity to the background set (`impart.retrieval.znorm`; a model may come with a background set). Nothing is added
below a floor of four, everything from seven on. A large set, or one of common things, is near to many background
images: its floor rises until the gate is open for them by 5% on average. Cosines would need another gate for every set
and every kind of image; z-scores do not.

**The target** is the cosine with their texts of images that the model encodes well: the upper quarter of the background
set has a higher one. Taught images come as near to their names as that, and no nearer.

**The weights** are chosen by leave-one-out: every reference image is classified among the set's own texts with its own
rows masked, so that only the other rows can help. The usual weights stay unless others are better by more than the
standard error of the paired difference. Augmentation stays off unless the gain is larger than its standard error: no
harm.

In a **closed set** every image to come shows one of the things that the set names, so no other image can be harmed: no
gate, no target, weights as large as leave-one-out finds best, and off only where it finds a loss.

A set that names each thing once cannot be checked: with the own row masked, no row has the right text. It gets the
usual weights where it teaches names that are new to the model. It stays off where the plain model classifies most of
its images correctly, among its own names and those of the background set.

**Solved references** (`impart.blending.solved`) are taken in place of Vanilla where a set can be solved: names of few
words, one per image, in a set that is not too large. In an open set they must be better than no augmentation by more
than the standard error; Vanilla is not asked, since only they are held to no harm. In a closed set they must not be
worse than no augmentation, nor than Vanilla by more than the standard error. Vanilla's settings stay beside them.

A set of one image is never blended with the weights of the paper, which have no gate: it is the nearest reference of
every image, teaches nothing, and lowers other searches.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from impart.blending.questions import ENOUGH, LeaveOneOut, leave_one_out
from impart.blending.solved.blender import with_solved_weights
from impart.blending.solved.choice import SolvedChoice, choose_closed, choose_open, opened_by, solvable
from impart.blending.solved.folds import OnProgress
from impart.blending.vanilla import gate
from impart.config import SolvedSettings, VanillaSettings
from impart.encoders.base import Float32, l2_normalise
from impart.encoders.bundled import bundled
from impart.errors import EncoderMismatchError, ReferenceSetError
from impart.refset.refset import ReferenceSet
from impart.retrieval.near_duplicates import BACKGROUND_COPY, SAME_TEXT
from impart.retrieval.threads import one_blas_thread
from impart.retrieval.znorm import ZNorm

__all__ = ["CLOSED", "OFF", "USUAL", "Tuned", "bundled_background", "gated_if_single", "tune"]

USUAL = VanillaSettings(k=3, w_img=0.0, w_txt=0.5, tau=0.05, floor=4.0, ramp=3.0)
"""Settings of a set unless leave-one-out clearly prefers others; the target is that of the background set.

Image embeddings are not added: they make an image more like similar images, which adds no name and blurs its other
content.
"""

CLOSED = VanillaSettings(k=8, w_img=0.0, w_txt=0.5, tau=0.05)
"""Settings of a closed set unless leave-one-out clearly prefers others."""

OFF = VanillaSettings(k=1, w_img=0.0, w_txt=0.0)
"""No augmentation."""

_WEIGHTS = ((0.0, 0.25), (0.0, 0.5))
_CLOSED_WEIGHTS = ((0.0, 0.25), (0.0, 0.5), (0.0, 1.0), (0.25, 0.5), (0.5, 1.0), (0.5, 2.0), (1.0, 2.0))
_KS = (1, 2, 3, 5, 8)
_CLOSED_KS = (3, 5, 8, 16)
_TAUS = (0.02, 0.05, 0.1)
_MOST = max(_KS + _CLOSED_KS)
_OPEN = 0.05  # largest mean gate of background images
_WELL_ENCODED = 0.75  # quantile of the background's cosines of images with their texts that becomes the target
_STEP = 0.05  # by which the floor rises
_KNOWN = 0.6  # plain accuracy on an unchecked set above which nothing is added


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """Chosen settings and what they were chosen by; accuracies are fractions of 1.

    Attributes:
        references: the set with the background statistics and these settings; to be saved.
        settings: the choice; `OFF` where augmentation does not help.
        rule: `leave-one-out` (Vanilla) or `cross-validation` (solved references), or for a set that cannot be checked
            `usual weights` or `known already`.
        items: reference images classified.
        texts: T, texts to choose from.
        before: accuracy with the plain encoder.
        after: accuracy with the settings, own rows masked.
        background: images of the background set; 0 = none was given.
        background_gate: mean gate of the background images, 0 to 1; 0 where augmentation is off.
    """

    references: ReferenceSet
    settings: VanillaSettings | SolvedSettings
    rule: str
    items: int
    texts: int
    before: float
    after: float
    background: int = 0
    background_gate: float = 0.0


def tune(
    references: ReferenceSet,
    *,
    background: ReferenceSet | None = None,
    closed: bool = False,
    solve: bool = True,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> Tuned:
    """Choose the settings of a reference set, solve it where that is better, and give it its background statistics.

    Args:
        references: the set.
        background: unrelated images, embedded by the same encoder; they calibrate similarities and give the target.
            None = the set's own images, which gate well only where they show many different things.
        closed: every image to come shows one of the things that the set names: no gate and no target.
        solve: solve the set where that is better; else it is blended by Vanilla, which versions before can read.
        seed: of the samples taken from large sets.
        on_progress: called with the folds done and all of them, while a set is solved.

    Raises:
        ReferenceSetError: the set is empty.
        EncoderMismatchError: set and background were made with different encoders.
    """
    if not len(references):
        raise ReferenceSetError(f"reference set {references.name!r} has no pairs: nothing to tune on")
    if background is not None:
        if background.encoder_fingerprint != references.encoder_fingerprint:
            raise EncoderMismatchError(
                f"the background was made with encoder {background.encoder_id!r}, the reference set "
                f"{references.name!r} with {references.encoder_id!r}: use a background of the same encoder"
            )
        references = references.with_znorm(ZNorm.of(background.retrieval_embeddings))
    own = leave_one_out(references, _MOST, seed=seed)
    before = own.hits(OFF)
    usual = CLOSED if closed else _usual(references, background)
    chosen, rule = usual, "usual weights"
    if own.checks_itself and len(own) > 1:
        chosen, rule = _best(own, usual, closed), "leave-one-out"
        hits = own.hits(chosen)
        # A masked image has one reference fewer than a new one, so that the estimate is low: where no other image can
        # be harmed, only a measured loss switches augmentation off.
        if hits.mean() < before.mean() if closed else not _beats(hits, before):
            chosen = OFF
    elif _known_already(own, background):
        chosen, rule = OFF, "known already"
    references = references.with_vanilla(dataclasses.asdict(chosen))
    solved = _solved(references, background, closed, target=usual.target, on_progress=on_progress) if solve else None
    vanilla = own.hits(chosen) if closed and rule == "leave-one-out" else None
    if solved is not None and _is_better(solved, vanilla, closed=closed):
        return Tuned(
            references=with_solved_weights(references, solved.settings),
            settings=solved.settings,
            rule="cross-validation" if len(solved.hits) else "usual weights",
            items=len(solved.hits),
            texts=len(own.texts),
            before=float((solved.before if len(solved.hits) else before).mean()),
            after=float((solved.hits if len(solved.hits) else before).mean()),
            background=len(background) if background is not None else 0,
            background_gate=opened_by(references, background, solved.settings) if background is not None else 0.0,
        )
    return Tuned(
        references=references,
        settings=chosen,
        rule=rule,
        items=len(own),
        texts=len(own.texts),
        before=float(before.mean()),
        after=float(own.hits(chosen).mean()),
        background=len(background) if background is not None else 0,
        background_gate=_background_gate(references, background, chosen) if background is not None else 0.0,
    )


def _solved(
    references: ReferenceSet,
    background: ReferenceSet | None,
    closed: bool,
    *,
    target: float,
    on_progress: OnProgress | None,
) -> SolvedChoice | None:
    """Choose the settings of solved references; None where a set cannot be solved."""
    if not solvable(references):
        return None
    with one_blas_thread():  # many small products: beside other work, threads that spin take 15 times the CPU time
        if closed:
            return choose_closed(references, whitened=background is not None, on_progress=on_progress)
        return choose_open(references, background, target=target, on_progress=on_progress)


def _is_better(solved: SolvedChoice, vanilla: npt.NDArray[np.float64] | None, *, closed: bool) -> bool:
    """Whether solved references help, and in a closed set Vanilla with these answers is not clearly better.

    In an open set only solved references are held to no harm, so that there Vanilla is not compared. In a closed one
    only a measured loss speaks against them: the folds of few images are too low.
    """
    if not len(solved.hits):
        return True
    if not closed:
        return _beats(solved.hits, solved.before)
    if solved.hits.mean() < solved.before.mean():
        return False
    return vanilla is None or len(vanilla) != len(solved.hits) or not _beats(vanilla, solved.hits)


def gated_if_single(references: ReferenceSet) -> ReferenceSet:
    """Tune a set of one image that was not tuned; return any other set as it is.

    Raises:
        EncoderMismatchError: the background set belongs to another encoder (a damaged installation).
    """
    if references.manifest.vanilla is not None or len(np.unique(references.images)) != 1:
        return references
    background = bundled_background(references.encoder_id, fingerprint=references.encoder_fingerprint)
    return tune(references, background=background).references


def bundled_background(encoder_id: str, *, fingerprint: str | None = None) -> ReferenceSet | None:
    """Open the background set that comes with a model.

    Args:
        encoder_id: of the model.
        fingerprint: of the encoder that the background set must have been made with; None = any.

    Returns:
        None where the model has none, or one of another encoder.
    """
    folder = bundled(encoder_id, "background")
    background = ReferenceSet.open(folder) if folder is not None else None
    if background is not None and fingerprint not in (None, background.encoder_fingerprint):
        return None
    return background


def _usual(references: ReferenceSet, background: ReferenceSet | None) -> VanillaSettings:
    """The usual settings, with the target and the floor that follow from the background set."""
    pairs = references if background is None else background
    cosines = (l2_normalise(pairs.image_embeddings) * l2_normalise(pairs.text_embeddings)).sum(axis=1)
    target = float(np.clip(round(float(np.quantile(cosines, _WELL_ENCODED)), 3), 0.01, 0.99))
    usual = dataclasses.replace(USUAL, target=target)
    if background is None:
        return usual
    sims, z_scores = _nearest_to_background(references, background)
    z_scores = z_scores[sims[:, 0] < BACKGROUND_COPY]
    while len(z_scores) and gate(z_scores, floor=usual.floor, ramp=usual.ramp).mean() > _OPEN:
        usual = dataclasses.replace(usual, floor=round(usual.floor + _STEP, 2))
    return usual


def _known_already(own: LeaveOneOut, background: ReferenceSet | None) -> bool:
    """Whether the plain model classifies most images of a set with many names, among these and the background's."""
    if len(own.texts) < ENOUGH:
        return False
    texts = own.texts
    if background is not None:
        others = l2_normalise(np.unique(background.text_embeddings, axis=0))
        others = others[(others @ texts.T).max(axis=1) < SAME_TEXT]
        texts = np.concatenate([texts, others])
    return bool(((own.embeddings @ texts.T).argmax(axis=1) == own.right).mean() > _KNOWN)


def _best(own: LeaveOneOut, start: VanillaSettings, closed: bool) -> VanillaSettings:
    """The best of the settings that clearly beat the start, or the start."""
    usual = own.hits(start)
    best, score = start, float(usual.mean())
    for candidates in (_weights, _neighbourhoods):
        for candidate in list(candidates(best, closed)):
            hits = own.hits(candidate)
            if hits.mean() > score + 1e-9 and _beats(hits, usual):
                best, score = candidate, float(hits.mean())
    return best


def _weights(start: VanillaSettings, closed: bool) -> Iterator[VanillaSettings]:
    pairs = _CLOSED_WEIGHTS if closed else _WEIGHTS
    return (dataclasses.replace(start, w_img=w_img, w_txt=w_txt) for w_img, w_txt in pairs)


def _neighbourhoods(start: VanillaSettings, closed: bool) -> Iterator[VanillaSettings]:
    ks = _CLOSED_KS if closed else _KS
    return (dataclasses.replace(start, k=k, tau=tau) for k, tau in product(ks, _TAUS))


def _beats(after: npt.NDArray[np.float64], before: npt.NDArray[np.float64]) -> bool:
    """Whether the paired gain is larger than its standard error."""
    difference = after - before
    error = difference.std() / np.sqrt(len(difference))
    return bool(difference.mean() > error)


def _background_gate(references: ReferenceSet, background: ReferenceSet, settings: VanillaSettings) -> float:
    """Mean gate of the background images that are not in the set."""
    if settings.off:
        return 0.0
    z_scores = _nearest_to_background(references, background)[1]
    return float(gate(z_scores, floor=settings.floor, ramp=settings.ramp).mean()) if len(z_scores) else 0.0


def _nearest_to_background(references: ReferenceSet, background: ReferenceSet) -> tuple[Float32, Float32]:
    """Similarity (M, 1) and z-score (M, 1) of the nearest reference of each background image that is not in the set."""
    others = references.image_numbers(background.table["hash"].to_pylist()) < 0
    retrieval = background.retrieval_embeddings[others]
    sims = references.search(retrieval, 1).sims
    return sims, references.znorm.z_scores(retrieval, sims)
