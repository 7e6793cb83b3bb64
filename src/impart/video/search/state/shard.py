"""Shard: the arrays of some videos, and what searches derive from them. It is part of many snapshots.

Derived arrays of a video depend on that video alone, so they are computed once per shard: the parts of the videos,
their units, unit means, and hubness. A shard of the cache (`impart.video.search.state.shard_files`) has them on disk.
Those of a shard that was just read from the tables are computed when they are first needed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from impart.blending.encoder import AugmentedEncoder
from impart.encoders.base import Float32, l2_normalise
from impart.refset.refset import ReferenceSet
from impart.retrieval.hubness import CaptionBank
from impart.video.search.ranking import group_sums
from impart.video.search.scoring import frame_hubness
from impart.video.search.snapshot import Snapshot
from impart.video.search.spans.moments import Parts, Units, join_alike, split_scenes

__all__ = ["Means", "Shard", "within"]


@dataclass(frozen=True, kw_only=True)
class Means:
    """Unit means of the vectors of a shard: of V videos, P parts and U units.

    Attributes:
        videos: (V, D).
        parts: (P, D).
        units: with their means.
    """

    videos: Float32
    parts: Float32
    units: Units


class Shard:
    """The arrays of some videos. May be shared by threads.

    Args:
        snapshot: of these videos alone.
        keys: V, what tells whether a video has changed, see `impart.video.search.state.tables.key_of`. Empty: unknown.
        name: of the file in the cache; empty where there is none.
        parts: of the videos; None computes them.
        means: of the vectors that are in force; None computes them.
        hubness: of the units, by the digest of the captions.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        keys: tuple[str, ...] = (),
        *,
        name: str = "",
        parts: Parts | None = None,
        means: Means | None = None,
        hubness: Mapping[str, Float32] | None = None,
    ) -> None:
        self.snapshot = snapshot
        self.keys = keys
        self.name = name
        self._parts = parts
        self._means: dict[bool, Means] = {} if means is None else {snapshot.blend is not None: means}
        augmented = snapshot.blend is not None
        self._hubness = {("unit", augmented, digest): of for digest, of in (hubness or {}).items()}
        self._lock = threading.RLock()  # of what takes seconds

    @cached_property
    def parts(self) -> Parts:
        """The parts of the videos."""
        snapshot = self.snapshot
        if self._parts is not None:
            return self._parts
        return split_scenes(snapshot.scenes, snapshot.offsets, snapshot.start_s, snapshot.end_s)

    def has_means(self, *, augmented: bool) -> bool:
        """Whether the unit means are known."""
        return augmented in self._means

    def means(self, encoder: AugmentedEncoder | None) -> Means:
        """Return the unit means.

        Args:
            encoder: the augmentation in force; None takes those of the base vectors.
        """
        augmented = encoder is not None
        with self._lock:
            if augmented not in self._means:
                references = encoder.references if encoder is not None else None
                self._means[augmented] = _means(self.snapshot, self.parts, references)
            return self._means[augmented]

    def has_hubness(self, kind: str, bank: CaptionBank, *, augmented: bool) -> bool:
        """Whether the hubness of `unit`s or `frame`s is known."""
        return (kind, augmented, bank.digest) in self._hubness

    def unit_hubness(self, bank: CaptionBank, encoder: AugmentedEncoder | None) -> Float32:
        """Return the hubness (U,) of the units."""
        return self._kept("unit", bank, encoder, lambda: bank.hubness(self.means(encoder).units.means))

    def frame_hubness(self, bank: CaptionBank, encoder: AugmentedEncoder | None) -> Float32:
        """Return the hubness (n,) of the segments."""
        return self._kept("frame", bank, encoder, lambda: frame_hubness(bank, self.snapshot, encoder))

    def _kept(
        self, kind: str, bank: CaptionBank, encoder: AugmentedEncoder | None, make: Callable[[], Float32]
    ) -> Float32:
        key = (kind, encoder is not None, bank.digest)
        with self._lock:
            if key not in self._hubness:
                self._hubness[key] = make()
            return self._hubness[key]


def _means(snapshot: Snapshot, parts: Parts, references: ReferenceSet | None) -> Means:
    sums = group_sums(snapshot, parts.bounds[:-1], references=references)
    of_parts = l2_normalise(sums)
    return Means(
        videos=l2_normalise(np.add.reduceat(sums, parts.offsets[:-1])),
        parts=of_parts,
        units=join_alike(parts, of_parts, snapshot.weight),
    )


def within(
    numbers: npt.NDArray[np.int64], first: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Count numbers from 0 in each video, in place of over all videos.

    Args:
        numbers: (m,), ascending from video to video.
        first: (V + 1,) lowest number of each video.
        rows: (V + 1,) first of the m rows of each video.
    """
    return numbers - np.repeat(first[:-1], np.diff(rows))
