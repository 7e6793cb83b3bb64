"""A source file of a frame or a preview: the facts of the index that decoding needs, and whether its clock jumps."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import av.error

from impart.errors import DecodeError
from impart.files import file_state
from impart.video.decode.container import open_video
from impart.video.decode.structure import TS
from impart.video.export.source.frames import has_jumps
from impart.video.index.store import VideoRecord

__all__ = ["MediaSource"]

_NEAR_S = 1.0


@dataclass(frozen=True, kw_only=True)
class MediaSource:
    """A video or photo of the index.

    Attributes:
        container: FFmpeg's name of it.
        duration_s: of the video, in the index.
    """

    path: Path
    kind: str
    container: str
    duration_s: float

    @classmethod
    def of(cls, record: VideoRecord) -> MediaSource:
        """Take it from a row of the index."""
        return cls(path=record.path, kind=record.kind, container=record.container, duration_s=record.duration_s)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> MediaSource:
        """Read what `to_json` wrote."""
        return cls(**(fields | {"path": Path(fields["path"])}))

    def to_json(self) -> dict[str, Any]:
        """Write it as values of JSON."""
        return {"path": str(self.path), "kind": self.kind, "container": self.container, "duration_s": self.duration_s}

    @property
    def jumps(self) -> bool:
        """Whether its clock jumps; False for other containers than transport streams.

        All packets are read only where the length in the index is not the one that FFmpeg estimates.

        Raises:
            DataError, DecodeError: the file cannot be read.
        """
        if self.kind == "photo" or self.container != TS:
            return False
        return not _runs_through(self.path, self.duration_s, file_state(self.path)) and has_jumps(self.path)


@lru_cache(maxsize=4096)
def _runs_through(path: Path, duration_s: float, _state: str) -> bool:
    """Whether the last time of a file is as far behind the first one as the frames of the index last."""
    try:
        with open_video(Path(os.path.abspath(path))) as container:  # noqa: PTH100 - names of any bytes
            return container.duration is not None and abs(container.duration / 1e6 - duration_s) < _NEAR_S
    except (DecodeError, av.error.FFmpegError):
        return False
