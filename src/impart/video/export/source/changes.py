"""Whether a file is still the one that was indexed: its spans can be trusted only then."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from impart.video.index.files.scan import content_hash

__all__ = ["IndexedFile", "change_of"]


class IndexedFile(Protocol):
    """A file as it was indexed, such as a `VideoRecord`."""

    @property
    def size_bytes(self) -> int: ...

    @property
    def mtime_ns(self) -> int: ...

    @property
    def content_hash(self) -> str: ...


def change_of(path: Path, known: IndexedFile | None) -> str | None:
    """Name the reason why the spans of a file cannot be trusted, or None.

    Args:
        known: the file as it was indexed; None = it is no longer in the index.
    """
    try:
        status = path.stat()
        if known is None:
            return f"{path} is no longer in the index: search again"
        same = status.st_size == known.size_bytes and status.st_mtime_ns == known.mtime_ns
        if same or content_hash(path) == known.content_hash:
            return None
    except FileNotFoundError:
        return f"{path} is gone: bring it back, or run impart index again"
    except OSError as error:
        return f"{path} cannot be read: {error.strerror or error}"
    return f"{path} has changed since it was indexed: run impart index again, then search again"
