"""Finished exports on disk: a folder per job, bounded by size and age."""

from __future__ import annotations

import shutil
import threading
import time
from contextlib import suppress
from pathlib import Path

from impart.video.integrity import bytes_below

__all__ = ["ExportFiles"]


class ExportFiles:
    """The files of export jobs.

    Args:
        folder: of all exports; made with the first one.
        most_mb: most megabytes; the oldest exports are deleted.
        age_s: seconds after which an export is deleted, also one that an earlier server left.
    """

    def __init__(self, folder: Path, *, most_mb: int, age_s: float) -> None:
        self._folder = folder
        self._most_bytes = most_mb * 1_000_000
        self._age_s = age_s
        self._lock = threading.Lock()
        self._own: set[str] = set()

    def folder_of(self, job_id: str) -> Path:
        """Return the folder of a job."""
        return self._folder / job_id

    def make_folder(self, job_id: str) -> Path:
        """Make the folder of a job, after those that are too old were deleted.

        Raises:
            OSError: it cannot be made.
        """
        self.keep_within_limits()
        folder = self.folder_of(job_id)
        folder.mkdir(parents=True)
        with self._lock:
            self._own.add(job_id)
        return folder

    def remove(self, job_id: str) -> None:
        """Delete the files of a job."""
        with self._lock:
            if job_id in self._own:
                self._own.discard(job_id)
                shutil.rmtree(self.folder_of(job_id), ignore_errors=True)

    def clear(self) -> None:
        """Delete the files of all jobs of this server."""
        for job_id in list(self._own):
            self.remove(job_id)

    def keep_within_limits(self) -> None:
        """Delete exports that are too old, and the oldest ones where all together are too large; never the newest."""
        found: list[tuple[float, Path]] = []
        with suppress(OSError):
            for folder in self._folder.iterdir():
                with suppress(OSError):
                    found.append((folder.stat().st_mtime, folder))
        found.sort(reverse=True)
        total, now = 0, time.time()
        for place, (changed, folder) in enumerate(found):
            total += bytes_below(folder)
            if now - changed > self._age_s or (place and total > self._most_bytes):
                shutil.rmtree(folder, ignore_errors=True)
