"""The taught names of an index on disk: `names/` in its folder.

    manifest.json, pairs-<digest>.arrow    a reference set, one row per image (`impart refset info INDEX/names`)
    images/<hash>.jpg                      a small copy of each image, for people

A taught name is a set of reference pairs: image and name. `text` has the name, `path` what was given (a file, or
`clip.mp4@12.5`), `hash` and `phash` tell the same image again. Saving writes the new rows beside the old ones and then
replaces the manifest: a process killed at any moment leaves the old names or the new ones.

Names have a write lock of their own, `names/.lock`: nothing that an indexing run writes is changed by teaching, so
names are taught while a run holds the write lock of the index for hours.
"""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from impart.blending.tune import bundled_background, tune
from impart.encoders.base import Float32
from impart.errors import EncoderMismatchError, IndexLockedError, ReferenceSetError, VideoIndexError
from impart.files import make_folder, remove_stale, sha256_hex, write_atomic
from impart.refset.refset import ReferenceSet
from impart.video.index.manifest import IndexManifest
from impart.video.index.remote.claim import claimed
from impart.video.index.remote.mirror import publishing, refreshed

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["FOLDER", "Example", "NameStore", "TaughtNames", "fold", "names_lock"]

FOLDER = "names"
_IMAGES = "images"
_SOURCE = "names"
_MANIFEST = "manifest.json"
_THUMB_PX = 256
_QUALITY = 85
_LOCK = ".lock"
_WAIT_S = 5.0  # for another process that teaches names


def fold(name: str) -> str:
    """Return the key under which a name is unique: without case, with single spaces, composed (NFC).

    >>> fold("  Uncle  Joe ")
    'uncle joe'
    """
    return unicodedata.normalize("NFC", " ".join(name.split())).casefold()


@contextmanager
def names_lock(index: Path) -> Iterator[None]:
    """Hold the write lock of an index's names; who also needs that of the index takes it first.

    Args:
        index: folder of the index.

    Raises:
        IndexLockedError: another process is teaching names for longer than a few seconds.
        VideoIndexError: the folder cannot be written.
    """
    from filelock import FileLock, Timeout

    folder = index / FOLDER
    try:
        make_folder(folder, parents=False)
        lock = FileLock(str(folder / _LOCK), timeout=_WAIT_S)
        lock.acquire()
    except Timeout as error:
        raise IndexLockedError(f"another process is teaching names to the index {index}: try again") from error
    except (OSError, NotImplementedError) as error:
        raise VideoIndexError(f"cannot lock {folder} for writing: {error}; names taught before are kept") from error
    try:
        with claimed(index, FOLDER, wait_s=_WAIT_S):
            yield
    finally:
        lock.release()


@dataclass(frozen=True, kw_only=True)
class Example:
    """One image of a name, encoded.

    Attributes:
        name: the name.
        source: what was given: a file, or a moment such as `clip.mp4@12.5`.
        hash: of the image's content; phash: its perceptual hash, or "".
        embedding: (D,); text_embedding: (D,) of the name; retrieval: (R,). All L2-normalised.
        thumbnail: the image; None where only its vectors are known.
    """

    name: str
    source: str
    hash: str
    phash: str
    embedding: Float32
    text_embedding: Float32
    retrieval: Float32
    thumbnail: Image.Image | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class TaughtNames:
    """The names of an index, as of one commit.

    Attributes:
        state: changes with every commit; "" = none was taught yet.
        references: the reference set with one row per image; None without names.
        folder: `names/` of the index.
    """

    state: str
    references: ReferenceSet | None
    folder: Path

    @cached_property
    def rows(self) -> dict[str, npt.NDArray[np.int64]]:
        """Row numbers of the images of each name; names in alphabetical order."""
        texts = np.array(self.references.texts if self.references is not None else (), dtype=object)
        names = sorted(set(texts.tolist()), key=lambda name: (fold(name), name))
        return {name: np.flatnonzero(texts == name) for name in names}

    @property
    def names(self) -> tuple[str, ...]:
        """Names in alphabetical order."""
        return tuple(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def known(self, name: str) -> str | None:
        """Return the name as it was taught, whatever the case; None where it was not."""
        key = fold(name)
        return next((known for known in self.rows if fold(known) == key), None)

    def retrieval(self, name: str) -> Float32:
        """Return the retrieval embeddings (m, R) of a name's images."""
        assert self.references is not None
        return self.references.retrieval_embeddings[self.rows[name]]

    def column(self, name: str, column: str) -> list[str]:
        """Return `path`, `hash` or `phash` of a name's images."""
        assert self.references is not None
        values = self.references.table[column].to_pylist()
        return [values[row] for row in self.rows[name]]

    def thumbnail(self, image_hash: str) -> Path | None:
        """Return the file of the small copy of an image; None where there is none."""
        path = self.folder / _IMAGES / f"{_stem(image_hash)}.jpg"
        return path if path.is_file() else None


class NameStore:
    """Reads and writes the names of one index.

    Args:
        index: folder of the index.
    """

    def __init__(self, index: Path) -> None:
        self.index = index
        self.folder = index / FOLDER
        self._last: TaughtNames | None = None

    def state(self) -> str:
        """Compute a digest that changes with every commit; "" = there are no names."""
        refreshed(self.index)
        try:
            return sha256_hex((self.folder / _MANIFEST).read_bytes())[:16]
        except (FileNotFoundError, NotADirectoryError):
            return ""
        except OSError as error:
            raise VideoIndexError(f"{self.folder} cannot be read: {error.strerror or error}") from error

    def read(self, manifest: IndexManifest) -> TaughtNames:
        """Read the names as they are now.

        Raises:
            VideoIndexError: they are damaged.
            EncoderMismatchError: they were taught with another encoder than that of the index.
        """
        state = self.state()
        if self._last is not None and self._last.state == state:
            return self._last
        references = None
        if state:
            try:
                references = ReferenceSet.open(self.folder)
            except ReferenceSetError as error:
                if self.state() != state:  # another process replaced them meanwhile
                    return self.read(manifest)
                raise VideoIndexError(
                    f"the names of the index {self.index} cannot be read: {error}. The images are in "
                    f"{self.folder / _IMAGES}: move {self.folder} away and teach the names again with: "
                    f"impart names add FOLDER -i {self.index}"
                ) from error
            if references.encoder_fingerprint != manifest.encoder_fingerprint:
                raise EncoderMismatchError(
                    f"the names in {self.folder} were taught with encoder {references.encoder_id!r} "
                    f"({references.encoder_fingerprint[:12]}), the index has {manifest.encoder_id!r} "
                    f"({manifest.encoder_fingerprint[:12]}): move {self.folder} away and teach them again; their "
                    f"images are in {self.folder / _IMAGES}"
                )
        self._last = TaughtNames(state=state, references=references, folder=self.folder)
        return self._last

    def add(self, examples: list[Example], manifest: IndexManifest) -> TaughtNames:
        """Append images of new or known names; the caller holds the lock of the names."""
        with publishing(self.index, FOLDER):
            return self._add(examples, manifest)

    def _add(self, examples: list[Example], manifest: IndexManifest) -> TaughtNames:
        known = self.read(manifest)
        new = _as_references(examples, manifest)
        references = new if known.references is None else known.references.merge(new)
        with self._errors():
            make_folder(self.folder / _IMAGES)
            for folder in (self.folder, self.folder / _IMAGES):
                remove_stale(folder, [".*.part"], keep=())  # of a killed process
            for example in examples:
                if example.thumbnail is not None:
                    write_atomic(self.folder / _IMAGES / f"{_stem(example.hash)}.jpg", _jpeg(example.thumbnail))
        return self._save(references, manifest, replaces=known)

    def remove(self, rows: npt.NDArray[np.int64], manifest: IndexManifest) -> TaughtNames:
        """Delete images by row number, with their small copies; the caller holds the lock of the names."""
        with publishing(self.index, FOLDER):
            return self._remove(rows, manifest)

    def _remove(self, rows: npt.NDArray[np.int64], manifest: IndexManifest) -> TaughtNames:
        known = self.read(manifest)
        assert known.references is not None
        hashes = known.references.table["hash"].to_pylist()
        gone, left = {hashes[row] for row in rows}, known.references
        if len(rows) == len(left):
            with self._errors():
                (self.folder / _MANIFEST).unlink()
                for file in self.folder.glob("*-*.*"):
                    file.unlink(missing_ok=True)
            result = self.read(manifest)
        else:
            left = left.without(rows)
            result = self._save(left, manifest, replaces=known)
            gone -= set(left.table["hash"].to_pylist())
        with self._errors():
            for one in gone:
                (self.folder / _IMAGES / f"{_stem(one)}.jpg").unlink(missing_ok=True)
        return result

    def rename(self, old: str, new: str, text_embedding: Float32, manifest: IndexManifest) -> TaughtNames:
        """Give the images of a name another one; the caller holds the lock of the names.

        Args:
            text_embedding: (D,) of the new name.
        """
        known = self.read(manifest)
        assert known.references is not None
        references, rows = known.references, known.rows[old]
        texts, vectors = list(references.texts), references.text_embeddings.copy()
        for row in rows:
            texts[row], vectors[row] = new, text_embedding
        columns = ("source", "licence", "hash", "path", "phash")
        renamed = ReferenceSet.from_arrays(
            texts,
            image=references.image_embeddings,
            text=vectors,
            retrieval=references.retrieval_embeddings,
            encoder_id=references.encoder_id,
            encoder_fingerprint=references.encoder_fingerprint,
            meta={column: references.table[column].to_pylist() for column in columns},
        )
        return self._save(renamed, manifest, replaces=known)

    def _save(self, references: ReferenceSet, manifest: IndexManifest, *, replaces: TaughtNames) -> TaughtNames:
        background = bundled_background(manifest.encoder_id, fingerprint=manifest.encoder_fingerprint)
        tuned = tune(
            references, background=background, solve=False
        ).references  # as a reference set it is gated as well
        if self.state() != replaces.state:  # an older version of IMPART holds the lock of the index, not this one
            raise IndexLockedError(f"another process taught names to the index {self.index} meanwhile: try again")
        try:
            with publishing(self.index, FOLDER):
                tuned.named(FOLDER).save(self.folder)
        except ReferenceSetError as error:
            raise VideoIndexError(f"the names cannot be saved: {error}; those taught before are kept") from error
        return self.read(manifest)

    def _errors(self) -> _Errors:
        return _Errors(self.folder)


class _Errors:
    """Converts errors of the disk to `VideoIndexError`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, OSError):
            reason = error.strerror or error
            raise VideoIndexError(f"cannot write {self._folder}: {reason}; names taught before are kept") from error


def _as_references(examples: list[Example], manifest: IndexManifest) -> ReferenceSet:
    return ReferenceSet.from_arrays(
        [example.name for example in examples],
        image=np.stack([example.embedding for example in examples]),
        text=np.stack([example.text_embedding for example in examples]),
        retrieval=np.stack([example.retrieval for example in examples]),
        encoder_id=manifest.encoder_id,
        encoder_fingerprint=manifest.encoder_fingerprint,
        source=_SOURCE,
        meta={
            "hash": [example.hash for example in examples],
            "path": [example.source.encode("utf-8", "backslashreplace").decode() for example in examples],
            "phash": [example.phash for example in examples],
        },
    )


def _stem(image_hash: str) -> str:
    return image_hash[:32]


def _jpeg(image: Image.Image) -> bytes:
    small = image.copy()
    small.thumbnail((_THUMB_PX, _THUMB_PX))
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=_QUALITY)
    return stream.getvalue()
