"""Writer of a video index: atomic commits, clean-up after an interrupted run, compaction.

`with Writer(store) as writer:` holds the index's lock. A video is written by any number of `add_segments` and one
`commit`; nothing is visible before the commit, and what is committed is synced to disk.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from impart.errors import VideoIndexError
from impart.video.index.closed import is_marked, mark_closed
from impart.video.index.doctor.checksums import Recorder
from impart.video.index.doctor.newest import check_unchanged
from impart.video.index.durable.lock import write_lock
from impart.video.index.durable.roll_back import roll_back
from impart.video.index.durable.sync import TableSync
from impart.video.index.manifest import Augmentation, IndexManifest
from impart.video.index.remote.mirror import publishing
from impart.video.index.store import (
    BY_OTHERS,
    FAILURES,
    NEIGHBOURS_PREFIX,
    SEGMENTS,
    UNREAD,
    VIDEOS,
    FailureRecord,
    Store,
    TableGoneError,
    VideoRecord,
    path_id,
)
from impart.video.integrity import KEYS, ROWS_MISSING, place_rows, remove_temporary

if TYPE_CHECKING:
    import pyarrow as pa

    from impart.blending.base import Blend

__all__ = ["CHUNK_ROWS", "SegmentChunk", "Writer", "blend_columns"]

CHUNK_ROWS = 4096
"""Segments written at once; it bounds the memory that a long video needs."""

_KEEP_VERSIONS = timedelta(minutes=2)
"""Readers use a version for about a second; a slower reader reads again."""

_KEEP_ALL = timedelta(days=36_500)
_DELETE_AT_ONCE = 200
_SPARE_BYTES = 8_000_000  # replaced files that a table may have without being rewritten


@dataclass(frozen=True, kw_only=True)
class SegmentChunk:
    """n consecutive segments of a video.

    Attributes:
        first: number of the first segment.
        start_s, end_s: (n,) seconds; weight: (n,) sampled frames.
        vectors: (n, D) base embeddings and retrieval: (n, R), both in the index's precision.
        blend: of the n segments, or None in an index without a reference set.
    """

    first: int
    start_s: npt.NDArray[np.float64]
    end_s: npt.NDArray[np.float64]
    weight: npt.NDArray[np.int32]
    vectors: npt.NDArray[Any]
    retrieval: npt.NDArray[Any]
    blend: Blend | None

    def __len__(self) -> int:
        return len(self.start_s)


class Writer:
    """Writes one index; holds its lock from `__enter__` to `__exit__`.

    Attributes:
        unblended: videos without all of their rows in the neighbours table; see `impart.video.index.refset_switch`.

    Raises:
        IndexLockedError: on entering, another process is writing.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._lock = ExitStack()
        self.manifest: IndexManifest
        self.videos: dict[str, VideoRecord] = {}
        self.failures: dict[Path, FailureRecord] = {}
        self.unblended: list[VideoRecord] = []
        self._tables: dict[str, Any] = {}
        self._sync = TableSync(store.folder if store.mirror is None else None)
        self._uncommitted: set[tuple[str, str]] = set()

    def __enter__(self) -> Self:
        self._lock.enter_context(write_lock(self.store.folder))
        try:
            self._recorder = Recorder(self.store.folder) if self.store.mirror is None else None
            self.manifest = IndexManifest.load(self.store.folder, migrate=True)
            with self.store.errors("open"):
                roll_back(self.store.folder)
                self.videos = {record.video_id: record for record in self.store.videos()}
                self._sync.begin()  # from here on something is written
                self.store.add_columns(self.manifest)
                self.failures = {record.path: record for record in self._read_failures()}
                self._clean_up()
        except BaseException:
            with contextlib.suppress(OSError, VideoIndexError):
                self._sync.end()
            self._lock.close()
            raise
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        try:
            with self.store.errors("write to") if error is None else contextlib.suppress(OSError, VideoIndexError):
                self._sync.end()
            if self._recorder is not None:
                self._recorder.record()
            if error is None and not self.unblended and not self._uncommitted:
                mark_closed(self.store.folder, [VIDEOS, *self._row_tables()])
        finally:
            self._lock.close()

    def add_segments(self, video_id: str, revision: str, chunk: SegmentChunk) -> None:
        """Append segments of a video that is not committed yet."""
        numbers = np.arange(chunk.first, chunk.first + len(chunk), dtype=np.int32)
        self._append([(video_id, revision)] * len(chunk), numbers, chunk)

    def add_photos(self, pairs: Sequence[tuple[str, str]], chunk: SegmentChunk) -> None:
        """Append the only segment of each of several photos that are not committed yet.

        Args:
            pairs: (video_id, revision) of each.
        """
        self._append(pairs, np.zeros(len(chunk), np.int32), chunk)

    def _append(self, pairs: Sequence[tuple[str, str]], numbers: npt.NDArray[np.int32], chunk: SegmentChunk) -> None:
        import pyarrow as pa

        keys: dict[str, Any] = {
            "video_id": pa.array([video_id for video_id, _ in pairs], pa.string()),
            "revision": pa.array([revision for _, revision in pairs], pa.string()),
            "number": pa.array(numbers),
        }
        rows = keys | {
            "start_s": pa.array(chunk.start_s),
            "end_s": pa.array(chunk.end_s),
            "weight": pa.array(chunk.weight),
            "vector": _lists(chunk.vectors),
            "retrieval": _lists(chunk.retrieval),
        }
        self._uncommitted |= set(pairs)
        with self.store.errors("write to"):
            self._table(SEGMENTS).add(pa.table(rows))
            augmentation = self.manifest.augmentation
            if augmentation is not None:
                assert chunk.blend is not None
                self._table(augmentation.table).add(pa.table(keys | blend_columns(chunk.blend, self.manifest)))

    def commit(self, *records: VideoRecord) -> None:
        """Commit videos whose segments are written; each replaces its older revision, if there is one."""
        with self.store.errors("write to"):
            self._commit(records)

    def update(self, records: Sequence[VideoRecord]) -> None:
        """Replace the rows of videos whose segments stay, in one step: they moved, or only their times changed."""
        with self.store.errors("write to"):
            self._put(*records)
            self._sync.sync(VIDEOS)

    def blended(self) -> None:
        """Record that the neighbours table is whole; this is a commit, so that readers read the index again."""
        with self.store.errors("write to"):
            self._sync.sync(*self._row_tables())
            self._put(self.unblended[0])
            self._sync.sync(VIDEOS)
        self.unblended = []

    def copy(self, pairs: Sequence[tuple[VideoRecord, VideoRecord]]) -> None:
        """Commit videos with the segments of others.

        Args:
            pairs: (original, record) of the same content. They are copied in few steps: a step costs as much as a
                thousand rows.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        at_once: list[tuple[VideoRecord, VideoRecord]] = []
        for pair in pairs:
            at_once.append(pair)
            rows_waiting = sum(original.segments for original, _ in at_once)
            if pair is not pairs[-1] and len(at_once) < _DELETE_AT_ONCE and rows_waiting < CHUNK_ROWS:
                continue
            where = _where((original.video_id, original.revision) for original, _ in at_once)
            with self.store.errors("write to"):
                for name in self._row_tables():
                    read = self.store.read(name, where=where).sort_by("number")
                    copied = []
                    for original, record in at_once:
                        rows = read.filter(pc.equal(read["video_id"], original.video_id))
                        ids = pa.array([record.video_id] * len(rows), pa.string())
                        copied.append(rows.set_column(rows.schema.get_field_index("video_id"), "video_id", ids))
                    self._table(name).add(pa.concat_tables(copied))
                self._commit([record for _, record in at_once])
            at_once = []

    def remove(self, records: Sequence[VideoRecord]) -> None:
        """Remove videos: first their rows in `videos`, then the others."""
        with self.store.errors("write to"):
            for group in _groups(records):
                ids = ", ".join(f"'{record.video_id}'" for record in group)
                self._table(VIDEOS).delete(f"video_id IN ({ids})")
                self._sync.sync(VIDEOS, FAILURES)
                for record in group:
                    del self.videos[record.video_id]
                self.discard([(record.video_id, record.revision) for record in group])

    def discard(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Delete the segments of (video_id, revision) pairs that are not committed."""
        given = list(pairs)
        self._delete(given, self._row_tables())
        self._uncommitted -= set(given)

    def remember_failure(self, path: Path, *, size_bytes: int, mtime_ns: int, reason: str) -> FailureRecord:
        """Record that a file could not be indexed."""
        import pyarrow as pa

        known = self.failures.get(path)
        record = FailureRecord(
            path=path,
            size_bytes=size_bytes,
            mtime_ns=mtime_ns,
            reason=reason,
            attempts=known.attempts + 1 if known else 1,
            failed_at=time.time(),
        )
        row = dataclasses.asdict(record) | {"path": os.fsencode(path), "path_id": path_id(path)}
        with self.store.errors("write to"):
            table = self._table(FAILURES)
            _upsert(table, pa.Table.from_pylist([row], schema=table.schema), key="path_id")
        self.failures[path] = record
        return record

    def forget_failures(self, paths: Iterable[Path]) -> None:
        """Delete the recorded failures of these paths."""
        known = [path for path in paths if path in self.failures]
        with self.store.errors("write to"):
            for group in _groups(known):
                ids = ", ".join(f"'{path_id(path)}'" for path in group)
                self._table(FAILURES).delete(f"path_id IN ({ids})")
        for path in known:
            del self.failures[path]

    def save_manifest(self, manifest: IndexManifest) -> None:
        """Replace the manifest, and delete the tables and folders that only the old one named."""
        with self.store.errors("write to"):
            self._sync.sync(*self.store.table_names())
        manifest.save(self.store.folder)
        self.manifest = manifest
        with self.store.errors("clean"):
            self._drop_unnamed()

    def compact(self, *, last: bool = False) -> None:
        """Merge small fragments where that is worth its cost, and delete versions that no reader uses.

        Args:
            last: whether the run ends. Tables with many replaced files are then merged to one fragment, so that the
                next writer can delete these files at no cost.
        """
        with self.store.errors("compact"):
            for name, stats, replaced in self._sizes():
                if _worth_compacting(stats) or (last and replaced > _SPARE_BYTES + stats["total_bytes"] / 4):
                    self._optimize(name)
        if self._recorder is not None:
            self._recorder.record()

    def _delete_replaced(self) -> None:
        """Delete replaced files where there is nothing to merge, or where they are larger than the table itself."""
        for name, stats, replaced in self._sizes():
            one_piece = stats["fragment_stats"]["num_fragments"] <= 1
            if (one_piece and self.store.size_of(name)[1] > 2) or replaced > _SPARE_BYTES + stats["total_bytes"]:
                self._optimize(name)

    def _sizes(self) -> Iterator[tuple[str, Mapping[str, Any], int]]:
        """Yield name, statistics and bytes of replaced files of each table."""
        for name in [VIDEOS, FAILURES, *self._row_tables()]:
            stats = self._table(name).stats()
            yield name, stats, self.store.size_of(name)[0] - stats["total_bytes"]

    def _optimize(self, name: str) -> None:
        if self.store.mirror is None:
            check_unchanged(self.store.folder, name)  # a damaged row would get into a file with a checksum of its own
        self._table(name).optimize(cleanup_older_than=_KEEP_ALL)
        self._sync.sync(name)  # before the merged files are deleted
        # Files of no version are from an interrupted run: this process alone holds the lock.
        self._table(name).optimize(cleanup_older_than=_KEEP_VERSIONS, delete_unverified=True)

    def _commit(self, records: Sequence[VideoRecord]) -> None:
        old = [self.videos[record.video_id] for record in records if record.video_id in self.videos]
        new = {record.video_id: record for record in records}
        self._sync.sync(SEGMENTS)
        self._put(*(record for record in records if record.video_id in self.videos))
        self._put(*(record for record in records if record.video_id not in self.videos))
        self._uncommitted -= {_key(record) for record in records}
        self.forget_failures([record.path for record in records])
        self._sync.sync(VIDEOS, FAILURES)
        replaced = [one for one in old if one.revision != new[one.video_id].revision]
        self.discard([(one.video_id, one.revision) for one in replaced])

    def _put(self, *records: VideoRecord) -> None:
        """Write the rows of videos in one step; they are all new, or all known."""
        import pyarrow as pa

        if not records:
            return
        table = self._table(VIDEOS)
        rows = pa.Table.from_pylist(
            [vars(record) | {"path": os.fsencode(record.path)} for record in records], schema=table.schema
        )
        if records[0].video_id in self.videos:
            _upsert(table, rows, key="video_id")
        else:
            table.add(rows)
        self.videos.update((record.video_id, record) for record in records)

    def _table(self, name: str) -> Any:
        """Open a table once: only this writer creates newer versions."""
        if name not in self._tables:
            self._tables[name] = self.store.table(name)
        return self._tables[name]

    def _forget(self, name: str) -> None:
        """Close a table that is deleted, or made anew."""
        self._tables.pop(name, None)
        self._sync.forget(name)

    def _row_tables(self) -> list[str]:
        augmentation = self.manifest.augmentation
        return [SEGMENTS] if augmentation is None else [SEGMENTS, augmentation.table]

    def _delete(self, pairs: Sequence[tuple[str, str]], names: Sequence[str]) -> None:
        with self.store.errors("write to"):
            for group in _groups(pairs):
                for name in names:
                    self._table(name).delete(_where(group))

    def _read_failures(self) -> list[FailureRecord]:
        """Read the failures; a lost or damaged table is made again, and its files are tried again."""
        try:
            if self.store.damaged(FAILURES) is None:
                return self.store.failures()
        except TableGoneError:
            pass
        self._forget(FAILURES)
        self.store.make_failures(self.manifest)
        return []

    def _clean_up(self) -> None:
        """Delete what an interrupted run left: temporary files, orphan rows, and tables and folders without a name.

        Rows are not read where the last writer ended as it should, see `impart.video.index.closed`.
        """
        # The files of a remote index are also written by those that download them.
        remove_temporary(self.store.folder, by_others=BY_OTHERS if self.store.mirror is None else ["*"])
        self._drop_unnamed()
        if not is_marked(self.store.folder, [VIDEOS, *self._row_tables()]):
            self._check_rows()
        with contextlib.suppress(OSError, RuntimeError, ValueError):  # on a full disk, a run may still remove videos
            self._delete_replaced()

    def _check_rows(self) -> None:
        """Delete orphan rows, and take out the videos that lack rows; this reads the keys of all rows."""
        if self.manifest.augmentation is not None:
            self._check_neighbours()
        incomplete = self._sort_rows(SEGMENTS)
        for record in incomplete:  # first, so that a kill loses none of them in silence; no file has this time
            self.remember_failure(record.path, size_bytes=record.size_bytes, mtime_ns=UNREAD, reason=ROWS_MISSING)
        self.remove(incomplete)
        if self.manifest.augmentation is not None:
            self.unblended = self._sort_rows(self.manifest.augmentation.table)

    def _sort_rows(self, name: str) -> list[VideoRecord]:
        """Delete the orphan rows of a table, and find the videos that lack rows in it."""
        records = list(self.videos.values())
        rows = self.store.read(name, columns=KEYS)
        found = place_rows(rows, records)
        lacking = [record for record, whole in zip(records, found.whole, strict=True) if not whole]
        if np.any(found.place < 0) or lacking:
            present = rows.group_by(["video_id", "revision"]).aggregate([]).to_pydict()
            pairs = set(zip(present["video_id"], present["revision"], strict=True))
            whole = {(record.video_id, record.revision) for record in records} - {_key(record) for record in lacking}
            self._delete(sorted(pairs - whole), [name])
        return lacking

    def _check_neighbours(self) -> None:
        """Replace a neighbours table that is lost or damaged by an empty one: its rows can be computed again."""
        augmentation = self.manifest.augmentation
        assert augmentation is not None
        try:
            if self.store.damaged(augmentation.table) is None:
                self.store.read(augmentation.table, columns=KEYS)
                return
        except TableGoneError:
            pass
        self._forget(augmentation.table)
        self.store.make_neighbours(augmentation, self.manifest)

    def _drop_unnamed(self) -> None:
        """Delete neighbours tables, reference sets and RAMs that the manifest does not name."""
        augmentation = self.manifest.augmentation
        for name in self.store.table_names():
            if name.startswith(NEIGHBOURS_PREFIX) and (augmentation is None or name != augmentation.table):
                self._forget(name)
                self.store.drop(name)
        with publishing(self.store.folder, "references", "rams"):
            self._drop_copies(augmentation)

    def _drop_copies(self, augmentation: Augmentation | None) -> None:
        """Delete the copies of reference sets and RAMs that are not in force."""
        references = self.store.folder / "references"
        for folder in references.iterdir() if references.is_dir() else ():
            if augmentation is None or folder != self.store.folder / augmentation.folder:
                shutil.rmtree(folder, ignore_errors=True)
        rams = self.store.folder / "rams"
        for graph in rams.iterdir() if rams.is_dir() else ():
            if augmentation is None or graph != self.store.folder / augmentation.graph:
                graph.unlink(missing_ok=True)


def blend_columns(blend: Blend, manifest: IndexManifest) -> dict[str, pa.Array]:
    """Convert a blend to columns of a neighbours table."""
    import pyarrow as pa

    columns = {
        "ids": _lists(blend.ids.astype(np.int32, copy=False)),
        "img": _lists(blend.img.astype(np.float32, copy=False)),
        "txt": _lists(blend.txt.astype(np.float32, copy=False)),
        "norm": pa.array(blend.norm.astype(np.float32, copy=False)),
    }
    if blend.added is not None:
        columns["added"] = _lists(blend.added.astype(manifest.index.precision))
    return columns


def _lists(matrix: npt.NDArray[Any]) -> pa.FixedSizeListArray:
    """Convert (n, width) to a column of n lists."""
    import pyarrow as pa

    flat = pa.array(np.ascontiguousarray(matrix).reshape(-1))  # (n * width,)
    return pa.FixedSizeListArray.from_arrays(flat, matrix.shape[1])


def _upsert(table: Any, rows: pa.Table, *, key: str) -> None:
    table.merge_insert(key).when_matched_update_all().when_not_matched_insert_all().execute(rows)


def _key(record: VideoRecord) -> tuple[str, str]:
    return record.video_id, record.revision


def _where(pairs: Iterable[tuple[str, str]]) -> str:
    """Make the filter of the rows of (video_id, revision) pairs."""
    return " OR ".join(f"(video_id = '{video_id}' AND revision = '{revision}')" for video_id, revision in pairs)


def _groups(items: Sequence[Any]) -> Iterable[Sequence[Any]]:
    return (items[first : first + _DELETE_AT_ONCE] for first in range(0, len(items), _DELETE_AT_ONCE))


def _worth_compacting(stats: Mapping[str, Any]) -> bool:
    """Decide whether a table is compacted.

    Compaction rewrites every fragment below a million rows, the large one of last time included. So it waits until the
    rows outside that one are a fifth of the table, or the fragments are too many to be read quickly.
    """
    fragments = stats["fragment_stats"]
    count, largest = fragments["num_fragments"], fragments["lengths"]["max"]
    return bool(count >= 512 or (count >= 32 and stats["num_rows"] - largest >= 0.2 * stats["num_rows"]))
