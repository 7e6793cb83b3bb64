"""Snapshot: a video index in memory, as of one commit. NumPy columns, sorted by path and time.

A snapshot is read from the tables, or from plain arrays in the index's `cache` folder where nothing was committed since
they were written. The arrays are memory-mapped, which makes a cold search fast: importing the database alone takes
longer than the search.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from impart.blending.base import Blend
from impart.errors import QueryError
from impart.files import arrays_fit, atomic_path, blake2b_hex, move_synced
from impart.video.index.files.scan import absolute
from impart.video.index.manifest import IndexManifest
from impart.video.index.store import SEGMENTS, UNREAD, Kind, Store, TableGoneError, VideoRecord
from impart.video.integrity import KEYS, Placed, damaged_file, place_rows
from impart.video.scenes.stored import stored_bounds
from impart.video.search.hits import timecode

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Snapshot", "has_cache", "kept_array", "load_snapshot", "locate_segment", "save_cache"]

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
    "modified_at",
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
        modified_at: (V,) time of the last change of the file, Unix time; NaN = unknown.
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
    modified_at: npt.NDArray[np.float64]
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

    def part(self, videos: npt.NDArray[np.int64]) -> Snapshot:
        """Copy some of the videos.

        Args:
            videos: numbers of the videos, in ascending order.
        """
        segments = _ranges(self.offsets[videos], self.offsets[videos + 1])  # (m,)
        scene_bounds = np.searchsorted(self.scenes, self.offsets)  # (V + 1,) first scene of each video
        scenes = _ranges(scene_bounds[videos], scene_bounds[videos + 1])
        lengths = np.diff(self.offsets)[videos]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        shift = np.repeat(self.offsets[videos] - offsets[:-1], np.diff(scene_bounds)[videos])  # of each scene
        chosen = videos.tolist()
        return dataclasses.replace(
            self,
            state=f"{self.state}/{blake2b_hex(videos.tobytes(), size_bytes=8)}",
            video_ids=tuple(self.video_ids[video] for video in chosen),
            paths=tuple(self.paths[video] for video in chosen),
            revisions=tuple(self.revisions[video] for video in chosen) if self.revisions else (),
            kinds=tuple(self.kinds[video] for video in chosen),
            offsets=offsets,
            scenes=self.scenes[scenes] - shift,
            scene_start_s=self.scene_start_s[scenes],
            scene_end_s=self.scene_end_s[scenes],
            start_s=self.start_s[segments],
            end_s=self.end_s[segments],
            weight=self.weight[segments],
            vectors=self.vectors[segments],
            blend=None if self.blend is None else self.blend[segments],
            durations_s=self.durations_s[videos],
            recorded_at=self.recorded_at[videos],
            modified_at=self.modified_at[videos],
            video_means=None if self.video_means is None else self.video_means[videos],
            read_retrieval=lambda: self.retrieval[segments],
        )

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


def _ranges(starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Join the numbers of ranges [start, stop)."""
    lengths = stops - starts
    firsts = np.cumsum(lengths) - lengths  # place of each range in the result
    joined: npt.NDArray[np.int64] = np.arange(int(lengths.sum())) + np.repeat(starts - firsts, lengths)
    return joined


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


def locate_segment(snapshot: Snapshot, path: str | os.PathLike[str], at_s: float, *, folder: Path) -> int:
    """Find the segment of a video at a time. A bare file name is enough where only one video has it.

    Args:
        folder: of the index, for messages.

    Raises:
        QueryError: the video is not in the index, or is shorter.
    """
    given = absolute(path)
    known = {video: i for i, video in enumerate(snapshot.paths)}
    number = known.get(given, known.get(Path(path)))
    if number is None and Path(path).name == str(path):
        namesakes = [i for i, known_path in enumerate(snapshot.paths) if known_path.name == str(path)]
        if len(namesakes) > 1:
            raise QueryError(f"{len(namesakes)} indexed videos are called {path}: give the path of one of them")
        number = namesakes[0] if namesakes else None
    if number is None:
        raise QueryError(f"{given} is not in the index {folder}: index it first, or check its path")
    first, stop = int(snapshot.offsets[number]), int(snapshot.offsets[number + 1])
    end_s = float(snapshot.end_s[stop - 1])
    if not 0 <= at_s <= end_s:
        raise QueryError(f"{at_s:g} s is outside {snapshot.paths[number]}: it ends at {timecode(end_s)}")
    return first + max(0, int(np.searchsorted(snapshot.start_s[first:stop], at_s, side="right")) - 1)


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


def kept_array(
    index: Path, snapshot: Snapshot, name: str, shape: tuple[int, ...], make: Callable[[], npt.NDArray[np.float32]]
) -> npt.NDArray[np.float32]:
    """Read an array from the cache of the index, or make it and keep it there. The next commit deletes it.

    Args:
        index: folder of the index.
        name: of the file, without suffix; unique for what the array depends on besides the snapshot.
    """
    folder = index / "cache" / snapshot.state
    file = folder / f"{name}.npy"
    try:
        known: npt.NDArray[np.float32] = np.load(file)
        if known.shape == shape and known.dtype == np.float32:
            return known
    except (OSError, ValueError, EOFError):
        pass
    made = make()
    if snapshot.state and folder.is_dir():
        with suppress(OSError), atomic_path(file) as part, part.open("wb") as open_file:
            np.save(open_file, made)
    return made


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
        arrays = {name: array.view(np.ndarray) for name, array in arrays.items()}  # slices of these are much faster
        means = arrays.pop("video_means")
        blend = None
        if manifest.augmentation is not None:
            blend = Blend(**{name: arrays.pop(name) for name in _blend_names(manifest)})
        paths = tuple(Path(path) for path in meta["paths"])
        ids, revisions, kinds = (tuple(meta[name]) for name in ("video_ids", "revisions", "kinds"))
        retrieval = np.load(folder / _RETRIEVAL, mmap_mode="r").view(np.ndarray)
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
        "modified_at": ("f", ("videos",)),
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
        modified_at=np.array([_modified_at(record) for record in records], np.float64),
        kinds=tuple(record.kind for record in records),
        read_retrieval=partial(_read_retrieval, store, manifest, records),
        weight=_spread(rows["weight"], place, np.empty(total, np.int32)),
        vectors=_spread(rows["vector"], place, np.empty((total, manifest.dim), number)),
        blend=blend,
        left_out=_lacking(everything, found),
        unblended=unblended,
    )


def _modified_at(record: VideoRecord) -> float:
    return float("nan") if record.mtime_ns == UNREAD else record.mtime_ns / 1e9


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
