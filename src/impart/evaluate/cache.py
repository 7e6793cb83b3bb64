"""Cache of embeddings for evaluation: arrays on disk by the encoder's fingerprint and the identity of the data.

    <cache>/embeddings/<fingerprint>/<image set>/00000.npz ...   images, in parts
    <cache>/embeddings/<fingerprint>/texts/<digest>.npz          one list of texts
    <cache>/embeddings/<fingerprint>/videos/<digest>.npz         the frames of one video

One rule covers crashes and old versions: a file is written atomically, so it is whole. A file that cannot be read,
lacks an array, or has arrays of other shapes counts as missing and is made again. A killed run continues after the last
file. The folder may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from impart.encoders.base import Encoder
from impart.files import arrays_fit, atomic_path, cache_folder, digest_of

__all__ = ["KEY_DIGITS", "Arrays", "EmbeddingCache", "Layout", "key_of"]

Arrays: TypeAlias = dict[str, npt.NDArray[Any]]
Layout: TypeAlias = Mapping[str, tuple[str, tuple[int | str, ...]]]

KEY_DIGITS = 24
"""Hex digits of a digest in a key: 96 bits."""
_FINGERPRINT_DIGITS = 16


class EmbeddingCache:
    """Embeddings of base encoders in a folder.

    Args:
        folder: made at the first write; None = `impart.files.cache_folder()`.
    """

    def __init__(self, folder: Path | str | None = None) -> None:
        self.folder = Path(folder) if folder is not None else cache_folder()

    def load(self, encoder: Encoder, *key: str, layout: Layout) -> Arrays | None:
        """Load the arrays of a key; None where the file is missing or damaged, or has other arrays: they are made anew.

        Args:
            encoder: a base encoder, never an augmented one.
            key: parts of the path, as `store` got them.
            layout: arrays that must be there, see `impart.files.arrays_fit`; numbers must be finite.
        """
        try:
            with np.load(self._path(encoder, key), allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in layout}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError):
            return None
        numbers = [array for array in arrays.values() if array.dtype.kind == "f"]
        return arrays if arrays_fit(arrays, layout) and all(np.isfinite(array).all() for array in numbers) else None

    def store(self, encoder: Encoder, *key: str, arrays: Arrays) -> None:
        """Store arrays under a key. A folder that cannot be written (read-only, full) is ignored."""
        path = self._path(encoder, key)
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as part, part.open("wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]

    def _path(self, encoder: Encoder, key: Sequence[str]) -> Path:
        return self.folder.joinpath("embeddings", encoder.fingerprint[:_FINGERPRINT_DIGITS], *key).with_suffix(".npz")


def key_of(parts: Sequence[str]) -> str:
    """Digest of what a cached file depends on, as part of its key."""
    return digest_of(parts)[:KEY_DIGITS]
