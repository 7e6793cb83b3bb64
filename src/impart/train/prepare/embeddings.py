"""Embeddings of a frozen encoder, computed once and memory-mapped: any number of pairs, any number of stops.

A store is a folder named after the encoder's fingerprint, with fixed-width rows in plain files that only ever grow:

    images.keys       key of the image's place and state, and the sha256 of its content: 98 bytes a row
    images.image      (n, D) float16
    images.retrieval  (n, R) float16, where the encoder has retrieval embeddings of its own
    texts.keys          key of the text: 33 bytes a row
    texts.vectors       (m, D) float16

A killed writer leaves files of different lengths; opening cuts them to the rows that all of them hold. An image or
text that is there is never computed again, whichever run asks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock
import numpy as np
import numpy.typing as npt

from impart.encoders.base import Encoder
from impart.errors import DataError, TrainingError
from impart.files import file_state, read_ahead, sha256_hex
from impart.refset.pairs import Pair, load_image
from impart.train.events import Preparing

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["EmbeddedImages", "EmbeddingStore", "image_key"]

_KEY = 32  # hex digits kept of a sha256 as a key
_READERS = 2
_TEXTS = 256
Float16 = npt.NDArray[np.float16]


@dataclass
class EmbeddedImages:
    """What `EmbeddingStore.images` found or made; n of the images asked for could be used.

    Attributes:
        rows: (n,) rows of the store.
        hashes: n content hashes (sha256).
        usable: for each image asked for, its place among the n, or -1.
        failures: (path, reason) of the others.
    """

    rows: npt.NDArray[np.int64]
    hashes: list[str]
    usable: npt.NDArray[np.int64]
    failures: list[tuple[str, str]] = field(default_factory=list)


def image_key(pair: Pair) -> str:
    """Key of an image: where it is and, of its file, size and time of change; a replaced file has another key."""
    place = pair.image_key
    state = file_state(Path(place.split("::", 1)[0]))
    return sha256_hex(f"{place}|{state}")[:_KEY]


class EmbeddingStore:
    """Embeddings of one encoder on disk.

    Args:
        folder: holds one store an encoder; made when missing.
        encoder: computes what is missing.
        batch: images in one forward pass.
        max_megapixels: larger images are refused.
    """

    def __init__(self, folder: Path, encoder: Encoder, *, batch: int = 32, max_megapixels: float = 100.0):
        self._encoder = encoder
        self._batch = batch
        self._max_megapixels = max_megapixels
        self.folder = folder / encoder.fingerprint[:16]
        traits = encoder.traits
        images = {"keys": (np.dtype("S98"), 1), "image": (np.dtype(np.float16), traits.dim)}
        if traits.own_retrieval:
            images["retrieval"] = (np.dtype(np.float16), traits.retrieval_dim)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._images = _Rows(self.folder, "images", images)
            self._texts = _Rows(
                self.folder, "texts", {"keys": (np.dtype("S33"), 1), "vectors": (np.dtype(np.float16), traits.dim)}
            )
        except OSError as error:
            raise TrainingError(f"cannot write embeddings to {self.folder}: {error.strerror}") from error

    @property
    def image(self) -> Float16:
        """(N, D) image embeddings of all rows, memory-mapped."""
        return self._images.map("image")

    @property
    def retrieval(self) -> Float16:
        """(N, R) retrieval embeddings of all rows, memory-mapped."""
        return self._images.map("retrieval" if self._encoder.traits.own_retrieval else "image")

    @property
    def text(self) -> Float16:
        """(M, D) text embeddings of all rows, memory-mapped."""
        return self._texts.map("vectors")

    def images(self, pairs: Sequence[Pair]) -> Iterator[Preparing | EmbeddedImages]:
        """Make sure that the images of `pairs` (one pair an image) are there.

        Yields:
            Progress, and at the end the result. An image that cannot be read costs itself.
        """
        keys = [image_key(pair) for pair in pairs]
        known = self._known(self._images)
        missing = [number for number, key in enumerate(keys) if key not in known]
        failures: dict[int, str] = {}
        done = len(pairs) - len(missing)
        jobs = ((number, pairs[number]) for number in missing)
        with closing(read_ahead(jobs, self._load, workers=_READERS, ahead=2 * self._batch)) as loaded:
            while items := list(islice(loaded, self._batch)):
                good = [(number, image, digest) for number, image, digest in items if image is not None]
                failures.update((number, reason) for number, image, reason in items if image is None)
                if good:
                    self._append(good, keys)
                done += len(items)
                yield Preparing(what="images", done=done, total=len(pairs), failed=len(failures))
        known = self._known(self._images)
        table = self._images.map("keys")
        rows: list[int] = []
        usable = np.full(len(pairs), -1, dtype=np.int64)
        for number, key in enumerate(keys):
            if number not in failures:
                usable[number] = len(rows)
                rows.append(known[key])
        hashes = [bytes(line)[33:97].decode() for line in table[rows, 0]] if rows else []
        listed = [
            (pairs[number].path or pairs[number].image_key, reason) for number, reason in sorted(failures.items())
        ]
        yield EmbeddedImages(np.array(rows, dtype=np.int64), hashes, usable, listed)

    def texts(self, texts: Sequence[str]) -> Iterator[Preparing | npt.NDArray[np.int64]]:
        """Make sure that texts are there. Yields progress, and at the end their rows (T,)."""
        keys = [sha256_hex(text)[:_KEY] for text in texts]
        known = self._known(self._texts)
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        order = sorted(missing, key=lambda key: len(missing[key]))  # equal lengths pad little
        for first in range(0, len(order), _TEXTS):
            part = order[first : first + _TEXTS]
            vectors = self._encoder.encode_texts([missing[key] for key in part])
            lines = np.array([f"{key}\n".encode() for key in part], dtype="S33")[:, None]
            self._texts.append({"vectors": vectors, "keys": lines})
            done = len(texts) - len(order) + first + len(part)
            yield Preparing(what="texts", done=done, total=len(texts))
        known = self._known(self._texts)
        yield np.array([known[key] for key in keys], dtype=np.int64)

    def _append(self, items: Sequence[tuple[int, Image.Image | None, str]], keys: Sequence[str]) -> None:
        made = self._encoder.encode_images([image for _, image, _ in items if image is not None])
        lines = np.array([f"{keys[number]} {digest}\n".encode() for number, _, digest in items], dtype="S98")[:, None]
        rows: dict[str, npt.NDArray[Any]] = {"image": made.embeddings, "keys": lines}
        if self._encoder.traits.own_retrieval:
            rows["retrieval"] = made.retrieval
        self._images.append(rows)

    @staticmethod
    def _known(rows: _Rows) -> dict[str, int]:
        """Row of each key."""
        return {bytes(line)[:_KEY].decode(): row for row, line in enumerate(rows.map("keys")[:, 0])}

    def _load(self, job: tuple[int, Pair]) -> tuple[int, Image.Image | None, str]:
        """(number, image, hash), or (number, None, reason) where it cannot be read; runs in a reader thread."""
        number, pair = job
        try:
            image, digest = load_image(pair.image, max_megapixels=self._max_megapixels)
        except DataError as error:
            return number, None, str(error)
        return number, image, digest


class _Rows:
    """Columns of fixed width in files that grow together; `keys` is written last, so that a row with a key is whole.

    Several processes may append, each under a lock; a row once written stays where it is.
    """

    def __init__(self, folder: Path, name: str, columns: dict[str, tuple[np.dtype[Any], int]]):
        self._columns = columns
        self._paths = {column: folder / f"{name}.{column}" for column in columns}
        self._lock = filelock.FileLock(folder / f"{name}.lock")
        self.count = 0
        for path in self._paths.values():
            path.touch()
        with self._lock:
            self._trim()

    def _trim(self) -> None:
        """Count the whole rows, and cut off what a killed process left beyond them."""
        self.count = min(path.stat().st_size // self._width(column) for column, path in self._paths.items())
        for column, path in self._paths.items():
            if path.stat().st_size != self.count * self._width(column):
                os.truncate(path, self.count * self._width(column))

    def _width(self, column: str) -> int:
        dtype, numbers = self._columns[column]
        return dtype.itemsize * numbers

    def append(self, rows: dict[str, npt.NDArray[Any]]) -> None:
        """Write rows (n, width) of every column."""
        count = len(rows["keys"])
        with self._lock:
            self._trim()
            for column in sorted(self._columns, key=lambda column: column == "keys"):
                dtype, numbers = self._columns[column]
                values = np.ascontiguousarray(rows[column], dtype=dtype)
                assert values.shape == (count, numbers), (column, values.shape)
                with self._paths[column].open("ab") as file:
                    file.write(values.tobytes())
            self.count += count

    def map(self, column: str) -> npt.NDArray[Any]:
        """(count, width), memory-mapped."""
        dtype, numbers = self._columns[column]
        if not self.count:
            return np.zeros((0, numbers), dtype)
        return np.memmap(self._paths[column], dtype=dtype, mode="r", shape=(self.count, numbers))
