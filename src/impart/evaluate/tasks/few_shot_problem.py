"""Few-shot problem: embedded training and test images of the same classes, and draws of the training images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from impart.blending.few_shot.choice import Labelled
from impart.blending.few_shot.support import LOGIT_SCALE, Support
from impart.blending.tune import bundled_background
from impart.encoders.base import Encoder, Float32, ImageEmbeddings, l2_normalise
from impart.errors import DataError
from impart.evaluate.cache import EmbeddingCache
from impart.evaluate.class_prompts import templates_of
from impart.evaluate.contamination import ImagesUnderTest, find_contamination
from impart.evaluate.datasets.types import ClassSet
from impart.evaluate.embed import Progress, embed_images, embed_texts
from impart.readers.names import label_text
from impart.refset.refset import ReferenceSet
from impart.retrieval.prompts import fill_prompt

__all__ = ["EmbeddedClasses", "FewShotProblem", "open_problem"]

Ints = npt.NDArray[np.int64]

MOST_FEW = 4
"""Most validation images per class of `few` (as in the protocols of LP++ and TransCLIP)."""


@dataclass(frozen=True, kw_only=True)
class EmbeddedClasses:
    """Embedded images with classes.

    Attributes:
        name: of the data set.
        images: n images.
        labels: (n,) class numbers.
        classes: C class names.
        keys: n names of the images.
        hashes, phashes: content hashes and perceptual hashes of the images.
        unreadable: images that could not be read, with the reason.
    """

    name: str
    images: ImageEmbeddings
    labels: Ints
    classes: tuple[str, ...]
    keys: tuple[str, ...]
    hashes: tuple[str, ...]
    phashes: tuple[tuple[str, str], ...]
    unreadable: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        encoder: Encoder,
        dataset: ClassSet,
        *,
        cache: EmbeddingCache | None = None,
        batch: int = 32,
        on_progress: Progress | None = None,
    ) -> EmbeddedClasses:
        """Embed a data set.

        Raises:
            DataError: no image could be read.
        """
        found = embed_images(encoder, dataset.images, cache=cache, batch=batch, on_progress=on_progress)
        return cls(
            name=dataset.name,
            images=ImageEmbeddings(found.embeddings, found.retrieval),
            labels=dataset.labels[found.kept],
            classes=dataset.classes,
            keys=tuple(dataset.images.keys[number] for number in found.kept),
            hashes=found.hashes,
            phashes=found.phashes,
            unreadable=found.unreadable,
        )

    def only(self, rows: Ints) -> EmbeddedClasses:
        """Select images by their rows."""
        return replace(
            self,
            images=_taken(self.images, rows),
            labels=self.labels[rows],
            keys=tuple(self.keys[row] for row in rows),
            hashes=tuple(self.hashes[row] for row in rows),
            phashes=tuple(self.phashes[row] for row in rows),
        )

    def labelled(self, rows: Ints) -> Labelled:
        """Select images by their rows, to choose constants on."""
        return Labelled(_taken(self.images, rows), self.labels[rows])


@dataclass(frozen=True, kw_only=True)
class FewShotProblem:
    """A few-shot problem.

    Attributes:
        encoder: plain.
        train: images to draw references from; none of them shows a test image.
        test: test images.
        texts: (C, D) class embeddings.
        prompts: (C, P, D) embeddings of the classes in each prompt.
        dropped: training images left out for showing a test image.
    """

    encoder: Encoder
    train: EmbeddedClasses
    test: EmbeddedClasses
    texts: Float32
    prompts: Float32
    dropped: int

    @cached_property
    def logits(self) -> Float32:
        """(n, C) zero-shot logits of the test images."""
        logits: Float32 = (LOGIT_SCALE * self.test.images.embeddings @ self.texts.T).astype(np.float32)
        return logits

    def draw(self, count: int, seed: int, *, after: int = 0) -> Ints:
        """Draw the rows of `count` images per class, after those that `after` draws; seed 0 = by the order of the set.

        A larger count includes the images of a smaller one with the same seed. A class with fewer images has all of
        them.
        """
        rng = np.random.default_rng(seed)
        rows: list[int] = []
        for number in range(len(self.train.classes)):
            own = np.flatnonzero(self.train.labels == number)
            rows += (rng.permutation(own) if seed else own)[after : after + count].tolist()
        return np.array(rows, dtype=np.int64)

    def support(self, rows: Ints) -> Support:
        """Make the support of some training images."""
        images = _taken(self.train.images, rows)
        return Support(images.embeddings, images.retrieval, self.train.labels[rows], self.texts, self.prompts)

    @cached_property
    def background(self) -> ReferenceSet | None:
        """The background set that comes with the encoder, or None."""
        return bundled_background(self.encoder.traits.id, fingerprint=self.encoder.fingerprint)

    def references(self, rows: Ints) -> ReferenceSet:
        """Make a reference set of some training images, not tuned; its texts are the class embeddings."""
        return _reference_set(self.encoder, self.train.only(rows), self.texts)


def open_problem(
    encoder: Encoder,
    train: ClassSet,
    test: ClassSet,
    *,
    prompts: str | Sequence[str] = "ensemble",
    near_duplicate: float = 0.0,
    cache: EmbeddingCache | None = None,
    batch: int = 32,
    on_progress: Progress | None = None,
) -> FewShotProblem:
    """Embed both sets and the class names, and leave out training images that show a test image.

    Raises:
        DataError: the classes differ, no image of a set could be read, or a class has no training image left.
        ConfigError: `prompts` is unknown.
    """
    _check_classes(train, test)
    templates = templates_of(prompts, own=test.templates, name=test.name)
    filled = [fill_prompt(template, name) for name in test.classes for template in templates]
    embedded = embed_texts(encoder, filled, cache=cache)
    by_prompt = embedded.reshape(len(test.classes), len(templates), -1)  # (C, P, D)
    both = [
        EmbeddedClasses.of(encoder, one, cache=cache, batch=batch, on_progress=on_progress) for one in (train, test)
    ]
    pool, tested = both
    shown = find_contamination(
        _reference_set(encoder, pool, np.zeros((len(pool.classes), encoder.traits.dim), dtype=np.float32)),
        ImagesUnderTest(retrieval=tested.images.retrieval, hashes=tested.hashes, phashes=tested.phashes),
        near=near_duplicate,
    ).rows
    kept = pool.only(np.setdiff1d(np.arange(len(pool.labels)), shown))
    missing = sorted(set(range(len(pool.classes))) - set(kept.labels.tolist()))
    if missing:
        named = ", ".join(pool.classes[number] for number in missing[:3])
        reason = f" that does not show a test image ({len(shown)} do)" if len(shown) else ""
        raise DataError(
            f"{len(missing)} classes of {train.name!r} have no readable training image{reason}: {named}. Add images of "
            "these classes, or leave the classes out of both sets"
        )
    return FewShotProblem(
        encoder=encoder,
        train=kept,
        test=tested,
        texts=l2_normalise(by_prompt.mean(axis=1)),
        prompts=by_prompt,
        dropped=len(shown),
    )


def _check_classes(train: ClassSet, test: ClassSet) -> None:
    if train.classes == test.classes:
        return
    only = [sorted(set(one.classes) - set(other.classes)) for one, other in ((train, test), (test, train))]
    parts = [
        f"only {one.name!r} has {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
        for one, names in zip((train, test), only, strict=True)
        if names
    ]
    raise DataError(
        f"the classes of {train.name!r} and {test.name!r} differ: {'; '.join(parts) or 'their order differs'}. "
        "References and test images need the same classes, in folders of the same names"
    )


def _reference_set(encoder: Encoder, images: EmbeddedClasses, names: Float32) -> ReferenceSet:
    return ReferenceSet.from_arrays(
        [label_text(images.classes[label]) for label in images.labels],
        image=images.images.embeddings,
        text=names[images.labels],
        retrieval=images.images.retrieval,
        encoder_id=encoder.traits.id,
        encoder_fingerprint=encoder.fingerprint,
        name=images.name,
        meta={"hash": images.hashes, "path": images.keys, "phash": [own for own, _ in images.phashes]},
    )


def _taken(images: ImageEmbeddings, rows: Ints) -> ImageEmbeddings:
    return ImageEmbeddings(images.embeddings[rows], images.retrieval[rows])
