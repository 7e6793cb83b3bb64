"""Catalogue: the videos and photos of the index as of one commit, ready to be listed, sorted and filtered."""

from __future__ import annotations

import bisect
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeAlias

from impart.serve.schemas.text import path_text
from impart.video.index.store import Kind, Store, VideoRecord

__all__ = ["Catalogue", "CatalogueReader", "Filters", "Key", "Sort"]

Sort: TypeAlias = Literal["path", "date", "length", "added"]
_PATIENCE_S = 0.2  # for the newest catalogue, before an older one is returned
Key: TypeAlias = "tuple[str | float, str]"
"""Value that is sorted by, and the id of the video: no two are equal."""


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Filters of a list; those without a value allow all.

    Attributes:
        q: a part of the file's name, in lower case (`str.casefold`).
        folder: only in or below it.
        kind: only files of this kind.
    """

    q: str = ""
    folder: Path | None = None
    kind: Kind | None = None


class Catalogue:
    """The V videos and photos of an index.

    Args:
        state: of the index; it changes with every commit.
        records: of the index, sorted by path.
    """

    def __init__(self, state: str = "", records: Iterable[VideoRecord] = ()) -> None:
        self.state = state
        self.by_id: dict[str, VideoRecord] = {record.video_id: record for record in records}
        self._orders: dict[Sort, list[Key]] = {}
        self._last: tuple[Filters, frozenset[str]] | None = None

    def __len__(self) -> int:
        return len(self.by_id)

    @cached_property
    def _texts(self) -> dict[str, str]:
        """Paths as texts, by id."""
        return {video_id: path_text(record.path) for video_id, record in self.by_id.items()}

    @cached_property
    def _names(self) -> dict[str, str]:
        """Names of the files in lower case, by id."""
        return {video_id: path.rpartition(os.sep)[2].casefold() for video_id, path in self._texts.items()}

    @cached_property
    def by_path(self) -> dict[str, VideoRecord]:
        """Records by their paths, as texts."""
        return {self._texts[video_id]: record for video_id, record in self.by_id.items()}

    @cached_property
    def _folders(self) -> dict[str, tuple[str, int]]:
        """Folder and number of files, by the folder as a text."""
        direct = Counter(os.path.dirname(record.path) for record in self.by_id.values())  # noqa: PTH120 - 20 times faster
        if not direct:
            return {}
        try:
            shared = os.path.commonpath(direct)
        except ValueError:  # on several drives
            shared = ""
        counts: Counter[str] = Counter()
        for folder, count in direct.items():
            place = folder
            while len(place) >= len(shared):
                counts[place] += count
                above = os.path.dirname(place)  # noqa: PTH120
                if above == place:
                    break
                place = above
        return {path_text(Path(folder)): (folder, count) for folder, count in sorted(counts.items())}

    @property
    def folders(self) -> dict[str, int]:
        """Folders as texts, sorted by path, with the numbers of files in and below them.

        From the deepest folder that contains all files on.
        """
        return {text: count for text, (_, count) in self._folders.items()}

    def folder(self, text: str) -> Path | None:
        """Return the folder that is shown as a text; None where no indexed file is in or below it."""
        found = self._folders.get(text)
        return None if found is None else Path(found[0])

    def listed(
        self, sort: Sort, filters: Filters, *, descending: bool, after: Key | None = None
    ) -> Iterator[tuple[Key, VideoRecord]]:
        """List the records that the filters allow, in order, with their keys.

        Args:
            sort: by path, by the date of the recording (else of the last change), by length, or by when it was indexed.
            after: a key; the list begins behind it.
        """
        keys, allowed = self._order(sort), self._allowed(filters)
        if descending:
            stop = len(keys) if after is None else bisect.bisect_left(keys, after)
            numbers = range(stop - 1, -1, -1)
        else:
            numbers = range(0 if after is None else bisect.bisect_right(keys, after), len(keys))
        for number in numbers:
            key = keys[number]
            if allowed is None or key[1] in allowed:
                yield key, self.by_id[key[1]]

    def count(self, filters: Filters) -> int:
        """Count the records that the filters allow."""
        allowed = self._allowed(filters)
        return len(self) if allowed is None else len(allowed)

    def _allowed(self, filters: Filters) -> frozenset[str] | None:
        """Return the ids that the filters allow; None = all. Those of the last filters are kept, for further pages."""
        if filters == Filters():
            return None
        last = self._last
        if last is None or last[0] != filters:
            inside = None if filters.folder is None else str(filters.folder).rstrip(os.sep) + os.sep
            found = frozenset(
                video_id
                for video_id, record in self.by_id.items()
                if filters.kind in (None, record.kind)
                and (not filters.q or filters.q in self._names[video_id])
                and (inside is None or str(record.path).startswith(inside))
            )
            self._last = last = (filters, found)
        return last[1]

    def _order(self, sort: Sort) -> list[Key]:
        if sort not in self._orders:
            values: dict[Sort, Callable[[VideoRecord], str | float]] = {
                "path": lambda record: self._texts[record.video_id],
                "date": _date,
                "length": lambda record: record.duration_s,
                "added": lambda record: record.indexed_at,
            }
            value = values[sort]
            self._orders[sort] = sorted((value(record), record.video_id) for record in self.by_id.values())
        return self._orders[sort]


class CatalogueReader:
    """Reads the catalogue of one index. May be shared by threads.

    A large catalogue takes seconds to read, and an indexing run commits every few seconds: until the newest one is
    read, in a thread, the one before it is returned.

    Args:
        store: of the index.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._known: Catalogue | None = None
        self._reading: Future[Catalogue] | None = None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="impart-catalogue")

    def close(self) -> None:
        """End the thread."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def get(self, *, newest: bool = False) -> Catalogue:
        """Return the catalogue.

        Args:
            newest: wait for that of the last commit.

        Raises:
            VideoIndexError: the index is damaged.
        """
        while True:
            with self._lock:
                known, state = self._known, self._store.state()
                if known is not None and known.state == state:
                    return known
                if self._reading is None or self._reading.done():
                    self._reading = self._pool.submit(self._read, state)
                reading = self._reading
            try:
                read = reading.result(None if newest or known is None else _PATIENCE_S)
            except TimeoutError:
                assert known is not None
                return known
            if not newest or read.state == state:  # else it was begun before the last commit
                return read

    def _read(self, state: str) -> Catalogue:
        read = Catalogue(state, self._store.retry(self._store.videos))
        self._known = read
        return read


def _date(record: VideoRecord) -> float:
    """Return the Unix time (s) of the recording, else that of the file's last change; 0 = unknown."""
    if record.recorded_at is not None:
        return record.recorded_at
    return max(0.0, record.mtime_ns / 1e9)
