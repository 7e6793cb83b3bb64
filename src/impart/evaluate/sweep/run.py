"""Sweep: zero-shot accuracy of RA-CLIP Vanilla over size, quality and blending settings of a reference set.

Images and references are embedded once and cached. Neighbours are searched once per selection of references, for the
largest K. The sum for each K, tau and gate is computed once; weights only scale it. So hundreds of settings take
seconds.

Each setting is measured on two kinds of images. Test images of data sets: classify each. The set's own images, by
leave-one-out: classify each among the set's texts, its own rows masked. These are always the images of the whole set,
so that sizes compare; the right text is the one before corruption. References that show a test image of any data set
are dropped beforehand.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import get_args

import numpy as np
import numpy.typing as npt

from impart.blending.encoder import vanilla_of
from impart.blending.questions import own_questions
from impart.blending.tune import USUAL
from impart.blending.vanilla import Vanilla, mixture, within_target
from impart.config import Around, EvaluateSettings, VanillaSettings
from impart.encoders.base import Encoder, Float32, l2_normalise
from impart.errors import ConfigError, ReferenceSetError
from impart.evaluate.cache import EmbeddingCache
from impart.evaluate.class_prompts import class_embeddings, templates_of
from impart.evaluate.contamination import ImagesUnderTest, find_contamination
from impart.evaluate.datasets.types import ClassSet
from impart.evaluate.embed import Progress, base_of, embed_images
from impart.evaluate.sweep.plan import ALL, Point
from impart.files import digest_of, sha256_hex
from impart.metrics import classification
from impart.refset.refset import ReferenceSet
from impart.refset.subsets import choose, corrupt

__all__ = ["AROUND", "LEAVE_ONE_OUT", "SweepData", "Questions", "SweepRow", "prepare", "sweep"]

LEAVE_ONE_OUT = "leave-one-out"

AROUND = get_args(Around)
"""Blending to sweep around: the set's own, `impart.blending.tune.USUAL`, or the paper's (K=8, 0.5, 0.05, no gate)."""


@dataclass(frozen=True, kw_only=True)
class SweepRow:
    """The figures of one setting on one data set; accuracies are fractions of 1.

    Attributes:
        dataset: name of the data set, or `LEAVE_ONE_OUT`.
        point: the setting.
        used: number of references.
        items: number of images.
        classes: number of texts to choose from.
        plain: accuracy of the plain encoder.
        accuracy: with the references. Ties count as wrong.
        error: standard error of the gain, from the paired differences of the items.
        touched: fraction of the images to which anything is added.
    """

    dataset: str
    point: Point
    used: int
    items: int
    classes: int
    plain: float
    accuracy: float
    error: float
    touched: float

    @property
    def gain(self) -> float:
        """Accuracy minus that of the plain encoder."""
        return self.accuracy - self.plain


@dataclass(frozen=True, kw_only=True)
class Questions:
    """Q labelled images of a data set, or of the reference set itself.

    Attributes:
        name: the data set's, or `LEAVE_ONE_OUT`.
        embeddings: (Q, D), L2-normalised, of the plain encoder.
        retrieval: (Q, R).
        classes: (C, D) text embeddings to choose from.
        right: (Q,) number of the right class.
        rows: (Q,) the reference of each image, which is masked; None = images of a data set.
        identity: digest of the images, their classes and the prompts.
        templates: prompts around the class names.
        notes: what was left out.
    """

    name: str
    embeddings: Float32
    retrieval: Float32
    classes: Float32
    right: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64] | None = None
    identity: str = ""
    templates: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.right)


@dataclass(frozen=True, kw_only=True)
class SweepData:
    """The references and images of a sweep.

    Attributes:
        references: the set without the references that show test images.
        dropped: number of references that show test images.
        questions: of every data set, and of the set itself if leave-one-out is possible.
        settings: the blending settings to sweep around.
        encoder: id and fingerprint of the plain encoder.
        notes: for the report.
    """

    references: ReferenceSet
    dropped: int
    questions: tuple[Questions, ...]
    settings: VanillaSettings
    encoder: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def prepare(
    references: ReferenceSet,
    encoder: Encoder,
    datasets: Sequence[ClassSet] = (),
    *,
    prompts: str = "ensemble",
    around: Around = "set",
    near: float = EvaluateSettings.near_duplicate,
    cache: EmbeddingCache | None = None,
    on_progress: Progress | None = None,
) -> SweepData:
    """Embed the data sets, drop references that show their images, and prepare leave-one-out.

    Args:
        references: the set.
        encoder: that made it; of an augmented one, the base is used.
        datasets: may be empty.
        prompts: see `impart.evaluate.zeroshot`.
        around: of `AROUND`, the blending settings to sweep around.
        near: see `find_contamination`.
        cache: of embeddings.
        on_progress: called with the images done, for each data set.

    Raises:
        EncoderMismatchError: the set was made with another encoder.
        ConfigError: there are no images to measure, or two data sets have one name.
        ReferenceSetError: fewer than two references are left.
    """
    base = base_of(encoder)
    references.check_encoder(base)
    names = [dataset.name for dataset in datasets]
    if len({*names, LEAVE_ONE_OUT}) <= len(names):
        raise ConfigError(f"data sets of one name: {', '.join(names)}. Name each differently, as in NAME:PATH")
    questions: list[Questions] = []
    shown: list[npt.NDArray[np.int64]] = []
    for dataset in datasets:
        templates = templates_of(prompts, own=dataset.templates, name=dataset.name)
        embedded = embed_images(base, dataset.images, cache=cache, on_progress=on_progress)
        tests = ImagesUnderTest(retrieval=embedded.retrieval, hashes=embedded.hashes, phashes=embedded.phashes)
        shown.append(find_contamination(references, tests, near=near).rows)
        right = dataset.labels[embedded.kept]
        questions.append(
            Questions(
                name=dataset.name,
                embeddings=embedded.embeddings,
                retrieval=embedded.retrieval,
                classes=class_embeddings(base, dataset.classes, templates, cache=cache),
                right=right,
                identity=digest_of([*embedded.hashes, *templates, *dataset.classes, right.tobytes().hex()])[:24],
                templates=templates,
                notes=(*dataset.notes, *(f"left out: {reason}" for reason in embedded.unreadable)),
            )
        )
    rows = np.unique(np.concatenate(shown)) if shown else np.zeros(0, np.int64)
    kept = references.without(rows.tolist())
    if len(kept) < 2:
        raise ReferenceSetError(
            f"reference set {references.name!r} has {len(kept)} pairs without contamination: use a larger set"
        )
    notes = [f"{len(rows)} of {len(references)} references show test images and were dropped"] if len(rows) else []
    own = own_questions(kept)
    if own.checks_itself:
        questions.append(_of_the_set(kept, own.rows, own.right, own.texts))
    else:
        notes.append("leave-one-out was left out: the set has one image per text, or is small")
    if not questions:
        raise ConfigError(
            f"reference set {references.name!r} has one image per text, so leave-one-out is impossible: add --data"
        )
    settings, note = _around(references, around)
    notes += [note] if note else []
    return SweepData(
        references=kept,
        dropped=len(rows),
        questions=tuple(questions),
        settings=settings,
        encoder={"id": base.traits.id, "fingerprint": base.fingerprint},
        notes=tuple(notes),
    )


def sweep(data: SweepData, points: Sequence[Point], *, done: Collection[tuple[str, Point]] = ()) -> Iterator[SweepRow]:
    """Measure every point on every data set.

    Args:
        data: from `prepare`.
        points: from `impart.evaluate.sweep.plan.SweepPlan`.
        done: (data set, point) that are measured already and skipped.
    """
    for key, group in groupby(points, key=lambda point: point.references):
        wanted = list(group)
        left = {questions.name: [p for p in wanted if (questions.name, p) not in done] for questions in data.questions}
        if not any(left.values()):
            continue
        subset, rows = _choose(data.references, *key)
        for questions in data.questions:
            if left[questions.name]:
                yield from _measure_points(questions, data.references, subset, rows, left[questions.name])


def _around(references: ReferenceSet, around: Around) -> tuple[VanillaSettings, str]:
    """Return the settings to sweep around, and a note on them."""
    if around not in AROUND:
        raise ConfigError(f"cannot sweep around {around!r}: choose {', '.join(AROUND)}")
    if around == "paper":
        return VanillaSettings(), ""
    if around == "usual":
        return USUAL, ""
    settings = vanilla_of(references)
    if settings is None:
        return VanillaSettings(), "the set is not tuned: swept around the paper's settings"
    if settings.off:
        return USUAL, "the set's own settings are off (tuning found no gain): swept around the usual settings"
    return settings, ""


def _choose(
    references: ReferenceSet, way: str, pairs: int, corrupted: float, seed: int
) -> tuple[ReferenceSet, npt.NDArray[np.int64]]:
    """Select the references of a point, and their rows in the whole set."""
    corrupted_set = corrupt(references, corrupted, seed=seed)
    if way == ALL:
        return corrupted_set, np.arange(len(references))
    rows = choose(corrupted_set, way, pairs, seed=seed)
    return corrupted_set.take(rows), rows


def _measure_points(
    questions: Questions, whole: ReferenceSet, subset: ReferenceSet, rows: npt.NDArray[np.int64], points: list[Point]
) -> Iterator[SweepRow]:
    """Measure points with the same references on one data set."""
    exclude = _own_images(questions, whole, subset, rows)
    neighbours = subset.search(questions.retrieval, max(point.k for point in points), exclude=exclude)
    z_scores = subset.znorm.z_scores(questions.retrieval, neighbours.sims)
    plain_scores = questions.embeddings @ questions.classes.T  # (Q, C)
    plain = classification.top_k(plain_scores, questions.right, k=1)
    by_blend = sorted(points, key=lambda p: (p.k, p.tau, p.floor, p.ramp))
    for (k, tau, floor, ramp), group in groupby(by_blend, key=lambda p: (p.k, p.tau, p.floor, p.ramp)):
        unit = VanillaSettings(k=k, w_img=1.0, w_txt=1.0, tau=tau, floor=floor, ramp=ramp)
        shares = Vanilla(unit).coefficients(neighbours.sims[:, :k], z_scores[:, :k])[0]  # (Q, k)
        touched = np.flatnonzero(shares.any(axis=1))
        ids = neighbours.ids[touched, :k]
        images = mixture(shares[touched], ids, subset.image_embeddings)
        texts = mixture(shares[touched], ids, subset.text_embeddings)
        opened = shares[touched].sum(axis=1)  # shares sum to 1 before the gate
        by_image, by_text = images @ questions.classes.T, texts @ questions.classes.T  # (touched, C)
        for point in group:
            right = plain.copy()
            # The length of v' is the same for all classes and does not matter here.
            w_txt = np.full(len(touched), point.w_txt, dtype=np.float32)
            if point.target > 0:
                v = questions.embeddings[touched]
                w_txt *= within_target(v, np.float32(point.w_txt) * texts, opened, target=point.target)
            scores = plain_scores[touched] + np.float32(point.w_img) * by_image + w_txt[:, None] * by_text
            right[touched] = classification.top_k(scores, questions.right[touched], k=1)
            difference = right.astype(np.float64) - plain
            blended = bool(point.w_img or point.w_txt)
            yield SweepRow(
                dataset=questions.name,
                point=point,
                used=len(subset),
                items=len(questions),
                classes=len(questions.classes),
                plain=float(plain.mean()),
                accuracy=float(right.mean()),
                error=float(difference.std() / np.sqrt(len(difference))),
                touched=len(touched) / len(questions) if blended else 0.0,
            )


def _own_images(
    questions: Questions, whole: ReferenceSet, subset: ReferenceSet, rows: npt.NDArray[np.int64]
) -> npt.NDArray[np.int32] | None:
    """Number of each question's own image in the subset (Q,); -1 if the subset lacks it."""
    if questions.rows is None:
        return None
    numbers = np.full(int(whole.images.max()) + 1, -1, dtype=np.int32)
    numbers[whole.images[rows]] = subset.images
    return numbers[whole.images[questions.rows]]


def _of_the_set(
    references: ReferenceSet,
    rows: npt.NDArray[np.int64],
    right: npt.NDArray[np.int64],
    texts: npt.NDArray[np.int64],
) -> Questions:
    items = sha256_hex(rows.tobytes(), right.tobytes(), texts.tobytes())
    return Questions(
        name=LEAVE_ONE_OUT,
        embeddings=l2_normalise(references.image_embeddings[rows]),
        retrieval=references.retrieval_embeddings[rows],
        classes=l2_normalise(references.text_embeddings[texts]),
        right=right,
        rows=rows,
        identity=digest_of([references.fingerprint, items])[:24],
    )
