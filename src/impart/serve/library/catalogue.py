"""Catalogue: the videos and photos of the index as of one commit, ready to be listed, sorted and filtered."""

from __future__ import annotations

import bisect
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeAlias

from impart.serve.schemas.text import path_text
from impart.video.index.store import Kind, VideoRecord

__all__ = ["Catalogue", "Filters", "Key", "Sort"]

Sort: TypeAlias = Literal["path", "date", "length", "added"]
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
    def _folders(self) -> dict[str, tuple[Path, int]]:
        direct = Counter(record.path.parent for record in self.by_id.values())
        if not direct:
            return {}
        shared = Path(os.path.commonpath(direct))
        counts: Counter[Path] = Counter()
        for folder, count in direct.items():
            for place in (folder, *folder.parents):
                if place != shared and not place.is_relative_to(shared):
                    break
                counts[place] += count
        return {path_text(folder): (folder, count) for folder, count in sorted(counts.items())}

    @property
    def folders(self) -> dict[str, int]:
        """Folders as texts, sorted by path, with the numbers of files in and below them.

        From the deepest folder that contains all files on.
        """
        return {text: count for text, (_, count) in self._folders.items()}

    def folder(self, text: str) -> Path | None:
        """Return the folder that is shown as a text; None where no indexed file is in or below it."""
        found = self._folders.get(text)
        return None if found is None else found[0]

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


def _date(record: VideoRecord) -> float:
    """Return the Unix time (s) of the recording, else that of the file's last change; 0 = unknown."""
    if record.recorded_at is not None:
        return record.recorded_at
    return max(0.0, record.mtime_ns / 1e9)
