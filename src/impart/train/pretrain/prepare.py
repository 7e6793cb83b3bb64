"""Prepare mode `pretrain`: list pairs, split them, and search neighbours with the frozen encoder.

The split is drawn over all listed images, so that plain CLIP and every form of RAM train on the same images.

Letters: n training images, N references, K neighbours, R retrieval width.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from impart.encoders.base import Encoder
from impart.encoders.preprocess import PreprocessConfig
from impart.errors import DataError
from impart.files import read_ahead, sha256_hex
from impart.images import read_header
from impart.train.events import Preparing, TrainEvent
from impart.train.heads.towers.sentences import SentenceCache
from impart.train.prepare.embeddings import EmbeddingStore, cache_folder
from impart.train.prepare.neighbours import NeighbourTable, neighbours_of_parts
from impart.train.prepare.pairs import Failures, ListedImage, list_run
from impart.train.prepare.split import split_images
from impart.train.pretrain.decoded import DecodedRun
from impart.train.settings import TrainConfig

__all__ = ["PretrainData", "PretrainImages", "decode_once", "prepare", "retrieve_by"]

_REPORT = 2048  # images between two reports
_AHEAD = 64  # images read or being read
_TEXTS = 2048  # sentences between two reports


@dataclass(frozen=True)
class PretrainImages:
    """Images of one part of the split, m of them, with what the frozen encoder found for them.

    Attributes:
        items: the images.
        groups: (m,) int64 content numbers, equal for equal content.
        retrieval: (., R) float16, may be memory-mapped; None = there is no frozen encoder.
        rows: (m,) row of each image in `retrieval`.
        neighbours: table (m, K) of references; None without a frozen encoder, and for references.
    """

    items: Sequence[ListedImage]
    groups: npt.NDArray[np.int64]
    retrieval: npt.NDArray[Any] | None = None
    rows: npt.NDArray[np.int64] | None = None
    neighbours: NeighbourTable | None = None

    def __len__(self) -> int:
        return len(self.items)

    def queries(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.float16]:
        """Return the retrieval embeddings (B, R) of some images."""
        assert self.retrieval is not None
        assert self.rows is not None
        return np.asarray(self.retrieval[self.rows[places]])


@dataclass(frozen=True)
class PretrainData:
    """Input of `PretrainTask`.

    Attributes:
        train: to learn from.
        references: the held-out pairs, one item per pair.
        validation: to measure on; may be empty.
        hashes: content hash of each reference.
        phashes: perceptual hash of each reference; empty = there is no frozen encoder, so that nothing was decoded.
        sentences: frozen sentence embeddings of all texts; None = neither towers nor references need them.
        copies: the images, decoded once; None = they are decoded for every view.
    """

    train: PretrainImages
    references: PretrainImages
    validation: PretrainImages
    hashes: Sequence[str]
    phashes: Sequence[str] = ()
    sentences: SentenceCache | None = None
    copies: DecodedRun | None = None


def prepare(
    config: TrainConfig, encoder: Encoder | None, *, data: Path, out: Path, failures: Failures
) -> Generator[TrainEvent, None, PretrainData]:
    """List and split the pairs of a config, and search the neighbours.

    Without a frozen encoder there are no precomputed neighbours.

    Raises:
        TrainingError: too few pairs are left.
    """
    listing = yield from list_run(config.data, data, failures)
    images = listing.images
    rows = np.full(len(images), -1, dtype=np.int64)  # of the store
    vectors: npt.NDArray[Any] | None = None
    phashes: list[str] = []
    if encoder is None:
        hashes = yield from _content_hashes(images, failures, max_megapixels=config.data.max_megapixels)
    else:
        store = EmbeddingStore.of_run(config.data, encoder, out)
        embedded = yield from store.images([image.pair for image in images])
        failures.items.extend(embedded.failures)
        rows[embedded.usable >= 0] = embedded.rows
        hashes = [embedded.hashes[place] if place >= 0 else "" for place in embedded.usable]
        phashes = [embedded.phashes[place] if place >= 0 else "" for place in embedded.usable]
        vectors = store.retrieval
    augmented = config.reference.augment == "ram"
    split, pairs = yield from split_images(config, listing, hashes, failures, augmented=augmented)
    owners = np.array([number for number, _ in pairs], dtype=np.int64)
    parts = {"train": split.train, "validation": split.validation}
    tables: Mapping[str, NeighbourTable] = {}
    if vectors is not None:
        train, validation, references = (
            (np.asarray(vectors[rows[chosen]]), [hashes[number] for number in chosen])
            for chosen in (*parts.values(), owners)
        )
        tables = yield from neighbours_of_parts(config, out, {"train": train, "validation": validation}, references)
    numbers: dict[str, int] = {}
    groups = np.array([numbers.setdefault(key, len(numbers)) for key in hashes], dtype=np.int64)
    train_images, validation_images = (
        PretrainImages([images[number] for number in chosen], groups[chosen], vectors, rows[chosen], tables.get(name))
        for name, chosen in parts.items()
    )
    items = [ListedImage(images[number].pair, [images[number].texts[text]]) for number, text in pairs]
    sentences = None
    if config.pretrain.text_tower == "sentences" or (augmented and config.reference.embeddings == "frozen"):
        sentences = SentenceCache(cache_folder(config.data, out, "sentences"))
        every = [*train_images.items, *validation_images.items, *items]
        yield from _embed_sentences(sentences, [text for item in every for text in item.texts])
    return PretrainData(
        train_images,
        PretrainImages(items, groups[owners], vectors, rows[owners]),
        validation_images,
        [hashes[number] for number in owners],
        [phashes[number] for number in owners] if phashes else [],
        sentences,
    )


def decode_once(
    data: PretrainData, config: TrainConfig, preprocess: PreprocessConfig, *, out: Path
) -> Generator[TrainEvent, None, PretrainData]:
    """Decode the images of a run to small copies, if `pretrain.decode_once_px` is set.

    Args:
        data: of the run.
        config: `data` and `pretrain` are read.
        preprocess: of the image tower.
        out: folder of the run.

    Raises:
        ConfigError: the copies are smaller than the image tower's input.
    """
    side = config.pretrain.decode_once_px
    if not side:
        return data
    folder = cache_folder(config.data, out, "decoded")
    copies = DecodedRun(folder, side, preprocess, config.data.max_megapixels)
    yield from copies.fill(data.train.items, cropped=config.pretrain.crop < 1)
    yield from copies.fill([*data.references.items, *data.validation.items], cropped=False)
    return replace(data, copies=copies)


def retrieve_by(
    data: PretrainData,
    config: TrainConfig,
    *,
    train: npt.NDArray[Any],
    references: npt.NDArray[Any],
    validation: npt.NDArray[Any],
    out: Path,
) -> Generator[TrainEvent, None, PretrainData]:
    """Give a run other retrieval embeddings than those of `data.encoder`, and search the neighbours with them.

    Args:
        data: of the run.
        config: `ram.k` and `reference` are read.
        train: (n, R) of the training images, L2-normalised; like `references` (N, R) and `validation` (m, R).
        references: of the reference pairs.
        validation: of the validation images.
        out: folder of the neighbours' tables.
    """
    own = {"train": (train, data.train), "validation": (validation, data.validation)}
    queries = {name: (vectors, [str(group) for group in part.groups]) for name, (vectors, part) in own.items()}
    keys = [str(group) for group in data.references.groups]
    tables = yield from neighbours_of_parts(config, out, queries, (references, keys))
    made = {
        name: replace(part, retrieval=vectors, rows=np.arange(len(part)), neighbours=tables[name])
        for name, (vectors, part) in own.items()
    }
    found = replace(data.references, retrieval=references, rows=np.arange(len(data.references)))
    return replace(data, train=made["train"], references=found, validation=made["validation"])


def _embed_sentences(sentences: SentenceCache, texts: Sequence[str]) -> Generator[Preparing, None, None]:
    """Compute the sentence embeddings that are not on disk."""
    for first in range(0, len(texts), _TEXTS):
        part = texts[first : first + _TEXTS]
        sentences.embed(part)
        yield Preparing(what="sentences", done=first + len(part), total=len(texts))


def _content_hashes(
    images: Sequence[ListedImage], failures: Failures, *, max_megapixels: float
) -> Generator[Preparing, None, list[str]]:
    """Hash each image's bytes (SHA-256); an empty string where it cannot be read or is no image.

    Nothing is decoded: with millions of images that would take hours. Training finds images that are cut off.
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
        read_header(data, max_megapixels=max_megapixels)
    except DataError as error:
        return "", str(error)
    return sha256_hex(data), ""
