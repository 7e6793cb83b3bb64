"""Source files of an index as they are now: what identifies their content, and whether their clock jumps."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import av.error

from impart.errors import DecodeError
from impart.files import file_state
from impart.serve.media.files import FileGoneError, OpenFile, open_file
from impart.video.decode.container import open_video
from impart.video.decode.content import content_of, is_photo
from impart.video.decode.structure import TS
from impart.video.export.source.frames import has_jumps
from impart.video.index.store import VideoRecord

__all__ = ["content_key", "is_changed", "jumps_in", "open_source"]

_NEAR_S = 1.0
_SHOWN = frozenset({"video", "animated webp", "photo", "heif photo"})


def content_key(record: VideoRecord, *, size: int | None = None, mtime_ns: int | None = None) -> str:
    """Make a text that changes with the content of a file: the hash in the index, its size and time now.

    Args:
        size, mtime_ns: of the open file; None = they are read. Those of the index where the file is away, so that
            what was made of it before is still found.
    """
    if size is None or mtime_ns is None:
        try:
            status = record.path.stat()
            size, mtime_ns = status.st_size, status.st_mtime_ns
        except OSError:
            size, mtime_ns = record.size_bytes, record.mtime_ns
    return f"{record.content_hash} {size} {mtime_ns}"


def is_changed(record: VideoRecord, opened: OpenFile) -> bool:
    """Whether a file is another one than the index has read."""
    return (opened.size, opened.mtime_ns) != (record.size_bytes, record.mtime_ns)


def open_source(record: VideoRecord) -> OpenFile:
    """Open the file of a record.

    Raises:
        FileGoneError: it is gone, cannot be read, or is neither a video nor a photo any more.
    """
    opened = open_file(record.path)
    if not is_changed(record, opened):
        return opened
    try:
        shown = content_of(record.path) in _SHOWN or is_photo(record.path)
    except OSError as error:
        opened.close()
        raise FileGoneError(error.strerror or str(error)) from error
    if not shown:
        opened.close()
        raise FileGoneError("it was replaced by a file that is neither a video nor a photo")
    return opened


def jumps_in(record: VideoRecord) -> bool:
    """Whether the clock of a video jumps; False for other containers than transport streams.

    Only where the length in the index is not the one that FFmpeg estimates, all packets are read.

    Raises:
        DataError, DecodeError: the file cannot be read.
    """
    if record.kind == "photo" or record.container != TS:
        return False
    return not _runs_through(record.path, record.duration_s, file_state(record.path)) and has_jumps(record.path)


@lru_cache(maxsize=4096)
def _runs_through(path: Path, duration_s: float, _state: str) -> bool:
    """Whether the last time of a file is as far behind the first one as the frames of the index last."""
    try:
        with open_video(Path(os.path.abspath(path))) as container:  # noqa: PTH100 - names of any bytes
            return container.duration is not None and abs(container.duration / 1e6 - duration_s) < _NEAR_S
    except (DecodeError, av.error.FFmpegError):
        return False
