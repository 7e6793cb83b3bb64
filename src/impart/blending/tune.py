"""Choose how a reference set is blended in, from the set itself: no test item, no label of a target.

**The gate** asks how many standard deviations an image's nearest reference stands above what random images get
(`impart.retrieval.znorm`; the random images are the background that is bundled with the model). Below the floor of
four nothing is added, from seven on everything. For a set that random images often come near, because it is large or
shows common things, the floor rises until the gate is open by 5% for them on average. Cosines would have to be gated
anew for every set and every kind of image; z-scores do not.

**The target** is the cosine that images have with their texts where the model knows them well (there the upper
quarter of the background begins): taught images come as near to their names as that, and no nearer.

**The weights** are chosen by leave-one-out: every reference image is classified among the set's own texts with its
own rows masked, so that the others must help. The usual weights stay unless others do better by more than the standard
error of the paired difference, and augmentation stays off unless the gain is larger than its standard error: no harm.

Where every image to come shows one of the things that the set names (`closed`), there is nothing to be kept from
harm: no gate, no target, weights as large as leave-one-out wants them, and off only where it finds a loss.

A set that names each thing once cannot check itself (nothing is left when the own row is masked). It gets the usual
weights where it teaches names that the model does not know, and stays off where the plain model names most of its
images already, told from its own names and the background's.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from impart.blending.vanilla import Vanilla, gate, mixture
from impart.config import VanillaSettings
from impart.encoders.base import Float32, ImageEmbeddings, l2_normalise
from impart.encoders.bundled import bundled
from impart.errors import EncoderMismatchError, ReferenceSetError
from impart.files import sha256_hex
from impart.refset.refset import ReferenceSet
from impart.retrieval.nearest import Neighbours
from impart.retrieval.znorm import ZNorm

__all__ = [
    "CLOSED",
    "OFF",
    "USUAL",
    "OwnQuestions",
    "Tuned",
    "anonymous",
    "bundled_background",
    "own_questions",
    "tune",
]

USUAL = VanillaSettings(k=3, w_img=0.0, w_txt=0.5, tau=0.05, floor=4.0, ramp=3.0)
"""What a set gets unless leave-one-out clearly prefers something else; its target is the background's.

No image part: it makes an image more like its look-alikes, which names nothing and blurs what else is in it.
"""

CLOSED = VanillaSettings(k=8, w_img=0.0, w_txt=0.5, tau=0.05)
"""The same where every image shows one of the set's things."""

OFF = VanillaSettings(k=1, w_img=0.0, w_txt=0.0)
"""No augmentation."""

_WEIGHTS = ((0.0, 0.25), (0.0, 0.5))
_CLOSED_WEIGHTS = ((0.0, 0.25), (0.0, 0.5), (0.0, 1.0), (0.25, 0.5), (0.5, 1.0), (0.5, 2.0), (1.0, 2.0))
_KS = (1, 2, 3, 5, 8)
_CLOSED_KS = (3, 5, 8, 16)
_TAUS = (0.02, 0.05, 0.1)
_MOST = max(_KS + _CLOSED_KS)
_MAX_ITEMS = 1500
_DIGEST = "sha256:"
_ENOUGH = 20  # images that share their text with another, below which a set cannot check itself
_OPEN = 0.05  # the gate for random images, at most so much on average
_WELL_KNOWN = 0.75  # quantile of the cosines of images with their texts that taught ones are brought to
_STEP = 0.05  # in which the floor rises
_COPY = 0.95  # cosine of retrieval embeddings from which a random image counts as one of the set's own
_KNOWN = 0.6  # the plain model names more than this of an unchecked set: nothing is added
_SYNONYM = 0.97  # cosine of texts that mean the same
_NAME_WORDS = 5  # texts of at most this many words (median) are names, longer ones captions


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """The settings and what they were chosen on; accuracies are fractions of 1.

    Attributes:
        references: the set with the background statistics and these settings; to be saved.
        settings: the choice; `OFF` where augmentation does not help.
        rule: `leave-one-out`, or where the set cannot check itself `usual weights` or `known already`.
        items: reference images classified.
        texts: T, texts to choose from.
        before: their accuracy with the plain encoder.
        after: with the settings, own rows masked.
        foreign: random images of the background; 0 = none was given.
        touched: how far the gate is open for them on average; 0 = shut, or augmentation is off.
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
    """Images of a set, to be named among its own texts, each without its own rows.

    Attributes:
        rows: (Q,) the row of each image.
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
    """Images to classify: embeddings (Q, D), neighbours and z-score (Q, Kmax), texts (T, D), right texts (Q,)."""

    embeddings: Float32
    neighbours: Neighbours
    z_scores: Float32
    texts: Float32
    right: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.right)

    def hits(self, references: ReferenceSet, settings: VanillaSettings) -> npt.NDArray[np.float64]:
        """(Q,) 1 where the nearest text of v' is the right one. The length of v' does not matter here."""
        k = settings.k
        neighbours = Neighbours(self.neighbours.ids[:, :k], self.neighbours.sims[:, :k])
        images = ImageEmbeddings(self.embeddings, self.embeddings)  # the neighbours are found already
        amounts = Vanilla(settings).amounts(images, neighbours, self.z_scores[:, :k], references)
        total = self.embeddings + mixture(amounts.img, neighbours.ids, references.image_embeddings)
        total += mixture(amounts.txt, neighbours.ids, references.text_embeddings)
        found: npt.NDArray[np.float64] = ((total @ self.texts.T).argmax(axis=1) == self.right).astype(np.float64)
        return found


def tune(
    references: ReferenceSet, *, background: ReferenceSet | None = None, closed: bool = False, seed: int = 0
) -> Tuned:
    """Choose `VanillaSettings` for a reference set, and give it its background statistics.

    Args:
        references: the set.
        background: random images, embedded by the same encoder: what is near, and how near images are to their
            texts, is told by them. None = the set's own images serve, which gates well only where they show many
            different things.
        closed: every image shows one of the things that the set names: no gate and no target.
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
        references = references.with_znorm(ZNorm.of(background.retrieval_embeddings))
    own, checks_itself = _own_task(references, seed)
    before = own.hits(references, OFF)
    usual = CLOSED if closed else _usual(references, background)
    chosen, rule = usual, "usual weights"
    if checks_itself:
        chosen, rule = _best(own, references, usual, closed), "leave-one-out"
        hits = own.hits(references, chosen)
        # An image left out has one reference fewer than one to come: where none can be harmed, a doubt speaks for it.
        if hits.mean() < before.mean() if closed else not _beats(hits, before):
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


def _usual(references: ReferenceSet, background: ReferenceSet | None) -> VanillaSettings:
    """The usual settings, with the floor and the target that the random images ask for."""
    pairs = references if background is None else background
    known = (l2_normalise(pairs.image_embeddings) * l2_normalise(pairs.text_embeddings)).sum(axis=1)
    target = float(np.clip(round(float(np.quantile(known, _WELL_KNOWN)), 3), 0.01, 0.99))
    usual = dataclasses.replace(USUAL, target=target)
    if background is None:
        return usual
    sims, z_scores = _strangers(references, background, 1)
    z_scores = z_scores[sims[:, 0] < _COPY]
    while len(z_scores) and gate(z_scores, floor=usual.floor, ramp=usual.ramp).mean() > _OPEN:
        usual = dataclasses.replace(usual, floor=round(usual.floor + _STEP, 2))
    return usual


def _knows(own: _Task, background: ReferenceSet | None) -> bool:
    """Whether the plain model names most images of a set with many names, among them and the background's."""
    if len(own.texts) < _ENOUGH:
        return False
    texts = own.texts
    if background is not None:
        others = l2_normalise(np.unique(background.text_embeddings, axis=0))
        others = others[(others @ texts.T).max(axis=1) < _SYNONYM]
        texts = np.concatenate([texts, others])
    return bool(((own.embeddings @ texts.T).argmax(axis=1) == own.right).mean() > _KNOWN)


def _best(own: _Task, references: ReferenceSet, at: VanillaSettings, closed: bool) -> VanillaSettings:
    """Of the settings that clearly beat those given, the best; those given where there are none."""
    usual = own.hits(references, at)
    best, score = at, float(usual.mean())
    for candidates in (_weights, _neighbourhoods):
        for candidate in list(candidates(best, closed)):
            hits = own.hits(references, candidate)
            if hits.mean() > score + 1e-9 and _beats(hits, usual):
                best, score = candidate, float(hits.mean())
    return best


def _weights(at: VanillaSettings, closed: bool) -> Iterator[VanillaSettings]:
    pairs = _CLOSED_WEIGHTS if closed else _WEIGHTS
    return (dataclasses.replace(at, w_img=w_img, w_txt=w_txt) for w_img, w_txt in pairs)


def _neighbourhoods(at: VanillaSettings, closed: bool) -> Iterator[VanillaSettings]:
    ks = _CLOSED_KS if closed else _KS
    return (dataclasses.replace(at, k=k, tau=tau) for k, tau in product(ks, _TAUS))


def _beats(after: npt.NDArray[np.float64], before: npt.NDArray[np.float64]) -> bool:
    """Whether the paired gain is larger than its standard error."""
    difference = after - before
    error = difference.std() / np.sqrt(len(difference))
    return bool(difference.mean() > error)


def _touched(references: ReferenceSet, background: ReferenceSet, settings: VanillaSettings) -> float:
    """How far the gate is open for random images on average; those that the set holds left out."""
    if not (settings.w_img or settings.w_txt):
        return 0.0
    z_scores = _strangers(references, background, 1)[1]
    return float(gate(z_scores, floor=settings.floor, ramp=settings.ramp).mean()) if len(z_scores) else 0.0


def _strangers(references: ReferenceSet, background: ReferenceSet, k: int) -> tuple[Float32, Float32]:
    """Similarities (M, k) and z-scores of the random images that the set does not hold."""
    foreign = references.image_numbers(background.table["hash"].to_pylist()) < 0
    retrieval = background.retrieval_embeddings[foreign]
    sims = references.search(retrieval, k).sims
    return sims, references.znorm.z_scores(retrieval, sims)


def own_questions(references: ReferenceSet, *, seed: int = 0) -> OwnQuestions:
    """What leave-one-out asks of a set: images that share their text with another, or one row of each image.

    Args:
        references: the set.
        seed: of the sample taken from a large set.
    """
    names = [_plain(text) for text in references.texts]
    first_rows = np.unique(references.images, return_index=True)[1]  # one row an image
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
    neighbours = references.search(retrieval, _MOST, exclude=references.images[own.rows])
    z_scores = references.znorm.z_scores(retrieval, neighbours.sims)
    images, texts = references.image_embeddings[own.rows], references.text_embeddings[own.texts]
    return _Task(l2_normalise(images), neighbours, z_scores, l2_normalise(texts), own.right), own.checks_itself


def anonymous(text: str) -> str:
    """A digest that stands for a text: it still tells equal texts, without carrying captions of others.

    >>> anonymous("A red fox") == anonymous("red fox")
    True
    """
    return _DIGEST + sha256_hex(_plain(text))[:16]


def _plain(text: str) -> str:
    """A text without case and leading article, to tell whether two name the same thing."""
    return re.sub(r"^(an?|the) ", "", " ".join(text.lower().split()))
