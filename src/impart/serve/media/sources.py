"""Source files of an index as they are now: open them, and tell what identifies their content."""

from __future__ import annotations

from impart.serve.media.files import FileGoneError, OpenFile, open_file
from impart.video.decode.content import content_of, is_photo
from impart.video.index.store import VideoRecord

__all__ = ["content_key", "is_changed", "open_source"]

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
