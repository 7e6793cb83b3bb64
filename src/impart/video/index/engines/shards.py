"""Shards of a plan: the files that the next worker gets, and those of lost workers, which others get again.

Files are given out in order. Small ones go together, so that a worker's decoder reads ahead; a large one goes alone, so
that no other file waits behind it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path

from impart.video.index.engines.messages import Files
from impart.video.index.files.plan import IndexTask

__all__ = ["TRIES", "Shards"]

TRIES = 3
"""Workers that a file may cost before it counts as failed."""
FILES_AT_ONCE = 16
SMALL_BYTES = 32_000_000  # of the small files of one unit together


class Shards:
    """Files that wait for a worker, and those that workers have.

    Args:
        tasks: in order of path.
        workers: number of workers; the files of a short plan are divided among all of them.
    """

    def __init__(self, tasks: Sequence[IndexTask], *, workers: int) -> None:
        self._waiting = deque(tasks)
        self._again: deque[list[IndexTask]] = deque()
        self._unfinished: dict[Path, IndexTask] = {}
        self._losses: Counter[Path] = Counter()
        self._at_once = max(1, min(FILES_AT_ONCE, len(tasks) // max(1, 2 * workers)))

    def next(self, *, new: bool = True) -> Files | None:
        """Take the next unit; None where no file waits.

        Args:
            new: whether files that no worker had yet may be taken.
        """
        tasks: list[IndexTask] = []
        if self._again:
            tasks = self._again.popleft()
        elif new:
            size_bytes = 0
            while self._waiting and len(tasks) < self._at_once:
                size_bytes += self._waiting[0].file.size_bytes
                if tasks and size_bytes > SMALL_BYTES:
                    break
                tasks.append(self._waiting.popleft())
        if not tasks:
            return None
        self._unfinished.update((task.file.path, task) for task in tasks)
        return Files(tuple(task.file for task in tasks), tuple(task.content_hash for task in tasks))

    def ended(self, path: Path) -> None:
        """Record that a worker has finished a file."""
        self._unfinished.pop(path, None)

    def lost(self, unit: Files) -> tuple[list[IndexTask], list[IndexTask]]:
        """Take back the unfinished files of a lost worker.

        The first of them was being worked on. It is tried again alone, and fails when it has cost `TRIES` workers.

        Returns:
            The unfinished files, and those of them that fail: one or none.
        """
        left = [self._unfinished.pop(file.path) for file in unit.files if file.path in self._unfinished]
        if not left:
            return [], []
        first = left[0]
        self._losses[first.file.path] += 1
        failed = [first] if self._losses[first.file.path] >= TRIES else []
        for group in ([] if failed else [first], left[1:]):
            if group:
                self._again.append(group)
        return left, failed
