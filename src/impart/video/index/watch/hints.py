"""Hints: that something below the watched folders has changed. What has changed is found by a scan.

The system's events are not enough. A folder that is moved in is one event, and its files are never named. A file that
is replaced comes as a new one. After a watched folder is made anew, or its disk was away, no event comes any more. So
the folders themselves are checked, and the watch begins again where one is another than before.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TypeAlias

import watchfiles

__all__ = ["Hints"]

Identity: TypeAlias = "tuple[int, int] | None"
_WAIT_S = 0.5


class Hints:
    """Watch of folders that may come and go.

    Args:
        folders: absolute paths; they need not exist.
        ignored: folder whose changes are no hints: the index, which each run changes.
        events: whether to ask the system for changes; False checks the folders themselves only.
        check_s: seconds between two checks of the folders themselves.
        stop: ends a wait.

    Attributes:
        problem: why the system does not report changes; None = it does, or was not asked.
    """

    def __init__(
        self, folders: Sequence[Path], *, ignored: Path, events: bool, check_s: float, stop: threading.Event
    ) -> None:
        self.problem: str | None = None
        self._folders = tuple(folders)
        self._ignored = str(ignored)
        self._events = events
        self._check_s = check_s
        self._stop = stop
        self._known: dict[Path, Identity] = {}
        self._checked_s = 0.0
        self._stream: Generator[set[watchfiles.main.FileChange], None, None] | None = None
        self.begin_again()

    @property
    def present(self) -> tuple[Path, ...]:
        """The folders that are there."""
        return tuple(folder for folder in self._folders if self._known[folder] is not None)

    @property
    def missing(self) -> tuple[Path, ...]:
        return tuple(folder for folder in self._folders if self._known[folder] is None)

    def begin_again(self) -> None:
        """Begin the watch with the folders that are there now; changes from here on are hints."""
        self.close()
        self.problem = None
        self._known = {folder: _identity(folder) for folder in self._folders}
        self._checked_s = time.monotonic()
        if self._events and self.present:
            self._stream = watchfiles.watch(
                *self.present,
                watch_filter=None,
                debounce=400,
                step=100,
                rust_timeout=round(_WAIT_S * 1000),
                yield_on_timeout=True,
                stop_event=self._stop,
                ignore_permission_denied=True,
            )
            self._next()  # the watch begins with the first one

    def wait(self) -> bool:
        """Wait for a change, at most half a second. Returns whether something may have changed."""
        changed = self._next()
        if time.monotonic() - self._checked_s >= self._check_s:
            self._checked_s = time.monotonic()
            if any(_identity(folder) != self._known[folder] for folder in self._folders):
                self.begin_again()
                return True
        return changed

    def close(self) -> None:
        """End the watch."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _next(self) -> bool:
        if self._stream is None:
            self._stop.wait(_WAIT_S)
            return False
        try:
            changes = next(self._stream, set())
        except (OSError, RuntimeError) as error:  # no more watches (a limit of Linux), or a folder that went away
            self.problem = str(error)
            self._stream = None
            return True
        hint = False
        for change, path in changes:
            if path == self._ignored or path.startswith(self._ignored + os.sep):
                continue
            hint = True
            if change is watchfiles.Change.deleted and Path(path) in self._known:
                self._known[Path(path)] = None  # a folder made anew may get the number of the deleted one
                self._checked_s = 0.0
        return hint


def _identity(folder: Path) -> Identity:
    """Return the numbers of a folder's device and of the folder; None where it is not there."""
    try:
        info = folder.stat()
    except OSError:
        return None
    return (info.st_dev, info.st_ino) if folder.is_dir() else None
