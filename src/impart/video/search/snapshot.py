"""Snapshot: a video index in memory, as of one commit. NumPy columns, sorted by path and time.

A snapshot is read from the tables, or from plain arrays in the index's `cache` folder where nothing was committed since
they were written. The arrays are memory-mapped, which makes a cold search fast: importing the database alone takes
longer than the search.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from impart.blending.base import Blend
from impart.files import arrays_fit, move_synced
from impart.video.index.manifest import IndexManifest
from impart.video.index.store import SEGMENTS, Kind, Store, TableGoneError, VideoRecord
from impart.video.integrity import KEYS, Placed, damaged_file, place_rows
from impart.video.scenes.stored import stored_bounds

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Snapshot", "has_cache", "load_snapshot", "save_cache"]

_ARRAYS = (
    "offsets",
    "scenes",
    "start_s",
    "end_s",
    "weight",
    "vectors",
    "scene_start_s",
    "scene_end_s",
    "durations_s",
    "recorded_at",
)
_RETRIEVAL = "retrieval.npy"
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
        scene_start_s, scene_end_s: (S,) bounds of the scenes, seconds.
        durations_s: (V,) seconds; recorded_at: (V,) Unix time, NaN = unknown; kinds: V, `video` or `photo`.
        read_retrieval: reads `retrieval`.
        blend: of all n segments, or None without a reference set.
        left_out: paths of the videos that lack rows; they are not among the V.
        unblended: paths of the videos that lack rows of their blends; they have their base vectors alone.
        video_means: (V, D) unit means of the vectors v', where the cache contains them.
        revisions: V; those of videos with the same content are equal. Empty: no two have the same.
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
    scene_start_s: npt.NDArray[np.float64]
    scene_end_s: npt.NDArray[np.float64]
    durations_s: npt.NDArray[np.float64]
    recorded_at: npt.NDArray[np.float64]
    kinds: tuple[Kind, ...]
    read_retrieval: Callable[[], npt.NDArray[Any]]
    left_out: tuple[Path, ...] = ()
    unblended: tuple[Path, ...] = ()
    video_means: npt.NDArray[np.float32] | None = None
    revisions: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.start_s)

    @cached_property
    def copies(self) -> dict[int, tuple[int, ...]]:
        """Numbers of all videos with the content of a video, in order; only of videos that have copies."""
        numbers: dict[str, list[int]] = {}
        for video, revision in enumerate(self.revisions):
            numbers.setdefault(revision, []).append(video)
        return {video: tuple(same) for same in numbers.values() if len(same) > 1 for video in same}

    @cached_property
    def number_of(self) -> dict[str, int]:
        """Number of the video with an id."""
        return {video_id: number for number, video_id in enumerate(self.video_ids)}

    @cached_property
    def retrieval(self) -> npt.NDArray[Any]:
        """Retrieval embeddings (n, R) in the precision of the index; read when they are first used.

        Raises:
            TableGoneError: a video was replaced meanwhile; take a new snapshot.
        """
        return self.read_retrieval()

    @cached_property
    def scene_of(self) -> npt.NDArray[np.int64]:
        """Number (n,) of the scene of each segment."""
        return np.repeat(np.arange(len(self.scenes)), np.diff(np.append(self.scenes, len(self))))

    @cached_property
    def video_of(self) -> npt.NDArray[np.int64]:
        """Number (n,) of the video of each segment."""
        return np.repeat(np.arange(len(self.paths)), np.diff(self.offsets))

    def warnings(self) -> Iterator[str]:
        """Name what a search lacks, with the remedy."""
        if self.left_out:
            yield (
                f"{_in_words(self.left_out)} left out of the search, since rows are missing (was the index copied "
                "while it was written, or a file of it lost?): impart index PATH... indexes them again"
            )
        if self.unblended:
            yield (
                f"{_in_words(self.unblended)} searched without the reference set, since rows of the neighbours table "
                "are missing: impart index PATH... computes them again, without decoding"
            )


def load_snapshot(store: Store) -> Snapshot:
    """Read the index as it is now, also while a writer changes it.

    Videos that lack rows are left out, and named in `Snapshot.left_out`.

    Raises:
        VideoIndexError: the index is damaged.
    """

    def read() -> Snapshot:
        state = store.state()
        manifest = IndexManifest.load(store.folder)
        cached = _from_cache(store, state, manifest)
        if cached is not None:
            return cached
        made = _from_tables(store, state, manifest)
        if (made.left_out or made.unblended) and store.state() != state:
            raise TableGoneError("a video was replaced meanwhile")
        return made

    return store.retry(read)


def save_cache(store: Store, snapshot: Snapshot, *, video_means: npt.NDArray[np.float32]) -> None:
    """Write the arrays of the next cold search; the caller holds the write lock.

    The cache is optional: a disk that is too full for it is no error. There is none of an index that lacks rows.
    """
    if snapshot.left_out or snapshot.unblended:
        return
    cache = store.folder / "cache"
    target, part = cache / snapshot.state, cache / f"{snapshot.state}.part"
    try:
        for old in cache.iterdir() if cache.is_dir() else ():
            shutil.rmtree(old, ignore_errors=True)
        part.mkdir(parents=True)
        for name in _ARRAYS:
            np.save(part / f"{name}.npy", getattr(snapshot, name))
        np.save(part / "video_means.npy", video_means)
        np.save(part / _RETRIEVAL, snapshot.retrieval)
        if snapshot.blend is not None:
            for name in _blend_names(snapshot.manifest):
                np.save(part / f"{name}.npy", getattr(snapshot.blend, name))
        meta = {
            "video_ids": snapshot.video_ids,
            "paths": [str(path) for path in snapshot.paths],
            "revisions": snapshot.revisions,
            "kinds": snapshot.kinds,
        }
        (part / "videos.json").write_text(json.dumps(meta), encoding="ascii")
        move_synced(part, target)
    except (OSError, TableGoneError):
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
        ids, revisions, kinds = (tuple(meta[name]) for name in ("video_ids", "revisions", "kinds"))
        retrieval = np.load(folder / _RETRIEVAL, mmap_mode="r")
        total = int(arrays["offsets"][-1])
    except (OSError, EOFError, ValueError, LookupError, TypeError):
        return None
    per_video = (means, ids, revisions, kinds, arrays["durations_s"], arrays["recorded_at"])
    if len(arrays["vectors"]) != total or any(len(values) != len(paths) for values in per_video):
        return None
    if retrieval.shape != (total, manifest.retrieval_dim):
        return None
    return Snapshot(
        state=state,
        manifest=manifest,
        video_ids=ids,
        paths=paths,
        revisions=revisions,
        kinds=kinds,
        blend=blend,
        video_means=means,
        read_retrieval=lambda: retrieval,
        **arrays,
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
        "scene_start_s": ("f", ("scenes",)),
        "scene_end_s": ("f", ("scenes",)),
        "durations_s": ("f", ("videos",)),
        "recorded_at": ("f", ("videos",)),
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
    everything = store.videos()
    rows = store.read(SEGMENTS, columns=[*KEYS, "start_s", "end_s", "weight", "vector"])
    found = place_rows(rows, everything)
    records = [record for record, whole in zip(everything, found.whole, strict=True) if whole]
    place = found.place if found.whole.all() else place_rows(rows, records).place
    offsets = np.concatenate([[0], np.cumsum([record.segments for record in records])]).astype(np.int64)
    scenes = [np.array(record.scene_starts, np.int64) + first for record, first in zip(records, offsets, strict=False)]
    total = int(offsets[-1])
    number = np.float16 if manifest.index.precision == "float16" else np.float32
    blend, unblended = _blend_from_table(store, manifest, records)
    start_s = _spread(rows["start_s"], place, np.empty(total, np.float64))
    end_s = _spread(rows["end_s"], place, np.empty(total, np.float64))
    bounds = [
        stored_bounds(record, start_s[first:stop], end_s[first:stop])
        for record, first, stop in zip(records, offsets, offsets[1:], strict=False)
    ]
    return Snapshot(
        state=state,
        manifest=manifest,
        video_ids=tuple(record.video_id for record in records),
        paths=tuple(record.path for record in records),
        # A video read in part stands for no other one, whose whole content was found.
        revisions=tuple(record.revision if record.problem is None else record.video_id for record in records),
        offsets=offsets,
        scenes=np.concatenate([np.zeros(0, np.int64), *scenes]),
        start_s=start_s,
        end_s=end_s,
        scene_start_s=np.concatenate([np.zeros(0), *(scenes.start_s for scenes in bounds)]),
        scene_end_s=np.concatenate([np.zeros(0), *(scenes.end_s for scenes in bounds)]),
        durations_s=np.array([record.duration_s for record in records], np.float64),
        recorded_at=np.array([record.recorded_at for record in records], np.float64),  # None becomes NaN
        kinds=tuple(record.kind for record in records),
        read_retrieval=partial(_read_retrieval, store, manifest, records),
        weight=_spread(rows["weight"], place, np.empty(total, np.int32)),
        vectors=_spread(rows["vector"], place, np.empty((total, manifest.dim), number)),
        blend=blend,
        left_out=_lacking(everything, found),
        unblended=unblended,
    )


def _read_retrieval(store: Store, manifest: IndexManifest, records: list[VideoRecord]) -> npt.NDArray[Any]:
    """Read the retrieval embeddings (n, R) of the videos of a snapshot.

    Raises:
        TableGoneError: a video was replaced meanwhile.
    """
    rows = store.read(SEGMENTS, columns=[*KEYS, "retrieval"])
    found = place_rows(rows, records)
    if not found.whole.all():
        raise TableGoneError("a video was replaced meanwhile")
    number = np.float16 if manifest.index.precision == "float16" else np.float32
    total = sum(record.segments for record in records)
    return _spread(rows["retrieval"], found.place, np.empty((total, manifest.retrieval_dim), number))


def _blend_from_table(
    store: Store, manifest: IndexManifest, records: list[VideoRecord]
) -> tuple[Blend | None, tuple[Path, ...]]:
    """Read the blends of all segments; those of which rows are missing add nothing.

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
    rows = _neighbours(store, manifest.augmentation.table, [*KEYS, *_blend_names(manifest)])
    if rows is None:
        return blend, tuple(record.path for record in records)
    found = place_rows(rows, records)
    for name in _blend_names(manifest):
        _spread(rows[name], found.place, getattr(blend, name))
    return blend, _lacking(records, found)


def _lacking(records: list[VideoRecord], found: Placed) -> tuple[Path, ...]:
    return tuple(record.path for record, whole in zip(records, found.whole, strict=True) if not whole)


def _neighbours(store: Store, name: str, columns: list[str]) -> pa.Table | None:
    """Read a neighbours table; None where it is lost or damaged, since its rows can be computed again."""
    folder = store.folder / f"{name}.lance"
    try:
        return store.read(name, columns=columns)
    except TableGoneError:
        if folder.is_dir() and damaged_file(folder) is None:
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


def _in_words(paths: Sequence[Path]) -> str:
    """Count videos, and name up to three."""
    names = ", ".join(str(path) for path in paths[:3]) + (", ..." if len(paths) > 3 else "")
    return f"{len(paths)} video{'s' if len(paths) > 1 else ''} ({names}) {'are' if len(paths) > 1 else 'is'}"
