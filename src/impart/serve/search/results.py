"""Results of searches that are kept: further pages and repeated searches cost nothing."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

from impart.video.search.hits import Hit

__all__ = ["FoundHits", "Results"]


@dataclass(frozen=True, kw_only=True)
class FoundHits:
    """The hits of one search as far as they were computed.

    Attributes:
        hits: best first, without gaps.
        complete: whether there are no more.
        names: taught names that were found in the text.
    """

    hits: tuple[Hit, ...]
    complete: bool
    names: tuple[str, ...] = ()

    def has(self, offset: int, limit: int) -> bool:
        """Whether the hits of a page, and whether another one follows, are known."""
        return self.complete or len(self.hits) > offset + limit

    @property
    def strong(self) -> int:
        """Strong hits among those computed; only the first 100 are marked."""
        return sum(hit.strong for hit in self.hits)


class Results:
    """Results by search; those used last are kept. May be shared by threads.

    Args:
        most_hits: of all results together; a hit with its moments takes about 2 kB.
    """

    def __init__(self, *, most_hits: int = 20_000) -> None:
        self._most = most_hits
        self._lock = threading.Lock()
        self._known: OrderedDict[str, FoundHits] = OrderedDict()
        self._hits = 0

    def get(self, key: str) -> FoundHits | None:
        """Return what is known of a search."""
        with self._lock:
            found = self._known.get(key)
            if found is not None:
                self._known.move_to_end(key)
            return found

    def put(self, key: str, found: FoundHits) -> None:
        """Keep a result in place of a shorter one; the oldest ones are forgotten."""
        with self._lock:
            self._hits -= _size(self._known.pop(key, None))
            self._known[key] = found
            self._hits += _size(found)
            while self._hits > self._most and len(self._known) > 1:
                self._hits -= _size(self._known.popitem(last=False)[1])

    def __len__(self) -> int:
        return len(self._known)


def _size(found: FoundHits | None) -> int:
    return 0 if found is None else 1 + len(found.hits)
