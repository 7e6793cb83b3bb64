"""Mode `pretrain` before the first step: pairs listed, split, and neighbours found with the frozen encoder.

The split is drawn over all listed images, so that plain CLIP and every kind of RAM train on the same ones.

Letters: n training images, N references, K neighbours, R retrieval width.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from impart.encoders.base import Encoder
from impart.errors import DataError, TrainingError
from impart.files import read_ahead, sha256_hex
from impart.refset.pairs import check_header
from impart.train.events import Note, Preparing, TrainEvent
from impart.train.prepare.embeddings import EmbeddingStore
from impart.train.prepare.neighbours import NeighbourTable, find_neighbours
from impart.train.prepare.pairs import Failures, ListedImage, list_images
from impart.train.prepare.split import hold_out, may_be_references
from impart.train.settings import TrainConfig

__all__ = ["Found", "PretrainData", "prepare"]

_REPORT = 2048  # images between two reports
_AHEAD = 64  # images read or being read


@dataclass(frozen=True)
class Found:
    """Images with what the frozen encoder says of them; m of them.

    Attributes:
        items: the images.
        groups: (m,) int64 content numbers, equal for equal content.
        retrieval: (m, R) float16, may be memory-mapped; None = there is no frozen encoder.
        rows: (m,) rows of `retrieval` that belong to the images.
        neighbours: table (m, K) of references; None likewise, and for references.
    """

    items: Sequence[ListedImage]
    groups: npt.NDArray[np.int64]
    retrieval: npt.NDArray[Any] | None = None
    rows: npt.NDArray[np.int64] | None = None
    neighbours: NeighbourTable | None = None

    def __len__(self) -> int:
        return len(self.items)

    def queries(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.float16]:
        """(B, R) retrieval embeddings of some images."""
        assert self.retrieval is not None
        assert self.rows is not None
        return np.asarray(self.retrieval[self.rows[places]])


@dataclass(frozen=True)
class PretrainData:
    """Everything the task reads.

    Attributes:
        train: learned from.
        references: the held-out images, one of each text that is a reference.
        validation: measured on; may be empty.
        hashes: content hash of each reference.
        masked: training neighbours left out as the image itself or a near-duplicate.
    """

    train: Found
    references: Found
    validation: Found
    hashes: Sequence[str]
    masked: int = 0


def prepare(
    config: TrainConfig, encoder: Encoder | None, *, data: Path, out: Path, failures: Failures
) -> Generator[TrainEvent, None, PretrainData]:
    """Turn pairs into a split and neighbours.

    Args:
        encoder: frozen, finds neighbours; None = none are found ahead.
        data: folder that relative paths of the config start from.
        out: folder of the run.
        failures: takes what cannot be used.

    Raises:
        TrainingError: too few pairs are left.
    """
    if not config.data.pairs:
        raise TrainingError("the config names no pairs: add [[data.pairs]] with a path, or give --pairs")
    listed = list_images(config.data.pairs, data, failures)
    apart = list_images(config.data.validation, data, failures)
    images = listed + apart
    yield Note(message=f"{len(images)} images with {sum(len(p.texts) for p in images)} texts")
    hashes: list[str] = []
    rows = np.full(len(images), -1, dtype=np.int64)  # of the store
    vectors: npt.NDArray[Any] | None = None
    if encoder is None:
        hashes = yield from _content_hashes(images, failures, max_megapixels=config.data.max_megapixels)
    else:
        store = EmbeddingStore(
            Path(config.data.cache).expanduser() if config.data.cache else out / "embeddings",
            encoder,
            batch=config.data.batch,
            max_megapixels=config.data.max_megapixels,
        )
        made = yield from store.images([image.pair for image in images])
        rows[made.usable >= 0] = made.rows
        hashes = [made.hashes[place] if place >= 0 else "" for place in made.usable]
        for path, reason in made.failures:
            failures.add(path, reason)
        vectors = store.retrieval
    parts = _split(config, hashes, len(listed), listed)
    train, references, validation = ([int(number) for number in part] for part in parts)
    limit = config.reference.captions
    cards = [
        (number, ListedImage(images[number].pair, [text]))
        for number in references
        for text in images[number].texts[: limit or None]
    ]
    if len(train) < 2 or (config.reference.augment == "ram" and not cards):
        raise TrainingError(
            f"{len(train)} images are left to train on, {len(cards)} pairs as references: too few. "
            f"{len(failures)} items failed" + (f", such as {failures.items[0]}" if len(failures) else "")
        )
    yield Note(
        message=f"{len(train)} images to train on, {len(cards)} references, {len(validation)} for validation; "
        f"{len(failures)} items failed"
    )
    numbers: dict[str, int] = {}
    groups = np.array([numbers.setdefault(key, len(numbers)) for key in hashes], dtype=np.int64)
    owners = [number for number, _ in cards]
    tables: list[NeighbourTable | None] = [None, None]
    if vectors is not None:
        for place, (name, chosen) in enumerate((("train", train), ("validation", validation))):
            tables[place] = yield from find_neighbours(
                out / "neighbours",
                np.asarray(vectors[rows[chosen]]),
                np.asarray(vectors[rows[owners]]),
                k=config.ram.k,
                query_hashes=[hashes[number] for number in chosen],
                reference_hashes=[hashes[number] for number in owners],
                near_duplicate=config.reference.near_duplicate,
                index=config.reference.index,
                name=name,
            )
    masked = tables[0].masked if tables[0] else 0
    if masked:
        yield Note(message=f"{masked} neighbours masked as the image itself or a near-duplicate")

    def part(chosen: list[int], table: NeighbourTable | None) -> Found:
        return Found([images[number] for number in chosen], groups[chosen], vectors, rows[chosen], table)

    return PretrainData(
        part(train, tables[0]),
        Found([card for _, card in cards], groups[owners], vectors, rows[owners]),
        part(validation, tables[1]),
        [hashes[number] for number in owners],
        masked,
    )


def _split(
    config: TrainConfig, hashes: Sequence[str], first_apart: int, listed: Sequence[ListedImage]
) -> tuple[npt.NDArray[np.int64], ...]:
    """Numbers of training, reference and validation images; content that validation has is nowhere else."""
    options = config.reference
    split = hold_out(
        first_apart,
        fraction=options.fraction,
        seed=config.seed,
        held_out=options.held_out,
        use=options.use,
        validation=0 if len(hashes) > first_apart else min(config.data.validation_images, first_apart // 10),
        eligible=may_be_references([image.pair.source for image in listed], options.sources),
    )
    good = np.array([bool(key) for key in hashes])
    validation = np.concatenate([split.validation, np.arange(first_apart, len(hashes))])
    validation = validation[good[validation]]
    seen = {hashes[number] for number in validation}
    fresh = good & np.array([key not in seen for key in hashes])
    return split.train[fresh[split.train]], split.references[fresh[split.references]], validation


def _content_hashes(
    images: Sequence[ListedImage], failures: Failures, *, max_megapixels: float
) -> Generator[Preparing, None, list[str]]:
    """SHA-256 of each image's bytes; an empty string where there are none, or where they begin no image.

    Nothing is decoded: with millions of images that would take hours. One that breaks off later is met in training.
    """
    check = partial(_content_hash, max_megapixels=max_megapixels)
    hashes: list[str] = []
    failed = 0
    with closing(read_ahead(images, check, workers=4, ahead=_AHEAD)) as checked:
        for image, (key, reason) in zip(images, checked, strict=True):
            hashes.append(key)
            if not key:
                failed += 1
                failures.add(image.pair.path or image.pair.image_key, reason)
            if len(hashes) % _REPORT == 0 or len(hashes) == len(images):
                yield Preparing(what="images", done=len(hashes), total=len(images), failed=failed)
    return hashes


def _content_hash(image: ListedImage, *, max_megapixels: float) -> tuple[str, str]:
    source = image.pair.image
    try:
        data = source.read_bytes() if isinstance(source, Path) else source() if callable(source) else source
    except FileNotFoundError:
        return "", "the file is missing"
    except (OSError, DataError) as error:
        return "", f"cannot be read: {error}"
    if not isinstance(data, bytes):
        return "", "an image in memory cannot be trained on"
    if not data:
        return "", "the file is empty"
    try:
        check_header(data, max_megapixels=max_megapixels)
    except DataError as error:
        return "", str(error)
    return sha256_hex(data), ""
