"""Snapshot: a video index in memory, as of one commit. NumPy columns, sorted by path and time.

A snapshot is read from the tables, or from plain arrays in the index's `cache` folder where nothing was committed since
they were written. The arrays are memory-mapped, which makes a cold search fast: importing the database alone takes
longer than the search.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from impart.blending.base import Blend
from impart.files import arrays_fit, move_synced
from impart.video.index.manifest import IndexManifest
from impart.video.index.store import SEGMENTS, Store, TableGoneError, VideoRecord

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Snapshot", "has_cache", "load_snapshot", "save_cache"]

_ARRAYS = ("offsets", "scenes", "start_s", "end_s", "weight", "vectors")
_BLEND = ("ids", "img", "txt", "norm")


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """V videos of n segments in S scenes, as of one commit.

    Attributes:
        state: `Store.state` at that commit.
        video_ids: V, in the order of `paths`.
        paths: V, sorted.
        offsets: (V + 1,) the segments of video i are [offsets[i], offsets[i + 1]).
        scenes: (S,) first segment of each scene, over all videos.
        start_s, end_s: (n,) seconds.
        weight: (n,) sampled frames per segment.
        vectors: (n, D) base embeddings, float16 or float32.
        blend: of all n segments, or None without a reference set.
        video_means: (V, D) unit means of the vectors v', where the cache contains them.
    """

    state: str
    manifest: IndexManifest
    video_ids: tuple[str, ...]
    paths: tuple[Path, ...]
    offsets: npt.NDArray[np.int64]
    scenes: npt.NDArray[np.int64]
    start_s: npt.NDArray[np.float64]
    end_s: npt.NDArray[np.float64]
    weight: npt.NDArray[np.int32]
    vectors: npt.NDArray[Any]
    blend: Blend | None
    video_means: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.start_s)

    @cached_property
    def video_of(self) -> npt.NDArray[np.int64]:
        """Number (n,) of the video of each segment."""
        return np.repeat(np.arange(len(self.paths)), np.diff(self.offsets))


def load_snapshot(store: Store) -> Snapshot:
    """Read the index as it is now, also while a writer changes it.

    Raises:
        VideoIndexError: the index is damaged.
    """

    def read() -> Snapshot:
        state = store.state()
        manifest = IndexManifest.load(store.folder)
        cached = _from_cache(store, state, manifest)
        return _from_tables(store, state, manifest) if cached is None else cached

    return store.retry(read)


def save_cache(store: Store, snapshot: Snapshot, *, video_means: npt.NDArray[np.float32]) -> None:
    """Write the arrays of the next cold search; the caller holds the write lock.

    The cache is optional: a disk that is too full for it is no error.
    """
    cache = store.folder / "cache"
    target, part = cache / snapshot.state, cache / f"{snapshot.state}.part"
    try:
        for old in cache.iterdir() if cache.is_dir() else ():
            shutil.rmtree(old, ignore_errors=True)
        part.mkdir(parents=True)
        for name in _ARRAYS:
            np.save(part / f"{name}.npy", getattr(snapshot, name))
        np.save(part / "video_means.npy", video_means)
        if snapshot.blend is not None:
            for name in _blend_names(snapshot.manifest):
                np.save(part / f"{name}.npy", getattr(snapshot.blend, name))
        meta = {"video_ids": snapshot.video_ids, "paths": [str(path) for path in snapshot.paths]}
        (part / "videos.json").write_text(json.dumps(meta), encoding="ascii")
        move_synced(part, target)
    except OSError:
        shutil.rmtree(part, ignore_errors=True)


def has_cache(store: Store) -> bool:
    """Whether the cache is complete and belongs to the newest commit."""
    return _from_cache(store, store.state(), IndexManifest.load(store.folder)) is not None


def _blend_names(manifest: IndexManifest) -> tuple[str, ...]:
    """List the columns of a blend that an index stores."""
    dense = manifest.augmentation is not None and manifest.augmentation.dense
    return (*_BLEND, "added") if dense else _BLEND


def _from_cache(store: Store, state: str, manifest: IndexManifest) -> Snapshot | None:
    """Map the arrays of the cache; None where there are none of this state, or they are damaged."""
    folder = store.folder / "cache" / state
    try:
        meta = json.loads((folder / "videos.json").read_text(encoding="ascii"))
        names = (*_ARRAYS, "video_means", *(_blend_names(manifest) if manifest.augmentation is not None else ()))
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in names}
        if not arrays_fit(arrays, _layout(names, manifest.dim)):
            return None
        means = arrays.pop("video_means")
        blend = None
        if manifest.augmentation is not None:
            blend = Blend(**{name: arrays.pop(name) for name in _blend_names(manifest)})
        paths = tuple(Path(path) for path in meta["paths"])
        ids = tuple(meta["video_ids"])
        total = int(arrays["offsets"][-1])
    except (OSError, EOFError, ValueError, LookupError, TypeError):
        return None
    if len(arrays["vectors"]) != total or not len(means) == len(paths) == len(ids):
        return None
    return Snapshot(
        state=state, manifest=manifest, video_ids=ids, paths=paths, blend=blend, video_means=means, **arrays
    )


def _layout(names: Sequence[str], dim: int) -> dict[str, tuple[str, tuple[int | str, ...]]]:
    """Kinds and shapes of the arrays of the cache: n segments, D numbers, K neighbours."""
    layout: dict[str, tuple[str, tuple[int | str, ...]]] = {
        "offsets": ("i", ("offsets",)),
        "scenes": ("i", ("scenes",)),
        "start_s": ("f", ("n",)),
        "end_s": ("f", ("n",)),
        "weight": ("i", ("n",)),
        "vectors": ("f", ("n", dim)),
        "video_means": ("f", ("videos", dim)),
        "ids": ("i", ("n", "k")),
        "img": ("f", ("n", "k")),
        "txt": ("f", ("n", "k")),
        "norm": ("f", ("n",)),
        "added": ("f", ("n", dim)),
    }
    return {name: layout[name] for name in names}


def _from_tables(store: Store, state: str, manifest: IndexManifest) -> Snapshot:
    """Read the tables.

    Raises:
        TableGoneError: a writer changed them meanwhile.
    """
    records = store.videos()
    counts = np.array([record.segments for record in records], np.int64)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    scenes = [np.array(record.scene_starts, np.int64) + first for record, first in zip(records, offsets, strict=False)]
    total = int(offsets[-1])

    rows = store.read(SEGMENTS, columns=["video_id", "revision", "number", "start_s", "end_s", "weight", "vector"])
    place = _places(rows, records, offsets)
    number = np.float16 if manifest.index.precision == "float16" else np.float32
    blend = None
    if manifest.augmentation is not None:
        columns = ["video_id", "revision", "number", *_blend_names(manifest)]
        neighbours = store.read(manifest.augmentation.table, columns=columns)
        k, where = manifest.augmentation.settings.k, _places(neighbours, records, offsets)
        blend = Blend(
            ids=_spread(neighbours["ids"], where, np.empty((total, k), np.int32)),
            img=_spread(neighbours["img"], where, np.empty((total, k), np.float32)),
            txt=_spread(neighbours["txt"], where, np.empty((total, k), np.float32)),
            norm=_spread(neighbours["norm"], where, np.empty(total, np.float32)),
            added=_spread(neighbours["added"], where, np.empty((total, manifest.dim), number))
            if manifest.augmentation.dense
            else None,
        )
    return Snapshot(
        state=state,
        manifest=manifest,
        video_ids=tuple(record.video_id for record in records),
        paths=tuple(record.path for record in records),
        offsets=offsets,
        scenes=np.concatenate([np.zeros(0, np.int64), *scenes]),
        start_s=_spread(rows["start_s"], place, np.empty(total, np.float64)),
        end_s=_spread(rows["end_s"], place, np.empty(total, np.float64)),
        weight=_spread(rows["weight"], place, np.empty(total, np.int32)),
        vectors=_spread(rows["vector"], place, np.empty((total, manifest.dim), number)),
        blend=blend,
    )


def _places(rows: pa.Table, records: list[VideoRecord], offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Find the position (rows,) of each row of a table among the n segments; -1 = an orphan row, which is ignored.

    A row is an orphan where `videos` does not contain its (video_id, revision).

    Raises:
        TableGoneError: rows are missing, because a writer replaced their video after `videos` was read.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    revisions = sorted({record.revision for record in records})
    code = {revision: i for i, revision in enumerate(revisions)}
    wanted = np.array([code[record.revision] for record in records] + [-2], np.int64)  # the last one for unknown videos
    video = _codes(pc.index_in(rows["video_id"], pa.array([record.video_id for record in records], pa.string())))
    revision = _codes(pc.index_in(rows["revision"], pa.array(revisions, pa.string())))
    committed = (video >= 0) & (wanted[video] == revision)
    number = rows["number"].to_numpy()
    place = np.where(committed, offsets[np.maximum(video, 0)] + number, -1)
    present = np.bincount(video[committed], minlength=len(records))
    if not np.array_equal(present, np.diff(offsets)):
        raise TableGoneError("some videos have fewer rows than segments")
    return place


def _codes(indices: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    codes: npt.NDArray[np.int64] = indices.fill_null(-1).to_numpy().astype(np.int64)
    return codes


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
