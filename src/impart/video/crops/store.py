"""The crops of an index on disk: `crops/` in its folder.

    <video_id>-<revision>.npy    float16 (n, 5, R): retrieval embeddings of five parts of each of the video's n segments

A file is written in one step, and is valid as long as the video has this revision. Without this folder an index has no
crops. It may be deleted at any time.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from impart.errors import VideoIndexError
from impart.files import atomic_path, file_stamp, make_folder, remove_stale
from impart.video.index.remote.mirror import publishing
from impart.video.index.store import VideoRecord
from impart.video.integrity import bytes_below

__all__ = ["PARTS", "CropStore", "key_of"]

FOLDER = "crops"
PARTS = 5
"""Parts of a frame."""


class CropStore:
    """Reads and writes the crops of one index. The caller of a method that writes holds the index's write lock.

    Args:
        index: folder of the index.
    """

    def __init__(self, index: Path) -> None:
        self.index = index
        self.folder = index / FOLDER

    def state(self) -> str:
        """Return a text that changes when a file is added or removed; empty without crops."""
        return file_stamp(self.folder) if self.folder.is_dir() else ""

    def known(self) -> frozenset[str]:
        """List the keys of the videos that have crops, see `key_of`."""
        return frozenset(file.stem for file in self.folder.glob("*.npy"))

    def size_bytes(self) -> int:
        """Sum the sizes of the files."""
        return bytes_below(self.folder)

    def load(self, key: str) -> npt.NDArray[np.float16] | None:
        """Map the crops (n, 5, R) of a video into memory; None where there are none.

        Raises:
            VideoIndexError: the file is damaged.
        """
        file = self.folder / f"{key}.npy"
        try:
            rows: npt.NDArray[np.float16] = np.load(file, mmap_mode="r", allow_pickle=False)
            if rows.ndim != 3 or rows.shape[1] != PARTS or rows.dtype != np.float16:
                raise ValueError(f"it has the shape {rows.shape}")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError) as error:
            raise VideoIndexError(
                f"{file} is damaged ({error}): delete it, then make it again with: impart index PATH... --crops"
            ) from error
        return rows

    def save(self, key: str, rows: npt.NDArray[np.float16]) -> None:
        """Write the crops (n, 5, R) of a video.

        Raises:
            VideoIndexError: they cannot be written.
        """
        file = self.folder / f"{key}.npy"
        try:
            with publishing(self.index, f"{FOLDER}/{file.name}"):
                make_folder(self.folder, parents=False)
                with atomic_path(file) as part, part.open("wb") as stream:
                    np.save(stream, rows)
        except OSError as error:
            raise VideoIndexError(f"cannot write {file}: {error.strerror or error}; the next run goes on") from error

    def keep(self, records: Iterable[VideoRecord]) -> None:
        """Remove the crops of all other videos, such as those that were removed or changed."""
        if self.folder.is_dir():
            with publishing(self.index, FOLDER):
                remove_stale(self.folder, ("*.npy", "*.part"), keep={key_of(record) for record in records})


def key_of(record: VideoRecord) -> str:
    """Return the name of a video's file, without its suffix."""
    return f"{record.video_id}-{record.revision}"
