"""A bounded folder of made files, such as frame images: what was used least recently is deleted first.

The time of last use is the file's modification time, so several threads and processes share one folder without a
record of it. Files appear whole or not at all. A folder that cannot be written costs the cache, not the answer.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from impart.files import atomic_path, blake2b_hex

__all__ = ["DiskCache"]

TRIMMED_TO = 0.9  # of the bound, so that not every new file starts a count
COUNT_AFTER = 0.1  # of the bound: count again after this many bytes, since other processes write as well
STALE_S = 3600.0  # a temporary file that old is from a process that ended


class DiskCache:
    """Keeps files by key in one folder.

    Args:
        folder: made with the first file; holds nothing else.
        most_bytes: of all files together. Several processes may exceed it by a tenth each.
        suffix: of the files.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> cache = DiskCache(Path(folder.name) / "frames", most_bytes=1 << 20, suffix=".webp")
        >>> with cache.writing("a frame") as part:
        ...     _ = part.write_bytes(b"pixels")
        >>> cache.path("a frame").read_bytes()
        b'pixels'
        >>> folder.cleanup()
    """

    def __init__(self, folder: Path, *, most_bytes: int, suffix: str) -> None:
        self._folder, self._most, self._suffix = folder, most_bytes, suffix
        self._lock = threading.Lock()
        self._uncounted: float = float("inf")  # bytes written since the last count; nothing was counted yet

    def path(self, key: str) -> Path | None:
        """Find the file of a key and note its use; None where there is none. It may be deleted at any time."""
        path = self._path(key)
        try:
            os.utime(path)
        except OSError:
            return path if path.is_file() else None  # of another person's folder: readable all the same
        return path

    def read(self, key: str) -> bytes | None:
        """Read the file of a key; None where there is none."""
        path = self.path(key)
        try:
            return None if path is None else path.read_bytes()
        except OSError:
            return None

    @contextmanager
    def writing(self, key: str) -> Iterator[Path]:
        """Yield a temporary path; what is written there is kept under the key when the block ends without an error.

        Raises:
            OSError: the folder cannot be written.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(key)
        with atomic_path(path, keep_suffix=True) as part:
            yield part
        self._written(path)

    def _path(self, key: str) -> Path:
        return self._folder / f"{blake2b_hex(key)}{self._suffix}"

    def _written(self, path: Path) -> None:
        with self._lock:
            with suppress(OSError):
                self._uncounted += path.stat().st_size
            if self._uncounted > COUNT_AFTER * self._most:
                self._uncounted = 0.0
                self._trim(keep=path)

    def _trim(self, *, keep: Path) -> None:
        files = []
        for entry in os.scandir(self._folder):
            with suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                if entry.name.startswith(".") and time.time() - status.st_mtime > STALE_S:
                    os.unlink(entry.path)  # noqa: PTH108 - a path of scandir
                elif not entry.name.startswith(".") and entry.name.endswith(self._suffix):
                    files.append((status.st_mtime_ns, status.st_size, entry.path))
        held = sum(size for _, size, _ in files)
        if held <= self._most:
            return
        for _, size, path in sorted(files):
            if held <= TRIMMED_TO * self._most:
                return
            if path != str(keep):
                with suppress(OSError):  # another process deleted it, or a reader has it open (Windows)
                    os.unlink(path)  # noqa: PTH108 - a path of scandir
                    held -= size
