"""Cache of a snapshot: plain arrays in the index's `cache` folder, valid until the next commit.

The arrays are memory-mapped, which makes a cold search fast: importing the database alone takes longer than the search.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from impart.blending.base import Blend
from impart.files import arrays_fit, atomic_path, move_synced
from impart.video.index.manifest import IndexManifest
from impart.video.index.store import Store, TableGoneError
from impart.video.search.snapshot import Snapshot
from impart.video.search.state.tables import blend_names

__all__ = ["from_cache", "has_cache", "kept_array", "save_cache"]

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
            for name in blend_names(snapshot.manifest):
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
    except Exception:  # noqa: BLE001 - as in `from_cache`
        pass
    made = make()
    if snapshot.state and folder.is_dir():
        with suppress(OSError), atomic_path(file) as part, part.open("wb") as open_file:
            np.save(open_file, made)
    return made


def has_cache(store: Store) -> bool:
    """Whether the cache is complete and belongs to the newest commit."""
    return from_cache(store, store.state(), IndexManifest.load(store.folder)) is not None


def from_cache(store: Store, state: str, manifest: IndexManifest) -> Snapshot | None:
    """Map the arrays of the cache; None where there are none of this state, or they are damaged."""
    folder = store.folder / "cache" / state
    try:
        meta = json.loads((folder / "videos.json").read_text(encoding="ascii"))
        names = (*_ARRAYS, "video_means", *(blend_names(manifest) if manifest.augmentation is not None else ()))
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in names}
        if not arrays_fit(arrays, _layout(names, manifest.dim)):
            return None
        arrays = {name: array.view(np.ndarray) for name, array in arrays.items()}  # slices of these are much faster
        means = arrays.pop("video_means")
        blend = None
        if manifest.augmentation is not None:
            blend = Blend(**{name: arrays.pop(name) for name in blend_names(manifest)})
        paths = tuple(Path(path) for path in meta["paths"])
        ids, revisions, kinds = (tuple(meta[name]) for name in ("video_ids", "revisions", "kinds"))
        retrieval = np.load(folder / _RETRIEVAL, mmap_mode="r").view(np.ndarray)
        total = int(arrays["offsets"][-1])
    except Exception:  # noqa: BLE001 - NumPy raises errors of Python's tokenizer for a damaged header
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
