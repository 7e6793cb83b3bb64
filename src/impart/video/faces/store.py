"""The faces of an index on disk: `faces/` in its folder.

    videos.npz      one row per face found in a video: video, time, box, descriptor; and the videos that were searched
    examples.npz    the faces in the images of taught names, by the hash of the image

The first is written under the write lock of the index, the second under that of the names (`names/.lock`). Without this
folder an index has no data of faces. `FaceStore.purge` deletes it.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from impart.encoders.base import Float32
from impart.errors import VideoIndexError
from impart.files import atomic_path, file_stamp, make_folder
from impart.video.index.remote.mirror import publishing

__all__ = ["FOLDER", "FaceStore", "VideoFaces"]

FOLDER = "faces"
_WIDTH = 128


@dataclass(frozen=True, kw_only=True)
class VideoFaces:
    """Faces found in the videos of an index.

    Attributes:
        searched: (video_id, revision) of the videos that were searched, also those without a face.
        keys: f, (video_id, revision) of each face.
        start_s, end_s: (f,) span of the frame in which it was found.
        boxes: (f, 4) x0, y0, x1, y1 as fractions of the frame.
        descriptors: (f, 128).
    """

    searched: frozenset[tuple[str, str]]
    keys: tuple[tuple[str, str], ...]
    start_s: npt.NDArray[np.float64]
    end_s: npt.NDArray[np.float64]
    boxes: Float32
    descriptors: Float32

    def __len__(self) -> int:
        return len(self.keys)

    @classmethod
    def none(cls) -> VideoFaces:
        """Make an empty one."""
        empty = np.zeros(0)
        boxes, descriptors = (np.zeros((0, width), np.float32) for width in (4, _WIDTH))
        return cls(searched=frozenset(), keys=(), start_s=empty, end_s=empty, boxes=boxes, descriptors=descriptors)

    def joined(self, other: VideoFaces) -> VideoFaces:
        """Append the faces of other videos."""
        return VideoFaces(
            searched=self.searched | other.searched,
            keys=self.keys + other.keys,
            start_s=np.concatenate([self.start_s, other.start_s]),
            end_s=np.concatenate([self.end_s, other.end_s]),
            boxes=np.concatenate([self.boxes, other.boxes]),
            descriptors=np.concatenate([self.descriptors, other.descriptors]),
        )

    def without(self, videos: frozenset[tuple[str, str]]) -> VideoFaces:
        """Leave out the faces of some videos."""
        return self.only((self.searched | frozenset(self.keys)) - videos)

    def only(self, wanted: frozenset[tuple[str, str]]) -> VideoFaces:
        """Keep the faces of some videos."""
        kept = np.array([key in wanted for key in self.keys], bool)
        return VideoFaces(
            searched=self.searched & wanted,
            keys=tuple(key for key in self.keys if key in wanted),
            start_s=self.start_s[kept],
            end_s=self.end_s[kept],
            boxes=self.boxes[kept],
            descriptors=self.descriptors[kept],
        )


class FaceStore:
    """Reads and writes the faces of one index. The caller of a method that writes holds the lock of its file.

    Args:
        index: folder of the index.
    """

    def __init__(self, index: Path) -> None:
        self.folder = index / FOLDER
        self._videos = self.folder / "videos.npz"
        self._examples = self.folder / "examples.npz"

    @property
    def on(self) -> bool:
        """Whether faces were searched for in this index."""
        return self._videos.is_file()

    def state(self) -> str:
        """Return a text that changes when the files do."""
        return " ".join(str(file_stamp(file)) for file in (self._videos, self._examples) if file.is_file())

    def videos(self) -> VideoFaces:
        """Read the faces of the videos; none, where none were searched for.

        Raises:
            VideoIndexError: the file is damaged.
        """
        if not self.on:
            return VideoFaces.none()
        arrays = self._read(self._videos)
        try:
            return VideoFaces(
                searched=frozenset((a, b) for a, b in arrays["searched"].tolist()),
                keys=tuple((a, b) for a, b in arrays["keys"].tolist()),
                start_s=arrays["start_s"],
                end_s=arrays["end_s"],
                boxes=arrays["boxes"].reshape(-1, 4),
                descriptors=arrays["descriptors"].reshape(-1, _WIDTH),
            )
        except (LookupError, ValueError) as error:
            raise self._damaged(self._videos) from error

    def save_videos(self, faces: VideoFaces) -> None:
        """Replace the faces of the videos."""
        self._write(
            self._videos,
            {
                "searched": np.array(sorted(faces.searched), dtype=str).reshape(-1, 2),
                "keys": np.array(faces.keys, dtype=str).reshape(-1, 2),
                "start_s": faces.start_s,
                "end_s": faces.end_s,
                "boxes": faces.boxes,
                "descriptors": faces.descriptors,
            },
        )

    def keep(self, committed: frozenset[tuple[str, str]]) -> None:
        """Delete the faces of all other videos: those that were removed from the index, or changed."""
        if self.on:
            faces = self.videos()
            if faces.searched - committed:
                self.save_videos(faces.only(committed))

    def examples(self) -> dict[str, Float32]:
        """Read the faces (f, 128) of the images of taught names, by the hash of the image.

        Raises:
            VideoIndexError: the file is damaged.
        """
        return self._read(self._examples) if self._examples.is_file() else {}

    def save_examples(self, faces: Mapping[str, Float32]) -> None:
        """Replace the faces of the images of taught names."""
        self._write(self._examples, dict(faces))

    def purge(self) -> None:
        """Delete all data of faces; the caller holds both locks.

        Raises:
            VideoIndexError: a file cannot be deleted.
        """
        try:
            with publishing(self.folder.parent, FOLDER):
                if self.folder.is_dir():
                    shutil.rmtree(self.folder)
        except OSError as error:
            raise VideoIndexError(
                f"{error.filename} cannot be deleted: {error.strerror}; data of faces may be left in {self.folder}"
            ) from error

    def _read(self, file: Path) -> dict[str, Any]:
        try:
            with np.load(file, allow_pickle=False) as stored:
                return {name: stored[name] for name in stored.files}
        except (OSError, ValueError, EOFError, BadZipFile) as error:
            raise self._damaged(file) from error

    def _write(self, file: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        try:
            named: dict[str, Any] = dict(arrays)
            with publishing(self.folder.parent, f"{FOLDER}/{file.name}"):
                make_folder(self.folder, parents=False)
                with atomic_path(file) as part, part.open("wb") as stream:
                    np.savez(stream, **named)
        except OSError as error:
            raise VideoIndexError(f"cannot write {file}: {error.strerror or error}; the old one is kept") from error

    def _damaged(self, file: Path) -> VideoIndexError:
        return VideoIndexError(
            f"{file} is damaged: delete all data of faces with: impart names purge -i {self.folder.parent}; then find "
            f"them again with: impart names faces -i {self.folder.parent}"
        )
