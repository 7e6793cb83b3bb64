"""Load a snapshot; after a commit, read only the videos that changed, and take everything else over.

A snapshot of 100 hours takes about 7 s to read from the tables, and what a first search derives from it as long again.
After a commit of one video nearly all of it is as before: its shards are taken, from an earlier snapshot or from the
cache, and only new videos are read.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from impart.video.index.manifest import IndexManifest
from impart.video.index.store import Store, TableGoneError, VideoRecord
from impart.video.search.snapshot import Snapshot
from impart.video.search.state.cache import Cached, from_cache
from impart.video.search.state.choice import VideoChoice, VideoColumns, compose
from impart.video.search.state.shard import VideoShard
from impart.video.search.state.tables import columns_of, from_tables, key_of

__all__ = ["load_snapshot"]

_MOST_NEW = 500
"""Videos that are read one by one; of more, the whole table is read."""
_LEAST_KEPT = 0.5  # of the segments, below which everything is read


def load_snapshot(store: Store, *, old: Snapshot | None = None) -> Snapshot:
    """Read an index, again where a writer changed it meanwhile.

    Videos that lack rows are left out, and named in `Snapshot.left_out`.

    Args:
        old: an earlier snapshot, whose shards are taken where they are the same.

    Raises:
        VideoIndexError: the index is damaged.
    """

    def read() -> Snapshot:
        state = store.state()
        manifest = IndexManifest.load(store.folder)
        comparable = None if old is None else _comparable(old, manifest)
        cached = from_cache(store, manifest, () if comparable is None else comparable.choice.shards)
        if cached is not None and cached.state == state:
            return cached.snapshot(manifest)
        before = comparable or cached
        made = None if before is None else _joined(store, state, manifest, before)
        made = made or _whole(store, state, manifest)
        if (made.left_out or made.unblended) and store.state() != state:
            raise TableGoneError("a video was replaced meanwhile")
        return made

    return store.retry(read)


def _whole(store: Store, state: str, manifest: IndexManifest) -> Snapshot:
    records = store.videos()
    return _snapshot_of(_shard(store, state, manifest, records, whole=True))


def _shard(
    store: Store, state: str, manifest: IndexManifest, records: list[VideoRecord], *, whole: bool = False
) -> VideoShard:
    """Read some videos, or all, from the tables."""
    snapshot = from_tables(store, state, manifest, only=None if whole else records)
    keys = {record.video_id: key_of(record) for record in records}
    try:
        return VideoShard(snapshot, tuple(keys[video_id] for video_id in snapshot.video_ids))
    except KeyError as error:
        raise TableGoneError("a video was added meanwhile") from error


def _snapshot_of(shard: VideoShard) -> Snapshot:
    """Compose a snapshot of one shard."""
    snapshot = shard.snapshot
    return dataclasses.replace(snapshot, origin=VideoChoice.whole(shard))


def _comparable(old: Snapshot, manifest: IndexManifest) -> Cached | None:
    """Take the places of an old snapshot, where its arrays may be part of one with this manifest."""
    was = old.manifest
    same = was.encoder_fingerprint == manifest.encoder_fingerprint and was.augmentation == manifest.augmentation
    same = same and was.index.precision == manifest.index.precision and not old.unblended
    if not same or old.origin is None:
        return None
    return Cached(old.state, old.origin, VideoColumns.of(old))


def _joined(store: Store, state: str, manifest: IndexManifest, before: Cached) -> Snapshot | None:
    """Join earlier shards and the videos that changed; None where reading everything is better."""
    choice = before.choice
    if not len(choice.number):
        return None
    try:
        for shard in choice.shards:
            len(shard.snapshot.retrieval)  # now: it may not be read so far, and is read from the tables
    except TableGoneError:  # one of its videos was replaced
        return None
    records = store.videos()
    number_of = {video_id: number for number, video_id in enumerate(before.columns.video_ids)}
    known = [_known(record, number_of.get(record.video_id), choice) for record in records]
    changed = [record for record, number in zip(records, known, strict=True) if number is None]
    kept = sum(record.segments for record, number in zip(records, known, strict=True) if number is not None)
    total = int(choice.segments.offsets[-1])
    if len(changed) > _MOST_NEW or kept < _LEAST_KEPT * total:
        return None
    fresh = _shard(store, state, manifest, changed)
    of_fresh = fresh.snapshot.number_of
    lacking = set(fresh.snapshot.left_out)
    records = [record for record in records if record.path not in lacking]
    places = [number_of[record.video_id] if record.video_id not in of_fresh else -1 for record in records]
    numbers = [of_fresh.get(record.video_id, -1) for record in records]
    old, own = np.array(places, np.int64), np.array(numbers, np.int64)
    is_new = own >= 0
    joined = VideoChoice(
        (*choice.shards, fresh),
        np.where(is_new, len(choice.shards), choice.shard_of[old]),
        np.where(is_new, own, choice.number[old]),
    )
    return compose(
        joined.take(np.arange(len(records))),
        columns_of(records),
        state=state,
        manifest=manifest,
        left_out=fresh.snapshot.left_out,
        unblended=fresh.snapshot.unblended,
    )


def _known(record: VideoRecord, number: int | None, choice: VideoChoice) -> int | None:
    """Return the number of a video in a choice; None where it is new or has changed."""
    if number is None:
        return None
    shard, own = choice.shards[int(choice.shard_of[number])], int(choice.number[number])
    offsets = shard.snapshot.offsets
    same = bool(shard.keys) and shard.keys[own] == key_of(record)
    return number if same and int(offsets[own + 1] - offsets[own]) == record.segments else None
