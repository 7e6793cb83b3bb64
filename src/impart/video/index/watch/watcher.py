"""`watch`: index what arrives in folders, for as long as it is wanted.

    for event in watch(index, [Path("films")], stop=threading.Event()):
        print(event)

A run of `VideoIndex.add` begins when the folders have been quiet for a moment, and takes new and changed files alone.
Between two runs the index is not locked.
"""

from __future__ import annotations

import glob
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from impart.errors import ConfigError, ImpartError, IndexLockedError, VideoIndexError
from impart.video.index.events import Event, ScanDone, VideoProgress, VideoStarted
from impart.video.index.files.scan import FoundFile, Scan, absolute, as_listed, scan
from impart.video.index.index import VideoIndex
from impart.video.index.watch.events import FileGrows, IndexBusy, RunFailed, WatchEvent, Watching
from impart.video.index.watch.growing import GrowingFiles
from impart.video.index.watch.hints import Hints

__all__ = ["WatchSettings", "watch"]


@dataclass(frozen=True, kw_only=True)
class WatchSettings:
    """Settings of a watch; times in seconds.

    Attributes:
        events: whether the system reports changes; False for network disks, whose changes it does not see.
        interval_s: between two scans in any case.
        quiet_s: without a change, before a scan; also for which a file must be unchanged.
        longest_s: from the first change to the scan, also where changes go on.
        busy_s: between two tries, while another process writes to the index.
        check_s: between two checks whether the folders are still the same.

    Raises:
        ConfigError: a time is not positive.
    """

    events: bool = True
    interval_s: float = 300.0
    quiet_s: float = 2.0
    longest_s: float = 10.0
    busy_s: float = 5.0
    check_s: float = 2.0

    def __post_init__(self) -> None:
        for name in ("interval_s", "quiet_s", "longest_s", "busy_s", "check_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name):g}: give a time above 0 seconds")


def watch(
    index: VideoIndex,
    folders: Sequence[Path],
    *,
    stop: threading.Event,
    settings: WatchSettings | None = None,
    prune: bool = False,
    exclude: Iterable[str] = (),
    photos: bool = True,
) -> Iterator[WatchEvent | Event]:
    """Index what is new or changed in folders, now and whenever something arrives.

    Args:
        index: to write.
        folders: to watch, with all folders below; they need not exist yet.
        stop: ends the watch; a video in progress is committed first.
        settings: None = the defaults.
        prune, exclude, photos: as in `VideoIndex.add`.

    Yields:
        Events of the watch, and those of `VideoIndex.add` for each run. The work is done while they are consumed.

    Raises:
        ConfigError: a folder is a file.
        ImpartError: the first run cannot be done. Errors of later runs are events.
    """
    places = [as_listed(absolute(folder).resolve()) for folder in folders]
    for place in places:
        if place.exists() and not place.is_dir():
            raise ConfigError(f"{place} is a file: give folders to watch, and index files with impart index")
    watcher = _Watcher(index, places, settings or WatchSettings(), stop, prune, tuple(exclude), photos)
    try:
        yield from watcher.run()
    finally:
        watcher.hints.close()


class _Watcher:
    """State of one watch."""

    def __init__(
        self,
        index: VideoIndex,
        folders: Sequence[Path],
        settings: WatchSettings,
        stop: threading.Event,
        prune: bool,
        exclude: tuple[str, ...],
        photos: bool,
    ) -> None:
        self._index = index
        self._settings = settings
        self._stop = stop
        self._prune = prune
        self._exclude = exclude
        self._photos = photos
        self._growing = GrowingFiles(quiet_s=settings.quiet_s)
        self._tried: dict[Path, tuple[int, int]] = {}  # files that a run left as they were, such as unreadable ones
        self._scanned = False
        self._existed = index.exists
        self._runs = 0
        self._busy = False
        self.hints = Hints(folders, ignored=index.path, events=settings.events, check_s=settings.check_s, stop=stop)

    def run(self) -> Iterator[WatchEvent | Event]:
        settings, stop, hints = self._settings, self._stop, self.hints
        told = self._watching()
        yield told
        first_hint_s = last_hint_s = float("inf")
        poll_at_s = again_at_s = float("-inf")
        while not stop.is_set():
            at_s = time.monotonic()
            hinted_at_s = min(last_hint_s + settings.quiet_s, first_hint_s + settings.longest_s)
            if at_s < min(poll_at_s, again_at_s, hinted_at_s):
                if hints.wait():
                    last_hint_s = time.monotonic()
                    first_hint_s = min(first_hint_s, last_hint_s)
                if (now := self._watching()) != told:
                    told = now
                    yield told
                continue
            polled = at_s >= poll_at_s
            if polled and self._runs:
                hints.begin_again()
            first_hint_s = last_hint_s = float("inf")
            try:
                wait_s = yield from self._scan(retry=polled)
            except (ImpartError, OSError) as error:
                if not self._runs:
                    raise
                yield RunFailed(reason=str(error))
                wait_s = None
            again_at_s = float("inf") if wait_s is None else time.monotonic() + wait_s
            if polled:
                poll_at_s = time.monotonic() + settings.interval_s

    def _watching(self) -> Watching:
        hints = self.hints
        return Watching(folders=hints.present, missing=hints.missing, problem=hints.problem)

    def _scan(self, *, retry: bool) -> Generator[WatchEvent | Event, None, float | None]:
        """Scan, and index what is complete.

        Args:
            retry: try files again that a run left as they were.

        Returns:
            Seconds after which to scan again; None = when something changes.
        """
        folders = self.hints.present
        if not folders:
            return None
        if self._existed and not self._index.exists:  # `add` would make a new one in its place
            raise VideoIndexError(f"the index {self._index.path} is gone: is its disk connected?")
        found = scan(folders, exclude=self._exclude, photos=self._photos)
        changed = self._changed(found)
        older_than_ns = None if self._scanned else time.time_ns() - round(2 * self._settings.quiet_s * 1e9)
        self._scanned = True
        growing = self._growing.of(changed, at_s=time.monotonic(), older_than_ns=older_than_ns)
        yield from (FileGrows(path=path) for path in self._growing.take_long_ones())
        ready = [file for file in changed if file.path not in growing and (retry or not self._was_tried(file))]
        first = not self._runs and not growing
        prune = self._prune and not growing  # a file that is gone may be one of those that wait, under its new name
        if ready or first or (prune and self._some_gone(found)):
            done = yield from self._add(folders, growing, prune=prune)
            if not done:
                return self._settings.busy_s
            self._tried = {file.path: (file.size_bytes, file.mtime_ns) for file in changed if file.path not in growing}
        return self._settings.quiet_s if growing else None

    def _add(
        self, folders: Sequence[Path], growing: set[Path], *, prune: bool
    ) -> Generator[WatchEvent | Event, None, bool]:
        """Run `VideoIndex.add`. Returns whether it could begin."""
        exclude = [*self._exclude, *(glob.escape(str(path)) for path in sorted(growing))]
        events = self._index.add(folders, prune=prune, exclude=exclude, photos=self._photos)
        try:
            for event in events:
                # Noted before the event is told: the index may go away at once after its last event.
                self._existed = self._existed or self._index.exists
                yield _without_waiting(event, len(growing)) if isinstance(event, ScanDone) else event
                in_progress = isinstance(event, VideoStarted | VideoProgress)
                if self._stop.is_set() and not in_progress:
                    break
        except IndexLockedError as error:
            if not self._busy:
                self._busy = True
                yield IndexBusy(reason=str(error))
            return False
        finally:
            if isinstance(events, Generator):
                events.close()  # releases the lock now
        self._busy = False
        self._runs += 1
        return True

    def _changed(self, found: Scan) -> list[FoundFile]:
        """List the files that the index does not know as they are."""
        known = {record.path: (record.size_bytes, record.mtime_ns) for record in self._index.failures()}
        known |= {record.path: (record.size_bytes, record.mtime_ns) for record in self._index.videos()}
        return [file for file in found.files if known.get(file.path) != (file.size_bytes, file.mtime_ns)]

    def _was_tried(self, file: FoundFile) -> bool:
        return self._tried.get(file.path) == (file.size_bytes, file.mtime_ns)

    def _some_gone(self, found: Scan) -> bool:
        """Whether an indexed file below the folders was not found."""
        present = {file.path for file in found.files}
        paths = [record.path for record in self._index.videos() if record.path not in present]
        return any(path.is_relative_to(root) and not path.exists() for path in paths for root in found.roots)


def _without_waiting(event: ScanDone, waiting: int) -> ScanDone:
    """Take the files that wait out of the count of those that were left out."""
    counts = dict(event.ignored)
    counts["excluded"] = counts.get("excluded", 0) - waiting
    return replace(event, ignored={reason: count for reason, count in counts.items() if count > 0})
