"""Embeddings kept on disk, by the encoder's fingerprint and the identity of the data: a second metric costs seconds.

    <cache>/embeddings/<fingerprint>/<data>/00000.npz ...   images in parts; a killed run goes on
    <cache>/embeddings/<fingerprint>/texts/<digest>.npz     one list of texts

A part is written under another name first, so a file that is there is whole; one that cannot be read is made again.
The folder may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from impart.files import atomic_path

__all__ = ["EmbeddingCache", "default_cache_folder"]


def default_cache_folder() -> Path:
    """`IMPART_CACHE`, else `impart` in the user's cache folder."""
    if chosen := os.environ.get("IMPART_CACHE"):
        return Path(chosen)
    home = os.environ.get("LOCALAPPDATA") or os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "impart"


class EmbeddingCache:
    """Named arrays in a folder.

    Args:
        folder: made when something is first written; None = `default_cache_folder()`.
    """

    def __init__(self, folder: Path | str | None = None) -> None:
        self.folder = Path(folder) if folder is not None else default_cache_folder()

    def load(self, *key: str) -> dict[str, npt.NDArray[Any]] | None:
        """The arrays stored under a key, or None."""
        try:
            with np.load(self._path(key), allow_pickle=False) as stored:
                return {name: stored[name] for name in stored.files}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def store(self, *key: str, **arrays: npt.NDArray[Any]) -> None:
        """Keep arrays under a key. A folder that cannot be written to (read-only, full) is no reason to fail."""
        path = self._path(key)
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as part, part.open("wb") as file:
                _write(file, arrays)

    def _path(self, key: Sequence[str]) -> Path:
        return self.folder.joinpath("embeddings", *key).with_suffix(".npz")


def _write(file: BinaryIO, arrays: dict[str, npt.NDArray[Any]]) -> None:
    np.savez(file, **arrays)  # type: ignore[arg-type]
