"""Derived arrays: what searches compute from one snapshot and keep as long as it is in force.

Most of it is kept by the shards of the snapshot, so that a commit changes little of it. `Derived.warm` computes what
the first search would compute, so that a search after a commit does not pay for it (`StateInForce.refresh`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from impart.blending.encoder import AugmentedEncoder
from impart.config import Group
from impart.encoders.base import Float32
from impart.retrieval.coarse import Basis, Codes
from impart.retrieval.hubness import CaptionBank
from impart.video.names.find import NamesInForce
from impart.video.search.cutoff import copy_bound
from impart.video.search.filters import narrowed_to
from impart.video.search.groups import Groups
from impart.video.search.query import SearchOptions
from impart.video.search.ranking import group_means
from impart.video.search.scoring import frame_hubness, frame_vectors
from impart.video.search.snapshot import Snapshot
from impart.video.search.spans.moments import Parts, Units
from impart.video.search.state.choice import VideoChoice, choice_of, part_of
from impart.video.search.state.codes import LEAST, fit_basis
from impart.video.search.state.shard import Means, VideoShard, within

__all__ = ["Derived", "HubnessKind"]

_MOST_NAMES = 10  # whose presence is computed ahead: of 100 hours, each takes a second
_MOST_FRAMES = 65_536  # whose hubness is computed after a commit; about a second

HubnessKind = Literal["video", "scene", "frame", "unit"]


class Derived:
    """Arrays that are computed from a snapshot when they are first needed. May be shared by threads.

    Args:
        snapshot: of the index.
        names: the taught names, which are prepared for this snapshot.
        choice: the places of its videos; None = those of the snapshot.
        is_part: whether the shards have many more videos than the snapshot: what they lack is computed for it alone.
        basis: reads the basis of the coarse codes from the cache, given the number of segments; None = there is none.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        *,
        names: NamesInForce | None = None,
        choice: VideoChoice | None = None,
        is_part: bool = False,
        basis: Callable[[int], Basis | None] | None = None,
    ) -> None:
        self.snapshot = snapshot
        self.names = names
        self.choice = choice or choice_of(snapshot)
        self._is_part = is_part
        self._cached_basis = basis
        self._group_means: dict[tuple[str, bool], Float32] = {}
        self._means: dict[bool, Means] = {}
        self._hubness: dict[tuple[str, bool], tuple[CaptionBank, Float32]] = {}
        self._frames: dict[bool, tuple[CaptionBank, Float32]] = {}
        self._bases: dict[bool, Basis] = {}
        self._codes: dict[tuple[str, bool], Codes] = {}
        self._copy_bounds: dict[bool, float] = {}
        self._narrowed: tuple[bytes, Derived] | None = None
        self._lock = threading.RLock()  # of what takes seconds, and is not of all frames

    def narrowed(self, options: SearchOptions) -> Derived:
        """Take the videos that the filters allow; that of the last filter is kept."""
        videos = narrowed_to(self.snapshot, options)
        if videos is None:
            return self
        key, known = videos.tobytes(), self._narrowed
        if known is None or known[0] != key:
            part = part_of(self.snapshot, self.choice, videos)
            known = self._narrowed = key, Derived(part, is_part=True)
            known[1]._bases = self._bases
        return known[1]

    @cached_property
    def parts(self) -> Parts:
        """The parts of all videos."""
        single = self.choice.single
        if single is not None:
            return single.parts
        snapshot, shards = self.snapshot, self.choice.shards
        sources = [shard.parts for shard in shards]
        runs = self.choice.runs([one.offsets for one in sources])
        counts = np.diff(runs.offsets)
        pairs = list(zip(shards, sources, strict=True))
        first = runs.join([within(one.bounds[:-1], shard.snapshot.offsets, one.offsets) for shard, one in pairs])
        scene = runs.join([within(one.scene_of, _scenes(shard.snapshot), one.offsets) for shard, one in pairs])
        return Parts(
            bounds=np.append(first + np.repeat(snapshot.offsets[:-1], counts), len(snapshot)),
            offsets=runs.offsets,
            scene_of=scene + np.repeat(_scenes(snapshot)[:-1], counts),
            scenes=np.append(snapshot.scenes, len(snapshot)),
            start_s=snapshot.start_s,
            end_s=snapshot.end_s,
        )

    def warm(self, *, encoder: AugmentedEncoder | None, bank: CaptionBank | None, old: Derived | None = None) -> None:
        """Compute what the first search of moments would compute, and the presence of names.

        Args:
            encoder: the augmentation in force.
            bank: captions that come with the model; None = scores are not corrected for hubs.
            old: what was in force before. Of many names, only those that it had computed are computed again.
        """
        snapshot = self.snapshot
        if not len(snapshot):
            return
        groups = _of_videos(self, encoder)
        self.units(groups)
        if bank is not None:
            self.hubness(bank, groups, kind="unit")
        self.coarse(groups, bank, kind="unit")
        self.copy_bound(encoder)
        for lazy in (snapshot.copies, snapshot.number_of, snapshot.scene_of, snapshot.video_of, snapshot.retrieval):
            len(lazy)
        if bank is not None:
            self._frames_after_commit(encoder, bank)
        if self.names is not None and self.names.store.state():
            prepared = self.names.of(snapshot)
            names = prepared.taught.names
            if len(names) > _MOST_NAMES:
                last = None if old is None or old.names is None else old.names.last
                asked = () if last is None else last.computed
                names = tuple(name for name in names if name in asked)
            for name in names:
                prepared.presence(name)

    def warm_frames(self, *, encoder: AugmentedEncoder | None, bank: CaptionBank) -> None:
        """Compute the hubness of all frames, which marks of hits, sequences and heat need."""
        if len(self.snapshot):
            self.hubness(bank, _of_videos(self, encoder), kind="frame")

    def _frames_after_commit(self, encoder: AugmentedEncoder | None, bank: CaptionBank) -> None:
        """Compute the hubness of the segments of new shards, where that of the others is known."""
        known = [shard.has_hubness("frame", bank, augmented=encoder is not None) for shard in self.choice.shards]
        lacking = [len(shard.snapshot) for shard, one in zip(self.choice.shards, known, strict=True) if not one]
        if any(known) and sum(lacking) <= _MOST_FRAMES:
            self.warm_frames(encoder=encoder, bank=bank)

    def group_means(self, groups: Groups, *, kind: Group | Literal["part"] | None = None) -> Float32:
        """Compute the unit means (G, D) of groups; those of parts and videos may be `Pieces`.

        Args:
            kind: `part` for those of the parts; None = those of the groups.
        """
        kind, encoder = kind or groups.options.group, groups.encoder
        if kind == "part" or kind == "video":
            means = self.means(encoder)
            return means.parts if kind == "part" else means.videos
        key = (kind, encoder is not None)
        with self._lock:
            if key not in self._group_means:
                references = encoder.references if encoder else None
                self._group_means[key] = group_means(self.snapshot, groups.starts, references=references)
            return self._group_means[key]

    def units(self, groups: Groups) -> Units:
        """Return the units of all videos; their means may be `Pieces`."""
        return self.means(groups.encoder).units

    def means(self, encoder: AugmentedEncoder | None) -> Means:
        """Return the unit means of all videos, parts and units; they may be `Pieces`.

        Args:
            encoder: the augmentation in force; None takes those of the base vectors.
        """
        augmented = encoder is not None
        with self._lock:
            if augmented not in self._means:
                choice = self._with_means(encoder)
                sources = [shard.means(encoder) for shard in choice.shards]
                self._means[augmented] = sources[0] if choice.single is not None else _joined(choice, sources)
            return self._means[augmented]

    def _with_means(self, encoder: AugmentedEncoder | None) -> VideoChoice:
        return self._of(lambda shard: shard.has_means(augmented=encoder is not None))

    def _of(self, known: Callable[[VideoShard], bool]) -> VideoChoice:
        """Choose a source: the shards, or the snapshot alone where it is a part, and the shards do not know it."""
        return self._own if self._is_part and not all(map(known, self.choice.shards)) else self.choice

    @cached_property
    def _own(self) -> VideoChoice:
        return VideoChoice.whole(VideoShard(self.snapshot))

    def coarse(self, groups: Groups, bank: CaptionBank | None, *, kind: Literal["unit", "frame"]) -> Codes | None:
        """Return the coarse codes of all units or frames; None where all are compared exactly.

        They are those of v', so that taught pairs and the reference set in force move the candidates as well. Base
        vectors have codes only in an index without a reference set.

        Args:
            bank: captions that come with the model, as examples of texts.
        """
        augmented = groups.encoder is not None
        if groups.options.exact or augmented != (self.snapshot.blend is not None):
            return None
        count = len(self.units(groups).means) if kind == "unit" else len(self.snapshot)
        if count < LEAST:
            return None
        key = (kind, augmented)
        with self._lock:
            if key not in self._codes:
                basis = self._basis(groups.encoder, bank)
                if kind == "unit":
                    choice = self._with_means(groups.encoder)
                    runs = choice.runs([shard.means(groups.encoder).units.offsets for shard in choice.shards])
                else:
                    choice = self.choice
                    runs = choice.segments
                arrays = [shard.codes(basis, groups.encoder, kind) for shard in choice.shards]
                self._codes[key] = Codes(basis=basis, blocks=tuple(block for _, block in runs.pieces(arrays)))
            return self._codes[key]

    def _basis(self, encoder: AugmentedEncoder | None, bank: CaptionBank | None) -> Basis:
        """Return the basis of the codes: that of the cache, or one that is fitted now."""
        augmented = encoder is not None
        if augmented not in self._bases:
            known = self._cached_basis(len(self.snapshot)) if self._cached_basis is not None else None
            self._bases[augmented] = known or fit_basis(self.snapshot, encoder, bank)
        return self._bases[augmented]

    def hubness(self, bank: CaptionBank, groups: Groups, *, kind: HubnessKind | None = None) -> Float32:
        """Compute the hubness that is subtracted from text scores.

        Args:
            bank: captions. With the queries of one search among them, the result is not kept.
            kind: of `frame`s (n,), `unit`s (U,), or means of `video`s or `scene`s (G,); None = what is ranked by.
        """
        kind = kind or _ranked_kind(groups)
        key = (kind, groups.encoder is not None)
        known = self._hubness.get(key)
        if known is not None and known[0] is bank:
            return known[1]
        if bank.shares is not None:
            if kind == "frame":
                return frame_hubness(bank, self.snapshot, groups.encoder)
            return bank.hubness(self.units(groups).means if kind == "unit" else self.group_means(groups))
        if kind == "frame" or kind == "unit":
            found = self._hubness_of_shards(bank, groups.encoder, kind)
        else:
            found = bank.hubness(self.group_means(groups))
        if kind == "frame":
            self._frames.pop(groups.encoder is not None, None)
        self._hubness[key] = (bank, found)
        return found

    def kept(self, encoder: AugmentedEncoder | None) -> dict[str, npt.NDArray[Any]]:
        """Join what all shards keep of the vectors in force, by name, see `VideoShard.keep`.

        Args:
            encoder: the augmentation in force.
        """
        sources = [shard.kept() for shard in self.choice.shards]
        units = self.choice.runs([shard.means(encoder).units.offsets for shard in self.choice.shards])
        common = set.intersection(*(set(one) for one in sources))
        return {
            name: (units if name.startswith("unit_") else self.choice.segments).choose([one[name] for one in sources])
            for name in sorted(common)
        }

    def _hubness_of_shards(
        self, bank: CaptionBank, encoder: AugmentedEncoder | None, kind: Literal["frame", "unit"]
    ) -> Float32:
        """Join the hubness of all units (U,) or segments (n,); that of shards which lack it is computed."""
        augmented = encoder is not None
        if kind == "unit":
            choice = self._with_means(encoder)
            runs = choice.runs([shard.means(encoder).units.offsets for shard in choice.shards])
            return runs.join([shard.unit_hubness(bank, encoder) for shard in choice.shards])
        choice = self._of(lambda shard: shard.has_hubness("frame", bank, augmented=augmented))
        return choice.segments.join([shard.frame_hubness(bank, encoder) for shard in choice.shards])

    def hubness_of(self, bank: CaptionBank, encoder: AugmentedEncoder | None, rows: npt.NDArray[np.int64]) -> Float32:
        """Compute the hubness (m,) of the segments `rows` (m,); what was computed before is kept."""
        whole = self._hubness.get(("frame", encoder is not None))
        if whole is not None and whole[0] is bank:
            return whole[1][rows]
        known = self._frames.get(encoder is not None)
        if known is None or known[0] is not bank:
            known = bank, np.full(len(self.snapshot), np.nan, np.float32)
            self._frames[encoder is not None] = known
        values = known[1]
        found = values[rows]
        new = np.isnan(found)
        if new.any():
            found[new] = bank.hubness(frame_vectors(self.snapshot, encoder, rows[new]))
            values[rows[new]] = found[new]
        return found

    def copy_bound(self, encoder: AugmentedEncoder | None) -> float:
        """Compute the cosine from which two spans show the same."""
        augmented = encoder is not None
        if augmented not in self._copy_bounds:
            self._copy_bounds[augmented] = copy_bound(self.snapshot, encoder.references if encoder else None)
        return self._copy_bounds[augmented]


def _of_videos(derived: Derived, encoder: AugmentedEncoder | None) -> Groups:
    """Make the groups of a search of videos by their moments."""
    snapshot = derived.snapshot
    return Groups(
        snapshot=snapshot,
        derived=derived,
        options=SearchOptions(top=1, group="video", by="moment"),
        encoder=encoder,
        starts=snapshot.offsets[:-1],
        allowed=None,
        parts=derived.parts,
    )


def _joined(choice: VideoChoice, sources: Sequence[Means]) -> Means:
    """Join the unit means of the videos of a choice."""
    parts = [shard.parts.offsets for shard in choice.shards]
    of_parts, of_units = choice.runs(parts), choice.runs([one.units.offsets for one in sources])
    of_videos = choice.runs([np.arange(len(one.videos) + 1) for one in sources])
    pairs = [(one.units, offsets) for one, offsets in zip(sources, parts, strict=True)]
    numbers = of_parts.join([within(units.of_part, units.offsets, offsets) for units, offsets in pairs])
    return Means(
        videos=of_videos.choose([one.videos for one in sources]),
        parts=of_parts.choose([one.parts for one in sources]),
        units=Units(
            offsets=of_units.offsets,
            of_part=numbers + np.repeat(of_units.offsets[:-1], np.diff(of_parts.offsets)),
            means=of_units.choose([one.units.means for one in sources]),
        ),
    )


def _scenes(snapshot: Snapshot) -> npt.NDArray[np.int64]:
    """Find the first scene (V + 1,) of each video."""
    return np.searchsorted(snapshot.scenes, snapshot.offsets)


def _ranked_kind(groups: Groups) -> HubnessKind:
    by = groups.options.ranked_by
    if by == "moment":
        return "unit"
    if by == "frame":
        return "frame"
    return "scene" if groups.options.group == "scene" else "video"
