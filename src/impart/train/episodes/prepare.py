"""Prepare mode `episodes`: pairs to concepts and embeddings, one store per view.

Letters: n images, V views, C concepts, P prompts, D embedding width, R retrieval width.
"""

from __future__ import annotations

import zlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from impart.encoders.base import Encoder, EncoderTraits, Float32, ImageEmbeddings, ImageInput, l2_normalise
from impart.errors import TrainingError
from impart.images import to_rgb
from impart.retrieval.prompts import EPISODE_PROMPTS
from impart.retrieval.znorm import ZNorm
from impart.train.episodes.episodes import Concepts, concept_of
from impart.train.events import Note, TrainEvent
from impart.train.prepare import views
from impart.train.prepare.embeddings import EmbeddingStore
from impart.train.prepare.pairs import Failures, list_images
from impart.train.settings import TrainConfig

__all__ = ["EpisodeData", "ViewEncoder", "prepare"]

_BACKGROUND = 2000  # images of no concept, for the background statistics


@dataclass(frozen=True)
class EpisodeData:
    """Input of `EpisodeTask`; n images, V views.

    Attributes:
        image: V arrays (n, D), L2-normalised.
        retrieval: V arrays (n, R), L2-normalised.
        train: concepts to learn from.
        validation: concepts held out; may be empty.
        names: by concept, (P, D) embeddings of its name in each prompt.
        znorm: background statistics of the retrieval embeddings, over all views.
    """

    image: tuple[Float32, ...]
    retrieval: tuple[Float32, ...]
    train: Concepts
    validation: Concepts
    names: dict[str, Float32]
    znorm: ZNorm


class ViewEncoder:
    """Encoder of one view of each image, such as `small0`; texts are encoded by the base encoder."""

    def __init__(self, base: Encoder, view: str):
        self._base, self._view = base, view
        self.fingerprint = base.fingerprint if view == "clean" else f"{zlib.crc32(view.encode()):08x}{base.fingerprint}"

    @property
    def traits(self) -> EncoderTraits:
        return self._base.traits

    def encode_images(self, images: Sequence[ImageInput]) -> ImageEmbeddings:
        opened = [image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image)) for image in images]
        seeds = [zlib.crc32(image.tobytes()) for image in opened]
        return self._base.encode_images(
            [views.view(to_rgb(image), self._view, seed=seed) for image, seed in zip(opened, seeds, strict=True)]
        )

    def encode_texts(self, texts: Sequence[str]) -> Float32:
        return self._base.encode_texts(texts)


def prepare(
    config: TrainConfig, encoder: Encoder, *, data: Path, out: Path, failures: Failures
) -> Generator[TrainEvent, None, EpisodeData]:
    """List the pairs of a config, group them into concepts, and embed them in each view.

    Raises:
        TrainingError: too few concepts have enough images.
    """
    options = config.episodes
    listed = list_images(config.data.pairs, data, failures)
    named = [concept_of(image.texts) for image in listed]
    concepts = Concepts.of(named, least=options.least)
    others = sorted(set(range(len(listed))) - {int(row) for rows in concepts.rows for row in rows})
    background = np.random.default_rng(config.seed).permutation(others)[:_BACKGROUND].astype(np.int64)
    wanted = np.concatenate([*concepts.rows, background]) if len(concepts) else background
    images: list[Float32] = []
    retrievals: list[Float32] = []
    usable = np.ones(len(wanted), dtype=bool)
    for view in options.views:
        store = EmbeddingStore.of_run(config.data, ViewEncoder(encoder, view), out)
        embedded = yield from store.images([listed[number].pair for number in wanted])
        if view == options.views[0]:
            failures.items.extend(embedded.failures)
        usable &= embedded.usable >= 0
        rows = embedded.rows[np.maximum(embedded.usable, 0)] if len(embedded.rows) else embedded.rows
        images.append(l2_normalise(store.image[rows]))
        retrievals.append(l2_normalise(store.retrieval[rows]))
    names = [named[number] if good else "" for number, good in zip(wanted, usable, strict=True)]
    concepts = Concepts.of(names, least=options.least)
    train, validation = concepts.split(options.held_out)
    if sum(len(rows) > min(options.shots) for rows in train.rows) < 2:
        raise TrainingError(
            f"{len(train)} concepts have a name and at least {options.least} images each: too few to draw episodes "
            "from; give more pairs whose text is a name, or lower episodes.least"
        )
    counts = f"{len(train)} concepts to train on, {len(validation)} held out; {len(failures)} items failed"
    yield Note(message="; ".join([counts, *failures.notes]))
    texts = encoder.encode_texts([prompt.format(key) for key in concepts.keys for prompt in EPISODE_PROMPTS])
    embeddings = texts.reshape(len(concepts), len(EPISODE_PROMPTS), -1)  # (C, P, D)
    return EpisodeData(
        tuple(images),
        tuple(retrievals),
        train,
        validation,
        dict(zip(concepts.keys, embeddings, strict=True)),
        ZNorm.of(np.concatenate([rows[usable] for rows in retrievals])),
    )
