"""Load a snapshot; after a commit, read only the videos that changed, and take everything else over.

A snapshot of 100 hours takes about 7 s to read from the tables, and what a first search derives from it as long again.
After a commit of one video nearly all of it is as before: its arrays are copied, and only new videos are read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from impart.blending.base import Blend
from impart.video.index.manifest import IndexManifest
from impart.video.index.store import Store, TableGoneError, VideoRecord
from impart.video.search.snapshot import Snapshot
from impart.video.search.state.cache import from_cache
from impart.video.search.state.tables import from_tables, modified_at

__all__ = ["Runs", "Taken", "load_snapshot"]

_MOST_NEW = 500
"""Videos that are read one by one; of more, the whole table is read."""
_LEAST_KEPT = 0.5  # of the segments, below which everything is read


@dataclasses.dataclass(frozen=True, kw_only=True)
class Taken:
    """The videos of a new snapshot that are as they were in an old one.

    Attributes:
        old: (V,) number of each video of the new snapshot in the old one; -1 = it is new or has changed.
    """

    old: npt.NDArray[np.int64]

    @classmethod
    def between(cls, old: Snapshot, new: Snapshot) -> Taken:
        """Compare the videos of two snapshots."""
        if not _comparable(old, new.manifest) or new.unblended or not new.revisions:
            return cls(old=np.full(len(new.video_ids), -1, np.int64))
        counts, before = np.diff(new.offsets), np.diff(old.offsets)
        numbers = np.full(len(new.video_ids), -1, np.int64)
        for video, (video_id, revision) in enumerate(zip(new.video_ids, new.revisions, strict=True)):
            known = old.number_of.get(video_id)
            # The revision of a video that was read in part is not known.
            if known is not None and old.revisions[known] == revision != video_id and before[known] == counts[video]:
                numbers[video] = known
        return cls(old=numbers)

    @property
    def new(self) -> npt.NDArray[np.int64]:
        """Numbers of the videos that are new or have changed."""
        return np.flatnonzero(self.old < 0)


class Runs:
    """Joins the rows of videos from two sources in the order of a new snapshot.

    Args:
        taken: which videos come from the old source.
        old, fresh: (V' + 1,) first row of each video of the old source, and of the one with the new videos alone.
    """

    def __init__(self, taken: Taken, old: npt.NDArray[np.int64], fresh: npt.NDArray[np.int64]) -> None:
        self._pieces: list[tuple[bool, int, int]] = []  # from the old source?, first row, row behind the last
        lengths, new = [], 0
        for number in taken.old.tolist():
            is_old = number >= 0
            begin, end = (old[number : number + 2] if is_old else fresh[new : new + 2]).tolist()
            new += not is_old
            lengths.append(end - begin)
            if self._pieces and self._pieces[-1][0] == is_old and self._pieces[-1][2] == begin:
                begin = self._pieces.pop()[1]
            self._pieces.append((is_old, begin, end))
        self.offsets = np.cumsum([0, *lengths]).astype(np.int64)
        """(V + 1,) first row of each video of the result."""

    def join(self, old: npt.NDArray[Any], fresh: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Join arrays with one row per row of a source."""
        result = np.empty((int(self.offsets[-1]), *old.shape[1:]), old.dtype)
        place = 0
        for is_old, begin, end in self._pieces:
            result[place : place + end - begin] = (old if is_old else fresh)[begin:end]
            place += end - begin
        return result


def load_snapshot(store: Store, *, old: Snapshot | None = None) -> Snapshot:
    """Read the index as it is now, also while a writer changes it.

    Videos that lack rows are left out, and named in `Snapshot.left_out`.

    Args:
        old: an earlier snapshot, whose arrays are copied where they are the same.

    Raises:
        VideoIndexError: the index is damaged.
    """

    def read() -> Snapshot:
        state = store.state()
        manifest = IndexManifest.load(store.folder)
        cached = from_cache(store, state, manifest)
        if cached is not None:
            return cached
        made = None if old is None else _joined(store, state, manifest, old)
        made = made or from_tables(store, state, manifest)
        if (made.left_out or made.unblended) and store.state() != state:
            raise TableGoneError("a video was replaced meanwhile")
        return made

    return store.retry(read)


def _joined(store: Store, state: str, manifest: IndexManifest, old: Snapshot) -> Snapshot | None:
    """Join an old snapshot and the videos that changed; None where reading everything is better."""
    if not _comparable(old, manifest):
        return None
    try:
        len(old.retrieval)
    except TableGoneError:  # not read so far, and one of its videos was replaced
        return None
    records = store.videos()
    is_known = [_is_known(record, old) for record in records]
    changed = [record for record, known in zip(records, is_known, strict=True) if not known]
    kept = sum(record.segments for record, known in zip(records, is_known, strict=True) if known)
    if len(changed) > _MOST_NEW or kept < _LEAST_KEPT * len(old):
        return None
    fresh = from_tables(store, state, manifest, only=changed)
    lacking = set(fresh.left_out)
    records = [record for record in records if record.path not in lacking]
    taken = Taken(
        old=np.array(
            [-1 if record.video_id in fresh.number_of else old.number_of[record.video_id] for record in records],
            np.int64,
        )
    )
    return _join(taken, old, fresh, records)


def _comparable(old: Snapshot, manifest: IndexManifest) -> bool:
    """Decide whether the arrays of an old snapshot may be parts of one with this manifest."""
    was = old.manifest
    same = was.encoder_fingerprint == manifest.encoder_fingerprint and was.augmentation == manifest.augmentation
    return same and was.index.precision == manifest.index.precision and bool(old.revisions) and not old.unblended


def _is_known(record: VideoRecord, old: Snapshot) -> bool:
    number = old.number_of.get(record.video_id)
    return (
        number is not None
        and record.problem is None
        and old.revisions[number] == record.revision
        and int(old.offsets[number + 1] - old.offsets[number]) == record.segments
    )


def _join(taken: Taken, old: Snapshot, fresh: Snapshot, records: Sequence[VideoRecord]) -> Snapshot:
    """Join two snapshots; what describes a file is that of its record."""
    segments = Runs(taken, old.offsets, fresh.offsets)
    old_scenes, fresh_scenes = (np.searchsorted(one.scenes, one.offsets) for one in (old, fresh))
    scenes = Runs(taken, old_scenes, fresh_scenes)
    within = scenes.join(*(one.scenes - one.offsets[one.video_of[one.scenes]] for one in (old, fresh)))
    owner = np.repeat(np.arange(len(records)), np.diff(scenes.offsets))
    blend = None
    if old.blend is not None and fresh.blend is not None:
        before, after = old.blend, fresh.blend
        added = None
        if before.added is not None and after.added is not None:
            added = segments.join(before.added, after.added)
        blend = Blend(
            ids=segments.join(before.ids, after.ids),
            img=segments.join(before.img, after.img),
            txt=segments.join(before.txt, after.txt),
            norm=segments.join(before.norm, after.norm),
            added=added,
        )
    retrieval = segments.join(old.retrieval, fresh.retrieval)  # now: later, the old snapshot is gone
    return Snapshot(
        state=fresh.state,
        manifest=fresh.manifest,
        video_ids=tuple(record.video_id for record in records),
        paths=tuple(record.path for record in records),
        revisions=tuple(record.revision if record.problem is None else record.video_id for record in records),
        kinds=tuple(record.kind for record in records),
        durations_s=np.array([record.duration_s for record in records], np.float64),
        recorded_at=np.array([record.recorded_at for record in records], np.float64),
        modified_at=np.array([modified_at(record) for record in records], np.float64),
        offsets=segments.offsets,
        start_s=segments.join(old.start_s, fresh.start_s),
        end_s=segments.join(old.end_s, fresh.end_s),
        weight=segments.join(old.weight, fresh.weight),
        vectors=segments.join(old.vectors, fresh.vectors),
        scenes=within + segments.offsets[owner],
        scene_start_s=scenes.join(old.scene_start_s, fresh.scene_start_s),
        scene_end_s=scenes.join(old.scene_end_s, fresh.scene_end_s),
        blend=blend,
        read_retrieval=lambda: retrieval,
        left_out=fresh.left_out,
        unblended=fresh.unblended,
    )
