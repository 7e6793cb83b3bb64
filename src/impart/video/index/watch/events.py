"""Events of `watch`, beside those of `VideoIndex.add` for each run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

__all__ = ["FileGrows", "IndexBusy", "RunFailed", "WatchEvent", "Watching"]


@dataclass(frozen=True, kw_only=True)
class Watching:
    """The folders that are watched from now on; also after one of them has come or gone.

    Attributes:
        folders: that are there; missing: that are not, such as on a disk that is not mounted.
        problem: why the system does not report changes; they are found by regular scans. None = it reports them.
    """

    folders: tuple[Path, ...]
    missing: tuple[Path, ...]
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class FileGrows:
    """A file has been changing for a while: it is indexed when it no longer does. Reported once per file."""

    path: Path


@dataclass(frozen=True, kw_only=True)
class IndexBusy:
    """Another process writes to the index: the run begins when it is done. Reported once per wait."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class RunFailed:
    """A run could not go on, such as on a full disk. The next scan tries again."""

    reason: str


WatchEvent: TypeAlias = Watching | FileGrows | IndexBusy | RunFailed
