"""VideoShard: the arrays of some videos, and what searches derive from them. It is part of many snapshots.

Derived arrays of a video depend on that video alone, so they are computed once per shard: the parts of the videos,
their units, unit means, and hubness. A shard of the cache (`impart.video.search.state.shard_files`) has them on disk.
Those of a shard that was just read from the tables are computed when they are first needed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from impart.blending.encoder import AugmentedEncoder
from impart.encoders.base import Float32, l2_normalise
from impart.refset.refset import ReferenceSet
from impart.retrieval.coarse import Basis
from impart.retrieval.hubness import CaptionBank
from impart.video.search.ranking import group_sums
from impart.video.search.scoring import frame_hubness, frame_vectors
from impart.video.search.snapshot import Snapshot
from impart.video.search.spans.moments import Parts, Units, join_alike, split_scenes

__all__ = ["Means", "VideoShard", "codes_name", "hubness_name", "within"]

_ROWS = 16_384  # segments encoded at once


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


class VideoShard:
    """The arrays of some videos. May be shared by threads.

    Args:
        snapshot: of these videos alone.
        keys: V, what tells whether a video has changed, see `impart.video.search.state.tables.key_of`. Empty: unknown.
        name: of the file in the cache; empty where there is none.
        parts: of the videos; None computes them.
        means: of the vectors that are in force; None computes them.
        kept: what else is known of the vectors in force, see `VideoShard.keep`.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        keys: tuple[str, ...] = (),
        *,
        name: str = "",
        parts: Parts | None = None,
        means: Means | None = None,
        kept: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> None:
        self.snapshot = snapshot
        self.keys = keys
        self.name = name
        self._parts = parts
        augmented = snapshot.blend is not None
        self._means: dict[bool, Means] = {} if means is None else {augmented: means}
        self._kept = {(augmented, one): of for one, of in (kept or {}).items()}
        self._lock = threading.RLock()  # of what takes seconds

    @cached_property
    def parts(self) -> Parts:
        """The parts of the videos."""
        snapshot = self.snapshot
        if self._parts is not None:
            return self._parts
        return split_scenes(snapshot.scenes, snapshot.offsets, snapshot.start_s, snapshot.end_s)

    @cached_property
    def id_range(self) -> tuple[int, int]:
        """Smallest and largest id of a reference pair among the neighbours; (-1, -1) where there are none."""
        blend = self.snapshot.blend
        if blend is None or blend.added is not None or not len(self.snapshot):
            return -1, -1
        ids = np.asarray(blend.ids)
        return int(ids.min()), int(ids.max())

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
        return (augmented, hubness_name(kind, bank)) in self._kept

    def unit_hubness(self, bank: CaptionBank, encoder: AugmentedEncoder | None) -> Float32:
        """Return the hubness (U,) of the units."""
        name = hubness_name("unit", bank)
        return self.keep(name, encoder, lambda: bank.hubness(self.means(encoder).units.means))

    def frame_hubness(self, bank: CaptionBank, encoder: AugmentedEncoder | None) -> Float32:
        """Return the hubness (n,) of the segments."""
        return self.keep(hubness_name("frame", bank), encoder, lambda: frame_hubness(bank, self.snapshot, encoder))

    def codes(
        self, basis: Basis, encoder: AugmentedEncoder | None, kind: Literal["unit", "frame"]
    ) -> npt.NDArray[np.uint8]:
        """Return the coarse codes (U, W) of the units, or (n, W) of the segments.

        Args:
            encoder: the augmentation in force.
        """
        return self.keep(codes_name(kind, basis), encoder, lambda: self._encoded(basis, encoder, kind))

    def _encoded(
        self, basis: Basis, encoder: AugmentedEncoder | None, kind: Literal["unit", "frame"]
    ) -> npt.NDArray[np.uint8]:
        if kind == "unit":
            return basis.encode(self.means(encoder).units.means)
        count = len(self.snapshot)
        pieces = (slice(first, min(first + _ROWS, count)) for first in range(0, count, _ROWS))
        blocks = [basis.encode(frame_vectors(self.snapshot, encoder, one)) for one in pieces]
        return np.concatenate([np.zeros((0, basis.width), np.uint8), *blocks])

    def keep(
        self, name: str, encoder: AugmentedEncoder | None, make: Callable[[], npt.NDArray[Any]]
    ) -> npt.NDArray[Any]:
        """Return an array of all units or segments, or make it and keep it.

        Args:
            name: begins with `unit_` or `frame_`, and is unique for what the array depends on besides the vectors.
            encoder: the augmentation in force; None for what depends on the base vectors.
        """
        key = (encoder is not None, name)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = make()
            return self._kept[key]

    def forget_codes(self) -> None:
        """Forget the coarse codes, such as those of an older basis."""
        with self._lock:
            self._kept = {key: of for key, of in self._kept.items() if "_codes_" not in key[1]}

    def kept(self) -> dict[str, npt.NDArray[Any]]:
        """Return what is kept of the vectors in force, by name."""
        augmented = self.snapshot.blend is not None
        with self._lock:
            return {name: of for (own, name), of in self._kept.items() if own == augmented}


def codes_name(kind: str, basis: Basis) -> str:
    """Name the coarse codes of `unit`s or `frame`s by this basis."""
    return f"{kind}_codes_{basis.digest}"


def hubness_name(kind: str, bank: CaptionBank) -> str:
    """Name the hubness of `unit`s or `frame`s by these captions."""
    return f"{kind}_hubness_{bank.digest}"


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
