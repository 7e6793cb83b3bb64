"""Growing files: which of the new and changed files are still being written, by their size and time alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from impart.video.index.files.scan import FoundFile

__all__ = ["GrowingFiles"]

_LONG = 5  # times quiet_s, after which a file that grows is named


@dataclass
class _Seen:
    stamp: tuple[int, int]
    first_s: float
    same_since_s: float
    named: bool = False


class GrowingFiles:
    """Files whose size or time of change was not the same for long enough.

    Args:
        quiet_s: seconds for which a file must be unchanged.

    >>> growing = GrowingFiles(quiet_s=2)
    >>> file = FoundFile(path=Path("a.mp4"), size_bytes=10, mtime_ns=0)
    >>> [growing.of([file], at_s=at_s) == {file.path} for at_s in (0.0, 1.0, 2.0)]
    [True, True, False]
    """

    def __init__(self, *, quiet_s: float) -> None:
        self._quiet_s = quiet_s
        self._seen: dict[Path, _Seen] = {}

    def of(self, files: Iterable[FoundFile], *, at_s: float, older_than_ns: int | None = None) -> set[Path]:
        """Find the files that may still be written.

        Args:
            files: all that are new or changed now; others are forgotten.
            at_s: time of a steady clock.
            older_than_ns: files that were changed before this time are complete, though they were not seen before.
        """
        before, self._seen = self._seen, {}
        growing = set()
        for file in files:
            stamp = (file.size_bytes, file.mtime_ns)
            seen = before.get(file.path)
            if seen is None:
                if older_than_ns is not None and file.mtime_ns < older_than_ns:
                    continue
                seen = _Seen(stamp, at_s, at_s)
            elif seen.stamp != stamp:
                seen.stamp, seen.same_since_s = stamp, at_s
            self._seen[file.path] = seen
            if at_s - seen.same_since_s < self._quiet_s:
                growing.add(file.path)
        return growing

    def take_long_ones(self) -> list[Path]:
        """List the files that have been growing for a while, each once."""
        found = []
        for path, seen in sorted(self._seen.items()):
            if not seen.named and seen.same_since_s - seen.first_s > _LONG * self._quiet_s:
                seen.named = True
                found.append(path)
        return found
