"""Derived arrays: what searches compute from one snapshot and keep as long as it is in force.

All of them together are about as large as a tenth of the snapshot. `Derived.warm` computes what the first search would
compute, so that a search after a commit does not pay for it (`StateInForce.refresh`).
"""

from __future__ import annotations

import threading
from functools import cached_property
from typing import Literal

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
from impart.video.search.spans.moments import Parts, Units, join_alike, split_scenes
from impart.video.search.state.load import Runs, Taken

__all__ = ["Derived", "HubnessKind"]

LEAST = 20_000
"""Units or frames from which on they have coarse codes; all of fewer are compared."""
_FITTED = 20_000  # frames that the basis of the codes is fitted on
_MOST_NAMES = 10  # whose presence is computed ahead: of 100 hours, each takes a second

HubnessKind = Literal["video", "scene", "frame", "unit"]


class Derived:
    """Arrays that are computed from a snapshot when they are first needed. May be shared by threads.

    Args:
        snapshot: of the index.
        names: the taught names, which are prepared for this snapshot.
    """

    def __init__(self, snapshot: Snapshot, *, names: NamesInForce | None = None) -> None:
        self.snapshot = snapshot
        self.names = names
        self._means: dict[tuple[str, bool], Float32] = {}
        self._units: dict[bool, Units] = {}
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
            known = self._narrowed = key, Derived(self.snapshot.part(videos))
            known[1]._bases = self._bases
        return known[1]

    @cached_property
    def parts(self) -> Parts:
        """The parts of all videos."""
        snapshot = self.snapshot
        return split_scenes(snapshot.scenes, snapshot.offsets, snapshot.start_s, snapshot.end_s)

    def take_over(self, old: Derived, *, encoder: AugmentedEncoder | None, bank: CaptionBank | None) -> None:
        """Take what is derived from videos that have not changed; the same of new videos is computed.

        Args:
            old: what was derived from the snapshot before.
            encoder: the augmentation in force.
        """
        augmented, taken = encoder is not None, Taken.between(old.snapshot, self.snapshot)
        if old.snapshot.manifest.augmentation == self.snapshot.manifest.augmentation:
            self._bases = old._bases
        if augmented not in old._units or not (taken.old >= 0).any():
            return
        fresh = Derived(self.snapshot.part(taken.new))
        groups = _of_videos(fresh, encoder)
        before, after = old._units[augmented], fresh.units(groups)
        of_parts = Runs(taken, old.parts.offsets, fresh.parts.offsets)
        of_units = Runs(taken, before.offsets, after.offsets)
        within = of_parts.join(
            _within(before.of_part, before.offsets, old.parts.offsets),
            _within(after.of_part, after.offsets, fresh.parts.offsets),
        )
        self._means["part", augmented] = of_parts.join(old._means["part", augmented], fresh._means["part", augmented])
        self._units[augmented] = Units(
            offsets=of_units.offsets,
            of_part=within + np.repeat(of_units.offsets[:-1], np.diff(of_parts.offsets)),
            means=of_units.join(before.means, after.means),
        )
        kinds: dict[HubnessKind, Runs] = {
            "unit": of_units,
            "frame": Runs(taken, old.snapshot.offsets, fresh.snapshot.offsets),
        }
        for kind, runs in kinds.items():
            known = old._hubness.get((kind, augmented))
            if bank is not None and known is not None and known[0] is bank:
                joined = runs.join(known[1], fresh.hubness(bank, groups, kind=kind))
                self._hubness[kind, augmented] = bank, joined

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

    def group_means(self, groups: Groups, *, kind: Group | Literal["part"] | None = None) -> Float32:
        """Compute the unit means (G, D) of groups, or take them from the snapshot.

        Args:
            kind: `part` for those of the parts; None = those of the groups.
        """
        snapshot, augmented = self.snapshot, groups.encoder is not None
        key = (kind or groups.options.group, augmented)
        with self._lock:
            if key not in self._means:
                if snapshot.video_means is not None and key == ("video", snapshot.blend is not None):
                    return snapshot.video_means
                references = groups.encoder.references if groups.encoder else None
                starts = self.parts.bounds[:-1] if kind == "part" else groups.starts
                self._means[key] = group_means(snapshot, starts, references=references)
            return self._means[key]

    def units(self, groups: Groups) -> Units:
        """Join the parts to units."""
        augmented = groups.encoder is not None
        with self._lock:
            if augmented not in self._units:
                means = self.group_means(groups, kind="part")
                self._units[augmented] = join_alike(self.parts, means, self.snapshot.weight)
            return self._units[augmented]

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
                    blocks = [basis.encode(self.units(groups).means)]
                else:
                    rows = range(0, count, _FITTED)
                    pieces = (slice(first, min(first + _FITTED, count)) for first in rows)
                    blocks = [basis.encode(frame_vectors(self.snapshot, groups.encoder, one)) for one in pieces]
                self._codes[key] = Codes(basis=basis, blocks=tuple(blocks))
            return self._codes[key]

    def _basis(self, encoder: AugmentedEncoder | None, bank: CaptionBank | None) -> Basis:
        """Fit the basis of the codes on evenly spaced frames."""
        augmented = encoder is not None
        if augmented not in self._bases:
            rows = np.linspace(0, len(self.snapshot) - 1, min(len(self.snapshot), _FITTED)).astype(np.int64)
            sample = frame_vectors(self.snapshot, encoder, rows)
            self._bases[augmented] = Basis.fit(sample, None if bank is None else bank.captions)
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
        if kind == "frame":
            found = frame_hubness(bank, self.snapshot, groups.encoder)
            self._frames.pop(groups.encoder is not None, None)
        else:
            found = bank.hubness(self.units(groups).means if kind == "unit" else self.group_means(groups))
        if bank.shares is None:
            self._hubness[key] = (bank, found)
        return found

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


def _within(
    of_part: npt.NDArray[np.int64], units: npt.NDArray[np.int64], parts: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Number the units (P,) of parts from 0 in each video.

    Args:
        units, parts: (V + 1,) first unit and first part of each video.
    """
    return of_part - np.repeat(units[:-1], np.diff(parts))


def _ranked_kind(groups: Groups) -> HubnessKind:
    by = groups.options.ranked_by
    if by == "moment":
        return "unit"
    if by == "frame":
        return "frame"
    return "scene" if groups.options.group == "scene" else "video"
