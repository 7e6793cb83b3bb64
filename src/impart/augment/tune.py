"""Choose how a reference set is blended in, from the set itself: no test item, no label of a target.

**The gate** asks how many standard deviations a picture's nearest reference stands above what random pictures get
(`impart.reference.cohort`; the random pictures are the background that is bundled with the model). Below the floor
nothing is added. The floor is four, and higher for a set that random pictures often come near, because it is large or
shows common things: at most one random picture in ten may be touched. Cosines would have to be gated anew for every set
and every kind of picture; standings do not.

**The weights** are chosen by leave-one-out: every reference picture is classified among the set's own texts with its
own rows masked, so that the others must help. The usual weights stay unless others do better by more than the standard
error of the paired difference, and augmentation stays off unless the gain is larger than its standard error: no harm.

A set that names each thing once cannot check itself (nothing is left when the own row is masked). It gets the usual
weights where it teaches names that the model does not know, and stays off where the plain model names most of its
pictures already, told from its own names and the background's.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from impart.augment.encoder import bundled
from impart.augment.vanilla import Vanilla
from impart.config import VanillaSettings
from impart.encoders.base import Float32, l2_normalise
from impart.errors import EncoderMismatchError, ReferenceSetError
from impart.reference.cohort import Cohort
from impart.reference.index import Neighbours
from impart.reference.refset import ReferenceSet

__all__ = ["OFF", "USUAL", "OwnQuestions", "Tuned", "anonymous", "bundled_background", "own_questions", "tune"]

USUAL = VanillaSettings(k=3, w_img=0.5, w_txt=1.0, tau=0.05, floor=4.0, ramp=1.0)
"""What a set gets unless leave-one-out clearly prefers something else."""

OFF = VanillaSettings(k=1, w_img=0.0, w_txt=0.0)
"""No augmentation."""

_WEIGHTS = ((0.5, 0.05), (0.25, 0.25), (0.25, 0.5), (0.5, 0.5), (0.25, 1.0), (0.5, 1.0), (1.0, 1.0), (0.5, 2.0))
_KS = (1, 2, 3, 5, 8)
_TAUS = (0.02, 0.05, 0.1)
_MAX_ITEMS = 1500
_DIGEST = "sha256:"
_ENOUGH = 20  # pictures that share their text with another, below which a set cannot check itself
_TOUCHED = 0.1  # of random pictures, at most so many are blended with anything
_COPY = 0.95  # cosine of retrieval embeddings from which a random picture counts as one of the set's own
_KNOWN = 0.5  # the plain model names more than this of an unchecked set: nothing is added
_SYNONYM = 0.97  # cosine of texts that mean the same
_NAME_WORDS = 5  # texts of at most this many words (median) are names, longer ones captions


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """The settings and what they were chosen on; accuracies are fractions of 1.

    Attributes:
        references: the set with the cohort and these settings; to be saved.
        settings: the choice; `OFF` where augmentation does not help.
        rule: `leave-one-out`, or where the set cannot check itself `usual weights` or `known already`.
        items: reference pictures classified.
        texts: T, texts to choose from.
        before: their accuracy with the plain encoder.
        after: with the settings, own rows masked.
        foreign: random pictures of the background; 0 = none was given.
        touched: fraction of them to which anything is added.
    """

    references: ReferenceSet
    settings: VanillaSettings
    rule: str
    items: int
    texts: int
    before: float
    after: float
    foreign: int = 0
    touched: float = 0.0


@dataclass(frozen=True)
class OwnQuestions:
    """Pictures of a set, to be named among its own texts, each without its own rows.

    Attributes:
        rows: (Q,) the row of each picture.
        right: (Q,) number of its text.
        texts: (T,) a row that has the text of each number.
        checks_itself: whether the answers say how good the set is; not where it names each thing once.
    """

    rows: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]
    texts: npt.NDArray[np.int64]
    checks_itself: bool


@dataclass(frozen=True)
class _Task:
    """Pictures to classify: embeddings (Q, D), neighbours and standing (Q, Kmax), texts (T, D), right texts (Q,)."""

    embeddings: Float32
    neighbours: Neighbours
    standing: Float32
    texts: Float32
    right: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.right)

    def hits(self, references: ReferenceSet, settings: VanillaSettings) -> npt.NDArray[np.float64]:
        """(Q,) 1 where the nearest text of v' is the right one. The length of v' does not matter here."""
        k = settings.k
        img, txt = Vanilla(settings).coefficients(self.neighbours.sims[:, :k], self.standing[:, :k])
        rows = np.maximum(self.neighbours.ids[:, :k], 0)
        total = self.embeddings.copy()
        for place in range(rows.shape[1]):
            total += img[:, place, None] * references.image_embeddings[rows[:, place]]
            total += txt[:, place, None] * references.text_embeddings[rows[:, place]]
        found: npt.NDArray[np.float64] = ((total @ self.texts.T).argmax(axis=1) == self.right).astype(np.float64)
        return found


def tune(references: ReferenceSet, *, background: ReferenceSet | None = None, seed: int = 0) -> Tuned:
    """Choose `VanillaSettings` for a reference set, and give it its cohort.

    Args:
        references: the set.
        background: random pictures, embedded by the same encoder: what is near is told against them. None = the set's
            own pictures serve, which gates well only where they show many different things.
        seed: of the samples taken from large sets.

    Raises:
        ReferenceSetError: the set has fewer than two pairs.
        EncoderMismatchError: set and background were made with different encoders.
    """
    if len(references) < 2:
        raise ReferenceSetError(f"reference set {references.name!r} has {len(references)} pairs: nothing to tune on")
    if background is not None:
        if background.encoder_fingerprint != references.encoder_fingerprint:
            raise EncoderMismatchError(
                f"the background was made with encoder {background.encoder_id!r}, the reference set "
                f"{references.name!r} with {references.encoder_id!r}: use a background of the same encoder"
            )
        references = references.with_cohort(Cohort.of(background.retrieval_embeddings))
    own, checks_itself = _own_task(references, seed)
    before = own.hits(references, OFF)
    usual = dataclasses.replace(USUAL, floor=_floor(references, background))
    chosen, rule = usual, "usual weights"
    if checks_itself:
        chosen, rule = _best(own, references, usual), "leave-one-out"
        if not _beats(own.hits(references, chosen), before):
            chosen = OFF
    elif _knows(own, background):
        chosen, rule = OFF, "known already"
    return Tuned(
        references=references.with_vanilla(dataclasses.asdict(chosen)),
        settings=chosen,
        rule=rule,
        items=len(own),
        texts=len(own.texts),
        before=float(before.mean()),
        after=float(own.hits(references, chosen).mean()),
        foreign=len(background) if background is not None else 0,
        touched=_touched(references, background, chosen) if background is not None else 0.0,
    )


def bundled_background(encoder_id: str) -> ReferenceSet | None:
    """The background that comes with a model, or None."""
    folder = bundled(encoder_id, "background")
    return ReferenceSet.open(folder) if folder is not None else None


def _floor(references: ReferenceSet, background: ReferenceSet | None) -> float:
    """The usual floor, or the one that at most `_TOUCHED` of the random pictures reach."""
    if background is None:
        return USUAL.floor
    sims, standing = _strangers(references, background, 1)
    strangers = standing[sims[:, 0] < _COPY, 0]
    if not len(strangers):
        return USUAL.floor
    return max(USUAL.floor, round(float(np.quantile(strangers, 1 - _TOUCHED)), 2))


def _knows(own: _Task, background: ReferenceSet | None) -> bool:
    """Whether the plain model names most pictures of a set with many names, among them and the background's."""
    if len(own.texts) < _ENOUGH:
        return False
    texts = own.texts
    if background is not None:
        others = l2_normalise(np.unique(background.text_embeddings, axis=0))
        others = others[(others @ texts.T).max(axis=1) < _SYNONYM]
        texts = np.concatenate([texts, others])
    return bool(((own.embeddings @ texts.T).argmax(axis=1) == own.right).mean() > _KNOWN)


def _best(own: _Task, references: ReferenceSet, at: VanillaSettings) -> VanillaSettings:
    """Of the settings that clearly beat the usual ones, the best; the usual ones where there are none."""
    usual = own.hits(references, at)
    best, score = at, float(usual.mean())
    for candidates in (_weights, _neighbourhoods):
        for candidate in list(candidates(best)):
            hits = own.hits(references, candidate)
            if hits.mean() > score + 1e-9 and _beats(hits, usual):
                best, score = candidate, float(hits.mean())
    return best


def _weights(at: VanillaSettings) -> Iterator[VanillaSettings]:
    return (dataclasses.replace(at, w_img=w_img, w_txt=w_txt) for w_img, w_txt in _WEIGHTS)


def _neighbourhoods(at: VanillaSettings) -> Iterator[VanillaSettings]:
    return (dataclasses.replace(at, k=k, tau=tau) for k, tau in product(_KS, _TAUS))


def _beats(after: npt.NDArray[np.float64], before: npt.NDArray[np.float64]) -> bool:
    """Whether the paired gain is larger than its standard error."""
    difference = after - before
    error = difference.std() / np.sqrt(len(difference))
    return bool(difference.mean() > error)


def _touched(references: ReferenceSet, background: ReferenceSet, settings: VanillaSettings) -> float:
    """Fraction of random pictures to which anything is added; pictures that the set holds left out."""
    img, txt = Vanilla(settings).coefficients(*_strangers(references, background, settings.k))
    return float((img + txt).any(axis=1).mean()) if len(img) else 0.0


def _strangers(references: ReferenceSet, background: ReferenceSet, k: int) -> tuple[Float32, Float32]:
    """Similarities (M, k) and standings of the random pictures that the set does not hold."""
    foreign = references.picture_numbers(background.table["hash"].to_pylist()) < 0
    retrieval = background.retrieval_embeddings[foreign]
    sims = references.search(retrieval, k).sims
    return sims, references.cohort.standing(retrieval, sims)


def own_questions(references: ReferenceSet, *, seed: int = 0) -> OwnQuestions:
    """What leave-one-out asks of a set: pictures that share their text with another, or one row of each picture.

    Args:
        references: the set.
        seed: of the sample taken from a large set.
    """
    names = [_plain(text) for text in references.texts]
    first_rows = np.unique(references.pictures, return_index=True)[1]  # one row a picture
    shared = Counter(names[row] for row in first_rows)
    repeated = np.array([row for row in first_rows if shared[names[row]] > 1], dtype=np.int64)
    are_names = float(np.median([len(name.split()) for name in names])) <= _NAME_WORDS
    rows = repeated if len(repeated) >= _ENOUGH else first_rows
    if len(rows) > _MAX_ITEMS:  # whole names, so that a sample is as hard as the set
        order = np.random.default_rng(seed).permutation(sorted({names[row] for row in rows})).tolist()
        rank = {name: i for i, name in enumerate(order)}
        rows = np.sort(rows[np.argsort([rank[names[row]] for row in rows], kind="stable")[:_MAX_ITEMS]])
    numbers: dict[str, int] = {}
    right = np.array([numbers.setdefault(names[row], len(numbers)) for row in rows], dtype=np.int64)
    texts = rows[np.unique(right, return_index=True)[1]]
    return OwnQuestions(rows, right, texts, checks_itself=len(repeated) >= _ENOUGH or not are_names)


def _own_task(references: ReferenceSet, seed: int) -> tuple[_Task, bool]:
    """Leave-one-out over the set, and whether the set can check itself this way."""
    own = own_questions(references, seed=seed)
    retrieval = references.retrieval_embeddings[own.rows]
    neighbours = references.search(retrieval, max(_KS), exclude=references.pictures[own.rows])
    standing = references.cohort.standing(retrieval, neighbours.sims)
    images, texts = references.image_embeddings[own.rows], references.text_embeddings[own.texts]
    return _Task(l2_normalise(images), neighbours, standing, l2_normalise(texts), own.right), own.checks_itself


def anonymous(text: str) -> str:
    """A digest that stands for a text: it still tells equal texts, without carrying captions of others.

    >>> anonymous("A red fox") == anonymous("red fox")
    True
    """
    return _DIGEST + hashlib.sha256(_plain(text).encode()).hexdigest()[:16]


def _plain(text: str) -> str:
    """A text without case and leading article, to tell whether two name the same thing."""
    return re.sub(r"^(an?|the) ", "", " ".join(text.lower().split()))
