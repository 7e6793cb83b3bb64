"""Prepare mode `ram`: pairs to embeddings, split, reference set and neighbours.

Letters: n images, m and M texts, K neighbours, D embedding width, R retrieval width.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from impart.encoders.base import Encoder
from impart.refset.refset import ReferenceSet
from impart.train.events import TrainEvent
from impart.train.prepare.embeddings import EmbeddedImages, EmbeddingStore
from impart.train.prepare.neighbours import NeighbourTable, neighbours_of_parts
from impart.train.prepare.pairs import Failures, Listing, list_run
from impart.train.prepare.split import ReferencePair, split_images
from impart.train.prepare.texts import text_key
from impart.train.settings import TrainConfig

__all__ = ["EmbeddedRows", "RamData", "prepare"]


@dataclass(frozen=True)
class EmbeddedRows:
    """Embedded images of one part of the split.

    Attributes:
        image: (n, D) float16.
        retrieval: (n, R) float16.
        neighbours: of the n images among the references.
        spans: (n, 2) first text and number of texts of each image, in `texts`.
        texts: (m,) rows of `RamData.text`.
    """

    image: npt.NDArray[np.float16]
    retrieval: npt.NDArray[np.float16]
    neighbours: NeighbourTable
    spans: npt.NDArray[np.int64]
    texts: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.spans)


@dataclass(frozen=True)
class RamData:
    """Input of `RamTask`.

    Attributes:
        train: to learn from.
        validation: to measure on; may be empty.
        text: (M, D) float16 text embeddings.
        keys: (M,) int64, equal for equal texts.
        references: the held-out pairs.
    """

    train: EmbeddedRows
    validation: EmbeddedRows
    text: npt.NDArray[np.float16]
    keys: npt.NDArray[np.int64]
    references: ReferenceSet


def prepare(
    config: TrainConfig, encoder: Encoder, *, data: Path, out: Path, failures: Failures
) -> Generator[TrainEvent, None, RamData]:
    """List, embed and split the pairs of a config, and search the neighbours.

    Raises:
        TrainingError: too few pairs are left.
    """
    listing = yield from list_run(config.data, data, failures)
    store = EmbeddingStore.of_run(config.data, encoder, out)
    embedded = yield from store.images([image.pair for image in listing.images])
    failures.items.extend(embedded.failures)
    listing = listing.where(embedded.usable >= 0)
    text_rows = yield from store.texts(listing.texts)
    split, pairs = yield from split_images(config, listing, embedded.hashes, failures)
    counts = np.array([len(image.texts) for image in listing.images])
    spans = np.stack([np.cumsum(counts) - counts, counts], axis=1)  # (n, 2)
    references = _reference_set(encoder, store, listing, embedded, pairs, text_rows, spans)
    parts = {"train": split.train, "validation": split.validation}
    queries = {
        name: (np.asarray(store.retrieval[embedded.rows[chosen]]), [embedded.hashes[number] for number in chosen])
        for name, chosen in parts.items()
    }
    hashes = [embedded.hashes[number] for number, _ in pairs]
    tables = yield from neighbours_of_parts(config, out, queries, (references.retrieval_embeddings, hashes))
    train, validation = (
        EmbeddedRows(
            np.asarray(store.image[embedded.rows[chosen]]),
            queries[name][0],
            tables[name],
            *_texts_of(chosen, spans, text_rows),
        )
        for name, chosen in parts.items()
    )
    return RamData(train, validation, store.text, _keys(listing.texts, text_rows, len(store.text)), references)


def _texts_of(
    chosen: npt.NDArray[np.int64], spans: npt.NDArray[np.int64], text_rows: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Spans and text rows of some images alone."""
    counts = spans[chosen, 1]
    numbers = [np.arange(first, first + count) for first, count in spans[chosen]]
    rows = text_rows[np.concatenate(numbers)] if numbers else text_rows[:0]
    return np.stack([np.cumsum(counts) - counts, counts], axis=1), rows


def _keys(texts: Sequence[str], rows: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """Keys (count,) of the rows of the text store: equal for texts with the same `text_key`; -1 = another run's."""
    numbers: dict[str, int] = {}
    keys = np.full(count, -1, dtype=np.int64)
    for row, text in zip(rows, texts, strict=True):
        keys[row] = numbers.setdefault(text_key(text), len(numbers))
    return keys


def _reference_set(
    encoder: Encoder,
    store: EmbeddingStore,
    listing: Listing,
    embedded: EmbeddedImages,
    pairs: Sequence[ReferencePair],
    text_rows: npt.NDArray[np.int64],
    spans: npt.NDArray[np.int64],
) -> ReferenceSet:
    """Build the reference set of the held-out pairs."""
    owners = [number for number, _ in pairs]
    images = [listing.images[number] for number in owners]
    rows = embedded.rows[owners]
    texts = text_rows[[spans[number, 0] + text for number, text in pairs]]
    return ReferenceSet.from_arrays(
        [image.texts[text] for image, (_, text) in zip(images, pairs, strict=True)],
        image=np.asarray(store.image[rows]),
        text=np.asarray(store.text[texts]),
        retrieval=np.asarray(store.retrieval[rows]),
        encoder_id=encoder.traits.id,
        encoder_fingerprint=encoder.fingerprint,
        name="references",
        meta={
            "source": [image.pair.source for image in images],
            "licence": [image.pair.licence for image in images],
            "hash": [embedded.hashes[number] for number in owners],
            "path": [image.pair.path for image in images],
            "phash": [embedded.phashes[number] for number in owners],
        },
    )
