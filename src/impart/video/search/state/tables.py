"""Read a snapshot, or some of its videos, from the tables of an index."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from impart.blending.base import Blend
from impart.video.index.manifest import IndexManifest
from impart.video.index.store import SEGMENTS, UNREAD, Store, TableGoneError, VideoRecord
from impart.video.integrity import KEYS, Placed, Rows, place_rows
from impart.video.scenes.stored import stored_bounds
from impart.video.search.snapshot import Snapshot
from impart.video.search.state.choice import VideoColumns

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["blend_names", "blends_of", "columns_of", "from_tables", "key_of", "modified_at", "where_of"]

_BLEND = ("ids", "img", "txt", "norm")
_FEW_ROWS, _SPARE_ROWS = 4096, 256  # of a small commit, and of others written after it


def from_tables(
    store: Store, state: str, manifest: IndexManifest, *, only: list[VideoRecord] | None = None
) -> Snapshot:
    """Read the tables.

    Args:
        only: videos that are read, sorted by path; None = all.

    Raises:
        TableGoneError: a writer changed them meanwhile.
    """
    everything = store.videos() if only is None else only
    where = None if only is None else where_of(only)
    rows = _rows_of(store, SEGMENTS, [*KEYS, "start_s", "end_s", "weight", "vector"], everything, where)
    found = place_rows(rows, everything)
    records = [record for record, whole in zip(everything, found.whole, strict=True) if whole]
    place = found.place if found.whole.all() else place_rows(rows, records).place
    offsets = np.concatenate([[0], np.cumsum([record.segments for record in records])]).astype(np.int64)
    scenes = [np.array(record.scene_starts, np.int64) + first for record, first in zip(records, offsets, strict=False)]
    total = int(offsets[-1])
    number = np.float16 if manifest.index.precision == "float16" else np.float32
    blend, unblended = blends_of(store, manifest, records, where)
    start_s = _spread(rows["start_s"], place, np.empty(total, np.float64))
    end_s = _spread(rows["end_s"], place, np.empty(total, np.float64))
    bounds = [
        stored_bounds(record, start_s[first:stop], end_s[first:stop])
        for record, first, stop in zip(records, offsets, offsets[1:], strict=False)
    ]
    return Snapshot(
        state=state,
        manifest=manifest,
        **vars(columns_of(records)),
        offsets=offsets,
        scenes=np.concatenate([np.zeros(0, np.int64), *scenes]),
        start_s=start_s,
        end_s=end_s,
        scene_start_s=np.concatenate([np.zeros(0), *(scenes.start_s for scenes in bounds)]),
        scene_end_s=np.concatenate([np.zeros(0), *(scenes.end_s for scenes in bounds)]),
        read_retrieval=partial(_read_retrieval, store, manifest, records, where),
        weight=_spread(rows["weight"], place, np.empty(total, np.int32)),
        vectors=_spread(rows["vector"], place, np.empty((total, manifest.dim), number)),
        blend=blend,
        left_out=_lacking(everything, found),
        unblended=unblended,
    )


def where_of(records: Sequence[Rows]) -> str:
    """Make the filter of the rows of some videos."""
    ids = ", ".join(f"'{record.video_id}'" for record in records)
    return f"video_id IN ({ids})" if ids else "false"


def columns_of(records: Sequence[VideoRecord]) -> VideoColumns:
    """Describe videos by their records."""
    return VideoColumns(
        video_ids=tuple(record.video_id for record in records),
        paths=tuple(record.path for record in records),
        # A video read in part stands for no other one, whose whole content was found.
        revisions=tuple(record.revision if record.problem is None else record.video_id for record in records),
        kinds=tuple(record.kind for record in records),
        durations_s=np.array([record.duration_s for record in records], np.float64),
        recorded_at=np.array([record.recorded_at for record in records], np.float64),  # None becomes NaN
        modified_at=np.array([modified_at(record) for record in records], np.float64),
    )


def key_of(record: VideoRecord) -> str:
    """Return what tells whether the rows of a video have changed: equal keys of one id are equal rows.

    A video that was read in part may be read again with the same revision.
    """
    return record.revision if record.problem is None else f"{record.revision} {record.indexed_at!r}"


def modified_at(record: VideoRecord) -> float:
    """Return the time of the last change of a file, Unix time; NaN = unknown."""
    return float("nan") if record.mtime_ns == UNREAD else record.mtime_ns / 1e9


def _read_retrieval(
    store: Store, manifest: IndexManifest, records: list[VideoRecord], where: str | None
) -> npt.NDArray[Any]:
    """Read the retrieval embeddings (n, R) of the videos of a snapshot.

    Raises:
        TableGoneError: a video was replaced meanwhile.
    """
    rows = _rows_of(store, SEGMENTS, [*KEYS, "retrieval"], records, where)
    found = place_rows(rows, records)
    if not found.whole.all():
        raise TableGoneError("a video was replaced meanwhile")
    number = np.float16 if manifest.index.precision == "float16" else np.float32
    total = sum(record.segments for record in records)
    return _spread(rows["retrieval"], found.place, np.empty((total, manifest.retrieval_dim), number))


def blends_of(
    store: Store, manifest: IndexManifest, records: Sequence[Rows], where: str | None = None
) -> tuple[Blend | None, tuple[Path, ...]]:
    """Read the blends of all segments of some videos; those of which rows are missing add nothing.

    Args:
        where: filter of the rows that are read; None = all.

    Returns:
        The blend, None without a reference set; paths of the videos that lack rows.
    """
    if manifest.augmentation is None:
        return None, ()
    k, total = manifest.augmentation.settings.k, sum(record.segments for record in records)
    number = np.float16 if manifest.index.precision == "float16" else np.float32
    blend = Blend(
        ids=np.full((total, k), -1, np.int32),
        img=np.zeros((total, k), np.float32),
        txt=np.zeros((total, k), np.float32),
        norm=np.ones(total, np.float32),
        added=np.zeros((total, manifest.dim), number) if manifest.augmentation.dense else None,
    )
    rows = _neighbours(store, manifest.augmentation.table, [*KEYS, *blend_names(manifest)], records, where)
    if rows is None:
        return blend, tuple(record.path for record in records)
    found = place_rows(rows, records)
    for name in blend_names(manifest):
        _spread(rows[name], found.place, getattr(blend, name))
    return blend, _lacking(records, found)


def _lacking(records: Sequence[Rows], found: Placed) -> tuple[Path, ...]:
    return tuple(record.path for record, whole in zip(records, found.whole, strict=True) if not whole)


def _rows_of(store: Store, name: str, columns: Sequence[str], records: Sequence[Rows], where: str | None) -> pa.Table:
    """Read the rows of some videos, and perhaps others.

    Few rows are looked for at the end of the table first, where the last commit wrote: the filter reads the ids of all
    rows, which takes longer than all else that a small commit needs.

    Args:
        where: filter of the rows; None = all.
    """
    count = sum(record.segments for record in records)
    if where is not None and 0 < count <= _FEW_ROWS:
        rows = store.read(name, columns=columns, last=2 * count + _SPARE_ROWS)
        if place_rows(rows, records).whole.all():
            return rows
    return store.read(name, columns=columns, where=where)


def _neighbours(
    store: Store, name: str, columns: list[str], records: Sequence[Rows], where: str | None
) -> pa.Table | None:
    """Read a neighbours table; None where it is lost or damaged, since its rows can be computed again."""
    try:
        return _rows_of(store, name, columns, records, where)
    except TableGoneError:
        if store.damaged(name) is None:
            raise
        return None


def _spread(column: pa.ChunkedArray, place: npt.NDArray[np.int64], out: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Copy a column to `out` (n, ...), row i to `out[place[i]]`, chunk by chunk."""
    first = 0
    for chunk in column.chunks:
        flat = chunk.flatten() if out.ndim == 2 else chunk
        values = flat.to_numpy(zero_copy_only=False).reshape(len(chunk), *out.shape[1:])
        here = place[first : first + len(chunk)]
        first += len(chunk)
        if len(here) and here[0] >= 0 and np.array_equal(here, np.arange(here[0], here[0] + len(here))):
            out[here[0] : here[0] + len(here)] = values
        else:
            out[here[here >= 0]] = values[here >= 0]
    return out


def blend_names(manifest: IndexManifest) -> tuple[str, ...]:
    """List the columns of a blend that an index stores."""
    dense = manifest.augmentation is not None and manifest.augmentation.dense
    return (*_BLEND, "added") if dense else _BLEND
