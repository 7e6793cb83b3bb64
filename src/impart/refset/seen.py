"""Pairs that a build has seen, by 64 bits of a digest: 8 bytes per pair."""

from __future__ import annotations

import numpy as np

from impart.files import sha256_int

__all__ = ["SeenPairs"]

_RECENT = 65_536


class SeenPairs:
    """Set of (hash of an image, text). Of 15 million pairs, two collide with a probability of 6 in a million.

    Example:
        >>> seen = SeenPairs()
        >>> [seen.add("ab", "a dog"), seen.add("ab", "a cat"), seen.add("ab", "a dog")]
        [True, True, False]
    """

    def __init__(self) -> None:
        self._recent: set[int] = set()
        self._sorted = np.empty(0, np.uint64)

    def add(self, digest: str, text: str) -> bool:
        """Add a pair: whether it is new."""
        key = sha256_int(f"{digest}\0{text}")
        if key in self._recent or self._is_sorted(key):
            return False
        self._recent.add(key)
        if len(self._recent) > max(_RECENT, len(self._sorted) // 8):  # so that sorting stays a small part of the time
            recent = np.fromiter(self._recent, np.uint64, len(self._recent))
            self._sorted = np.sort(np.concatenate([self._sorted, recent]))
            self._recent.clear()
        return True

    def _is_sorted(self, key: int) -> bool:
        place = int(np.searchsorted(self._sorted, np.uint64(key)))
        return place < len(self._sorted) and int(self._sorted[place]) == key
