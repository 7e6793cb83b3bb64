"""Embeddings of a frozen encoder, computed once and memory-mapped.

A store is a folder named after the encoder's fingerprint with two `ColumnStore`s:

    images.*  columns `image` (D) and, where the encoder has retrieval embeddings of its own, `retrieval` (R), float16;
              the key is of the image's location and file state, the note is the sha256 of its content
    phash.*   column `bits` (32) uint8, the perceptual hash, under the keys of the images; stores of earlier versions
              lack it
    texts.*   column `vectors` (D), float16; the key is of the text
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from impart.encoders import load_encoder
from impart.encoders.base import Encoder
from impart.errors import DataError
from impart.files import file_state, read_ahead
from impart.images import load_image
from impart.refset.pairs import Pair
from impart.retrieval.near_duplicates import HASH_BITS, perceptual_hash
from impart.train.events import Preparing
from impart.train.prepare.columns import Column, ColumnStore, column_key
from impart.train.settings import DataSettings

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["EmbeddedImages", "EmbeddingStore", "cache_folder", "image_key", "load_frozen_encoder"]

_READERS = 2
_TEXTS = 256
_SHA256 = 64  # hex digits
Float16 = npt.NDArray[np.float16]
_Loaded: TypeAlias = "tuple[int, Image.Image | None, str, str]"


@dataclass
class EmbeddedImages:
    """Rows of the images that `EmbeddingStore.images` was asked for; n of them could be used.

    Attributes:
        rows: (n,) rows of the store.
        hashes: n content hashes (sha256).
        phashes: n perceptual hashes; empty where the image is too plain, or the row is of an earlier version.
        usable: position among the n of each image asked for, or -1.
        failures: (path, reason) of the others.
    """

    rows: npt.NDArray[np.int64]
    hashes: list[str]
    phashes: list[str]
    usable: npt.NDArray[np.int64]
    failures: list[tuple[str, str]] = field(default_factory=list)


def cache_folder(options: DataSettings, out: Path, name: str) -> Path:
    """Return where a run keeps what it computes once: `data.cache`, or else `OUT/name`."""
    return Path(options.cache).expanduser() if options.cache else out / name


def load_frozen_encoder(options: DataSettings) -> Encoder:
    """Load the encoder that `data.encoder` names."""
    return load_encoder(options.encoder, **({"threads": options.threads} if options.threads else {}))


def image_key(pair: Pair) -> str:
    """Return the key of an image: of its location and its file's size and time of change.

    A replaced file has another key.
    """
    location = pair.image_key
    state = file_state(Path(location.split("::", 1)[0]))
    return column_key(f"{location}|{state}")


_IMAGES_ON_DISK = "pictures"  # name of the files, as version 0.1.0 wrote them


class EmbeddingStore:
    """Embeddings of one encoder on disk.

    Args:
        folder: contains one store per encoder; made when missing.
        encoder: computes what is missing.
        batch: images in one forward pass.
        max_megapixels: larger images are refused.

    Raises:
        TrainingError: the folder cannot be written.
    """

    def __init__(self, folder: Path, encoder: Encoder, *, batch: int = 32, max_megapixels: float = 100.0):
        self._encoder = encoder
        self._batch = batch
        self._max_megapixels = max_megapixels
        self.folder = folder / encoder.fingerprint[:16]
        traits = encoder.traits
        images = {"image": Column(np.float16, (traits.dim,))}
        if traits.own_retrieval:
            images["retrieval"] = Column(np.float16, (traits.retrieval_dim,))
        self._images = ColumnStore(self.folder, _IMAGES_ON_DISK, images, note=_SHA256)
        self._phashes = ColumnStore(self.folder, "phash", {"bits": Column(np.uint8, (HASH_BITS // 8,))})
        self._texts = ColumnStore(self.folder, "texts", {"vectors": Column(np.float16, (traits.dim,))})

    @classmethod
    def of_run(cls, options: DataSettings, encoder: Encoder, out: Path) -> EmbeddingStore:
        """Open the store of a run: in `data.cache`, or else in `OUT/embeddings`."""
        folder = cache_folder(options, out, "embeddings")
        return cls(folder, encoder, batch=options.batch, max_megapixels=options.max_megapixels)

    @property
    def image(self) -> Float16:
        """(N, D) image embeddings of all rows, memory-mapped."""
        return self._images.column("image")

    @property
    def retrieval(self) -> Float16:
        """(N, R) retrieval embeddings of all rows, memory-mapped."""
        return self._images.column("retrieval" if self._encoder.traits.own_retrieval else "image")

    @property
    def text(self) -> Float16:
        """(M, D) text embeddings of all rows, memory-mapped."""
        return self._texts.column("vectors")

    def images(self, pairs: Sequence[Pair]) -> Generator[Preparing, None, EmbeddedImages]:
        """Embed the images of `pairs` (one pair per image) that have no row yet.

        Yields:
            Progress.

        Returns:
            The rows of all images. An image that cannot be read is among the failures.
        """
        keys = [image_key(pair) for pair in pairs]
        missing = np.flatnonzero(self._images.rows(keys) < 0).tolist()
        failures: dict[int, str] = {}
        done = len(pairs) - len(missing)
        jobs = ((number, pairs[number]) for number in missing)
        with closing(read_ahead(jobs, self._load, workers=_READERS, ahead=2 * self._batch)) as loaded:
            while items := list(islice(loaded, self._batch)):
                good = [item for item in items if item[1] is not None]
                failures.update((number, reason) for number, image, reason, _ in items if image is None)
                if good:
                    self._append(good, keys)
                done += len(items)
                yield Preparing(what="images", done=done, total=len(pairs), failed=len(failures))
        found = self._images.rows(keys)
        failed = np.isin(np.arange(len(pairs)), list(failures))
        rows = found[~failed]
        usable = np.where(failed, -1, np.cumsum(~failed) - 1)
        listed = [
            (pairs[number].path or pairs[number].image_key, reason) for number, reason in sorted(failures.items())
        ]
        kept = [key for key, lost in zip(keys, failed, strict=True) if not lost]
        return EmbeddedImages(rows, self._images.notes(rows), self._perceptual(kept), usable, listed)

    def texts(self, texts: Sequence[str]) -> Generator[Preparing, None, npt.NDArray[np.int64]]:
        """Embed the texts that have no row yet.

        Yields:
            Progress.

        Returns:
            (T,) rows of all texts.
        """
        keys = [column_key(text) for text in texts]
        order = sorted(self._texts.missing(keys), key=lambda number: len(texts[number]))  # equal lengths pad little
        for first in range(0, len(order), _TEXTS):
            part = order[first : first + _TEXTS]
            vectors = self._encoder.encode_texts([texts[number] for number in part])
            self._texts.append([keys[number] for number in part], {"vectors": vectors})
            done = len(texts) - len(order) + first + len(part)
            yield Preparing(what="texts", done=done, total=len(texts))
        return self._texts.rows(keys)

    def _perceptual(self, keys: Sequence[str]) -> list[str]:
        """Return the perceptual hash of each image; empty where there is none."""
        rows = self._phashes.rows(keys)
        bits = self._phashes.column("bits")
        return [bits[row].tobytes().hex() if row >= 0 else "" for row in rows]

    def _append(self, items: Sequence[_Loaded], keys: Sequence[str]) -> None:
        hashed = [(keys[number], bytes.fromhex(phash)) for number, _, _, phash in items if phash]
        new = self._phashes.missing([key for key, _ in hashed])
        bits = np.array([list(hashed[number][1]) for number in new], dtype=np.uint8).reshape(-1, HASH_BITS // 8)
        self._phashes.append([hashed[number][0] for number in new], {"bits": bits})
        made = self._encoder.encode_images([image for _, image, _, _ in items if image is not None])
        values: dict[str, npt.NDArray[Any]] = {"image": made.embeddings}
        if self._encoder.traits.own_retrieval:
            values["retrieval"] = made.retrieval
        self._images.append([keys[number] for number, *_ in items], values, [digest for _, _, digest, _ in items])

    def _load(self, job: tuple[int, Pair]) -> _Loaded:
        """Read an image: (number, image, hash, perceptual hash), or (number, None, reason, ""); in a reader thread."""
        number, pair = job
        try:
            image, digest = load_image(pair.image, max_megapixels=self._max_megapixels)
        except DataError as error:
            return number, None, str(error), ""
        return number, image, digest, perceptual_hash(image)
