"""Choose how a reference set is blended in, from the set itself and pictures foreign to it. No test item, no label.

*Gain*, by leave-one-out: every reference picture is classified among the set's own texts with its own rows masked, so
that the others must help. *Harm*, on a background of foreign pictures with texts (bundled with `mini`, made from
training pictures, half of them shrunk): how many of them lose their right text among the background's texts. A gate
(floor and ramp) is what separates the two. The objective is

    gain - HARM_WEIGHT * max(0, harm)        in points of accuracy

and augmentation stays off unless the gain is larger than its standard error: no harm.

A set that names each thing once cannot check itself: nothing is left when the own row is masked. It gets the usual
weights, and the lowest floor that costs the background at most `MAX_HARM`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from impart.augment.encoder import bundled
from impart.augment.vanilla import Vanilla
from impart.config import VanillaSettings
from impart.encoders.base import Float32, l2_normalise
from impart.errors import EncoderMismatchError, ReferenceSetError
from impart.reference.index import Neighbours
from impart.reference.refset import ReferenceSet

__all__ = ["OFF", "USUAL", "Tuned", "anonymous", "bundled_background", "tune"]

USUAL = VanillaSettings(k=3, w_img=0.5, w_txt=1.0, tau=0.05, floor=-1.0, ramp=0.0)
"""Where the search starts, and the weights of a set that cannot check itself."""

OFF = VanillaSettings(k=1, w_img=0.0, w_txt=0.0)
"""No augmentation."""

HARM_WEIGHT = 2.0
"""A foreign picture lost weighs as much as this many taught ones gained."""

MAX_HARM = 0.005
"""Fraction of foreign pictures that a set which cannot check itself may cost."""

Objective: TypeAlias = Callable[[VanillaSettings, float], float]
Harm: TypeAlias = Callable[[VanillaSettings], float]

_WEIGHTS = ((0.5, 0.05), (0.25, 0.25), (0.25, 0.5), (0.5, 0.5), (0.25, 1.0), (0.5, 1.0), (1.0, 1.0), (0.5, 2.0))
_KS = (1, 2, 3, 5, 8)
_TAUS = (0.02, 0.05, 0.1)
_FLOORS = (0.7, 0.6, 0.55, 0.5, 0.45, 0.4, 0.35, 0.3, 0.25, 0.2, 0.1, -1.0)
_RAMPS = (0.3, 0.2, 0.1, 0.0)
_MAX_ITEMS = 1500
_DIGEST = "sha256:"
_ENOUGH = 20  # pictures that share their text with another, below which a set cannot check itself
_NAME_WORDS = 5  # texts of at most this many words (median) are names, longer ones captions


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """The settings and what they were chosen on; accuracies are fractions of 1.

    Attributes:
        settings: the choice; `OFF` where augmentation does not help.
        rule: `leave-one-out`, or `usual weights` where the set cannot check itself.
        items: reference pictures classified.
        texts: T, texts to choose from.
        before: their accuracy with the plain encoder.
        after: with the settings, own rows masked.
        foreign: background pictures classified; 0 = no background was given.
        foreign_before: their accuracy with the plain encoder.
        foreign_after: with the settings.
    """

    settings: VanillaSettings
    rule: str
    items: int
    texts: int
    before: float
    after: float
    foreign: int = 0
    foreign_before: float = 0.0
    foreign_after: float = 0.0


@dataclass(frozen=True)
class _Task:
    """Pictures to classify: base embeddings (Q, D), neighbours (Q, Kmax), texts (T, D), right texts (Q,)."""

    embeddings: Float32
    neighbours: Neighbours
    texts: Float32
    right: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.right)

    def hits(self, references: ReferenceSet, settings: VanillaSettings) -> npt.NDArray[np.bool_]:
        """(Q,) whether the nearest text of v' is the right one. The length of v' does not matter here."""
        img, txt = Vanilla(settings).coefficients(self.neighbours.sims[:, : settings.k])
        rows = np.maximum(self.neighbours.ids[:, : settings.k], 0)
        total = self.embeddings.copy()
        for k in range(rows.shape[1]):
            total += img[:, k, None] * references.image_embeddings[rows[:, k]]
            total += txt[:, k, None] * references.text_embeddings[rows[:, k]]
        found: npt.NDArray[np.bool_] = (total @ self.texts.T).argmax(axis=1) == self.right
        return found


def tune(references: ReferenceSet, *, background: ReferenceSet | None = None, seed: int = 0) -> Tuned:
    """Choose `VanillaSettings` for a reference set.

    Args:
        references: the set.
        background: foreign pictures with texts, embedded by the same encoder; None = only the gain counts.
        seed: of the samples taken from large sets.

    Raises:
        ReferenceSetError: the set has fewer than two pairs.
        EncoderMismatchError: set and background were made with different encoders.
    """
    if len(references) < 2:
        raise ReferenceSetError(f"reference set {references.name!r} has {len(references)} pairs: nothing to tune on")
    if background is not None and background.encoder_fingerprint != references.encoder_fingerprint:
        raise EncoderMismatchError(
            f"the background was made with encoder {background.encoder_id!r}, the reference set {references.name!r} "
            f"with {references.encoder_id!r}: use a background of the same encoder"
        )
    rng = np.random.default_rng(seed)
    names = [_plain(text) for text in references.texts]
    own, checks_itself = _own_task(references, names, rng)
    foreign = _foreign_task(references, background, set(names)) if background is not None else None
    own_before = own.hits(references, OFF)
    foreign_before = foreign.hits(references, OFF) if foreign is not None else np.zeros(1, dtype=np.bool_)

    def harm(settings: VanillaSettings) -> float:
        if foreign is None:
            return 0.0
        return max(0.0, float(foreign_before.mean() - foreign.hits(references, settings).mean()))

    def objective(settings: VanillaSettings, to_beat: float) -> float:
        gain = float(own.hits(references, settings).mean())
        return gain - HARM_WEIGHT * harm(settings) if gain > to_beat else gain  # harm only lowers it

    if checks_itself:
        rule, chosen = "leave-one-out", _ascend(objective)
        if not _gains(own_before, own.hits(references, chosen)):
            chosen = OFF
    else:
        rule, chosen = "usual weights", _usual(own, foreign is not None, harm)
    after = own.hits(references, chosen)
    return Tuned(
        settings=chosen,
        rule=rule,
        items=len(own),
        texts=len(own.texts),
        before=float(own_before.mean()),
        after=float(after.mean()),
        foreign=len(foreign) if foreign is not None else 0,
        foreign_before=float(foreign_before.mean()) if foreign is not None else 0.0,
        foreign_after=float(foreign.hits(references, chosen).mean()) if foreign is not None else 0.0,
    )


def bundled_background(encoder_id: str) -> ReferenceSet | None:
    """The background that comes with a model, or None."""
    folder = bundled(encoder_id, "background")
    return ReferenceSet.open(folder) if folder is not None else None


def _ascend(objective: Objective) -> VanillaSettings:
    """Ascent from the usual settings, in turn over all weights with all gates, and all K with all tau; twice."""
    best, score = USUAL, objective(USUAL, -1.0)
    for _ in range(2):
        start = best
        for candidates in (_gated_weights, _neighbourhoods):
            for candidate in candidates(best):
                value = objective(candidate, score)
                if value > score + 1e-9:
                    best, score = candidate, value
        if best == start:
            break
    return best


def _gated_weights(at: VanillaSettings) -> Iterator[VanillaSettings]:
    """Careful ones first: of equals, the first is kept."""
    for floor, ramp, (w_img, w_txt) in product(_FLOORS, _RAMPS, _WEIGHTS):
        yield dataclasses.replace(at, w_img=w_img, w_txt=w_txt, floor=floor, ramp=ramp)


def _neighbourhoods(at: VanillaSettings) -> Iterator[VanillaSettings]:
    return (dataclasses.replace(at, k=k, tau=tau) for k, tau in product(_KS, _TAUS))


def _usual(own: _Task, has_background: bool, harm: Harm) -> VanillaSettings:
    """Usual weights, and a floor from the background; without one, above most pairs of different things."""
    if not has_background:
        strangers = float(np.quantile(own.neighbours.sims[:, 0], 0.95))
        return dataclasses.replace(USUAL, floor=round(max(strangers, 0.0), 3))
    best = OFF
    for floor in _FLOORS:  # from strict to open
        candidate = dataclasses.replace(USUAL, floor=floor)
        if harm(candidate) > MAX_HARM:
            break
        best = candidate
    return best


def _gains(before: npt.NDArray[np.bool_], after: npt.NDArray[np.bool_]) -> bool:
    """Whether the paired gain is larger than its standard error."""
    difference = after.astype(np.float64) - before
    error = difference.std() / np.sqrt(len(difference))
    return bool(difference.mean() > error)


def _own_task(references: ReferenceSet, names: list[str], rng: np.random.Generator) -> tuple[_Task, bool]:
    """Leave-one-out over the set, and whether the set can check itself this way."""
    pictures = references.pictures
    first_rows = np.unique(pictures, return_index=True)[1]  # one row a picture
    shared = Counter(names[row] for row in first_rows)
    repeated = np.array([row for row in first_rows if shared[names[row]] > 1], dtype=np.int64)
    are_names = float(np.median([len(name.split()) for name in names])) <= _NAME_WORDS
    checks_itself = len(repeated) >= _ENOUGH or not are_names
    rows = repeated if len(repeated) >= _ENOUGH else first_rows
    if len(rows) > _MAX_ITEMS:  # whole names, so that a sample is as hard as the set
        order = rng.permutation(sorted({names[row] for row in rows})).tolist()
        rank = {name: i for i, name in enumerate(order)}
        rows = np.sort(rows[np.argsort([rank[names[row]] for row in rows], kind="stable")[:_MAX_ITEMS]])
    numbers: dict[str, int] = {}
    right = np.array([numbers.setdefault(names[row], len(numbers)) for row in rows], dtype=np.int64)
    texts = references.text_embeddings[[rows[i] for i in np.unique(right, return_index=True)[1]]]
    neighbours = references.search(references.retrieval_embeddings[rows], max(_KS), exclude=pictures[rows])
    task = _Task(l2_normalise(references.image_embeddings[rows]), neighbours, l2_normalise(texts), right)
    return task, checks_itself


def _foreign_task(references: ReferenceSet, background: ReferenceSet, taught: set[str]) -> _Task | None:
    """Background pictures whose names the set does not teach, and which it does not hold, among their own texts."""
    names = [text if text.startswith(_DIGEST) else anonymous(text) for text in background.texts]
    taught = {anonymous(name) for name in taught}
    held = references.picture_numbers(background.table["hash"].to_pylist()) >= 0
    rows = np.array([i for i, name in enumerate(names) if name not in taught and not held[i]], dtype=np.int64)
    if not len(rows):
        return None
    numbers: dict[str, int] = {}
    right = np.array([numbers.setdefault(names[row], len(numbers)) for row in rows], dtype=np.int64)
    texts = background.text_embeddings[[rows[i] for i in np.unique(right, return_index=True)[1]]]
    neighbours = references.search(background.retrieval_embeddings[rows], max(_KS))
    return _Task(l2_normalise(background.image_embeddings[rows]), neighbours, l2_normalise(texts), right)


def anonymous(text: str) -> str:
    """A digest that stands for a text: it still tells equal texts, without carrying captions of others.

    >>> anonymous("A red fox") == anonymous("red fox")
    True
    """
    return _DIGEST + hashlib.sha256(_plain(text).encode()).hexdigest()[:16]


def _plain(text: str) -> str:
    """A text without case and leading article, to tell whether two name the same thing."""
    return re.sub(r"^(an?|the) ", "", " ".join(text.lower().split()))
