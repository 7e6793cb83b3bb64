"""Files of shards: named arrays in one file, which is written once and memory-mapped.

A shard has a file of what is read from the videos, and one of what depends on the reference set. So another set changes
the second file alone. One file in place of one per array: opening and syncing files is what a small commit costs.

    8 bytes "IMPARTS1" | 8 bytes length of the header | header, JSON: {"name": [type, shape, offset], ...} | arrays
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from impart.blending.base import Blend
from impart.files import arrays_fit, atomic_path
from impart.video.index.manifest import IndexManifest
from impart.video.search.snapshot import Snapshot
from impart.video.search.spans.moments import Parts, Units
from impart.video.search.state.shard import Means, VideoShard
from impart.video.search.state.tables import blend_names

if TYPE_CHECKING:
    from impart.blending.encoder import AugmentedEncoder

__all__ = [
    "base_file",
    "has_set_file",
    "map_arrays",
    "open_shard",
    "set_file",
    "write_arrays",
    "write_base",
    "write_set",
]

_MAGIC = b"IMPARTS1"
_ALIGNED = 64  # bytes
_ROWS = 4096  # written at once
_KEPT = "kept_"

_BASE: dict[str, tuple[str, tuple[int | str, ...]]] = {
    "offsets": ("i", ("videos+1",)),
    "scenes": ("i", ("scenes",)),
    "start_s": ("f", ("n",)),
    "end_s": ("f", ("n",)),
    "weight": ("i", ("n",)),
    "scene_start_s": ("f", ("scenes",)),
    "scene_end_s": ("f", ("scenes",)),
    "durations_s": ("f", ("videos",)),
    "recorded_at": ("f", ("videos",)),
    "modified_at": ("f", ("videos",)),
    "part_bounds": ("i", ("parts+1",)),
    "part_offsets": ("i", ("videos+1",)),
    "part_scenes": ("i", ("parts",)),
}
_TEXT = ("video_ids", "paths", "revisions", "kinds", "keys")
_SNAPSHOT = tuple(name for name in _BASE if not name.startswith("part_"))


def base_file(cache: Path, name: str) -> Path:
    """Return the file of a shard with what is read from its videos."""
    return cache / f"{name}.base"


def set_file(cache: Path, name: str, manifest: IndexManifest) -> Path:
    """Return the file of a shard with what depends on the reference set in force."""
    augmentation = manifest.augmentation
    return cache / f"{name}.{'plain' if augmentation is None else augmentation.fingerprint[:16]}"


def codes_file(cache: Path, name: str, manifest: IndexManifest) -> Path:
    """Return the file of a shard with the coarse codes for the reference set in force."""
    own = set_file(cache, name, manifest)
    return own.with_name(f"{own.name}.codes")


def write_codes(file: Path, shard: VideoShard) -> None:
    """Write the file of the coarse codes that a shard keeps.

    Raises:
        OSError: it cannot be written.
    """
    write_arrays(file, {f"{_KEPT}{name}": of for name, of in shard.kept().items() if _is_code(name)})


def _is_code(name: str) -> bool:
    return "_codes_" in name


def write_base(file: Path, shard: VideoShard) -> None:
    """Write the file of what is read from the videos of a shard.

    Raises:
        OSError: it cannot be written.
        TableGoneError: a video was replaced meanwhile.
    """
    snapshot, parts = shard.snapshot, shard.parts
    text = {
        "video_ids": snapshot.video_ids,
        "paths": [str(path) for path in snapshot.paths],
        "revisions": snapshot.revisions,
        "kinds": snapshot.kinds,
        "keys": shard.keys,
    }
    arrays = {name: getattr(snapshot, name) for name in _SNAPSHOT}
    arrays |= {"part_bounds": parts.bounds, "part_offsets": parts.offsets, "part_scenes": parts.scene_of}
    arrays |= {"vectors": snapshot.vectors, "retrieval": snapshot.retrieval}
    arrays["videos"] = np.frombuffer(json.dumps(text).encode("ascii"), np.uint8)
    write_arrays(file, arrays)


def write_set(file: Path, shard: VideoShard, encoder: AugmentedEncoder | None) -> None:
    """Write the file of what depends on the reference set in force: blends, unit means, and what the shard keeps.

    Args:
        encoder: the augmentation in force.

    Raises:
        OSError: it cannot be written.
    """
    means, blend = shard.means(encoder), shard.snapshot.blend
    arrays: dict[str, npt.NDArray[Any]] = {}
    if blend is not None:
        arrays = {name: getattr(blend, name) for name in blend_names(shard.snapshot.manifest)}
    arrays |= {"video_means": means.videos, "part_means": means.parts, "unit_means": means.units.means}
    arrays |= {"unit_offsets": means.units.offsets, "unit_of_part": means.units.of_part}
    write_arrays(file, arrays | {f"{_KEPT}{name}": of for name, of in shard.kept().items() if not _is_code(name)})


def has_set_file(cache: Path, name: str, manifest: IndexManifest, kept: Iterable[str]) -> bool:
    """Whether a shard has a whole file for the reference set in force, with the kept arrays of these names."""
    arrays = map_arrays(set_file(cache, name, manifest))
    return arrays is not None and all(f"{_KEPT}{one}" in arrays for one in kept)


def open_shard(cache: Path, name: str, manifest: IndexManifest, *, with_set: bool = True) -> VideoShard | None:
    """Map the files of a shard; None where one is missing or damaged, or belongs to another index.

    Args:
        with_set: whether the file of the reference set in force is mapped too; without it, there are no blends.
    """
    base = map_arrays(base_file(cache, name))
    own = map_arrays(set_file(cache, name, manifest)) if with_set else {}
    codes = map_arrays(codes_file(cache, name, manifest)) if with_set else None
    if base is None or own is None:
        return None
    try:
        text = json.loads(bytes(base["videos"]).decode("ascii"))
        blends = blend_names(manifest) if with_set and manifest.augmentation is not None else ()
        if not _fits(base, text, manifest) or (with_set and not _fit(own, base, blends, manifest)):
            return None
        plain: dict[str, Any] = {one: base[one] for one in _SNAPSHOT}
        snapshot = Snapshot(
            state=name,
            manifest=manifest,
            video_ids=tuple(text["video_ids"]),
            paths=tuple(Path(path) for path in text["paths"]),
            revisions=tuple(text["revisions"]),
            kinds=tuple(text["kinds"]),
            vectors=base["vectors"],
            blend=Blend(**{one: own[one] for one in blends}) if blends else None,
            read_retrieval=lambda: base["retrieval"],
            **plain,
        )
        keys = tuple(text["keys"])
        if codes is None or not _kept_fit(codes, base, own):
            codes = {}
    except (LookupError, TypeError, ValueError):
        return None
    return VideoShard(
        snapshot,
        keys,
        name=name,
        parts=Parts(
            bounds=base["part_bounds"],
            offsets=base["part_offsets"],
            scene_of=base["part_scenes"],
            scenes=np.append(snapshot.scenes, len(snapshot)),
            start_s=snapshot.start_s,
            end_s=snapshot.end_s,
        ),
        means=_means(own) if with_set else None,
        kept={one.removeprefix(_KEPT): of for one, of in (own | codes).items() if one.startswith(_KEPT)},
    )


def _means(own: Mapping[str, Any]) -> Means:
    units = Units(offsets=own["unit_offsets"], of_part=own["unit_of_part"], means=own["unit_means"])
    return Means(videos=own["video_means"], parts=own["part_means"], units=units)


def _fits(base: Mapping[str, Any], text: Any, manifest: IndexManifest) -> bool:
    """Whether what is read from the videos has the shapes that belong to each other and to the index."""
    total, parts, videos = int(base["offsets"][-1]), int(base["part_offsets"][-1]), len(base["offsets"]) - 1
    sizes = {"n": total, "videos": videos, "videos+1": videos + 1, "parts": parts, "parts+1": parts + 1}
    layout = {
        name: (kind, tuple(sizes.get(str(size), size) for size in shape)) for name, (kind, shape) in _BASE.items()
    }
    layout |= {"vectors": ("f", (total, manifest.dim)), "retrieval": ("f", (total, manifest.retrieval_dim))}
    lists = all(len(text[name]) == videos for name in _TEXT)
    if not (lists and base["vectors"].dtype == np.dtype(manifest.index.precision) and arrays_fit(base, layout)):
        return False
    bounds = {"offsets": total, "part_offsets": parts, "part_bounds": total}
    scenes = len(base["scenes"])
    return (
        all(_ascends(base[name], last) for name, last in bounds.items())
        and _ascends(np.append(base["scenes"], total), total)
        and _within(base["part_scenes"], scenes)
    )


def _ascends(bounds: npt.NDArray[Any], last: int) -> bool:
    """Whether bounds go from 0 to `last` and never back: a changed bit of one would end a search in an error."""
    return bool(bounds[0] == 0 and bounds[-1] == last and (bounds[1:] >= bounds[:-1]).all())


def _within(numbers: npt.NDArray[Any], count: int) -> bool:
    """Whether all numbers are those of one of `count` things."""
    return not len(numbers) or bool(numbers.min() >= 0 and numbers.max() < count)


def _fit(own: Mapping[str, Any], base: Mapping[str, Any], blends: Sequence[str], manifest: IndexManifest) -> bool:
    """Whether what depends on the reference set has the shapes that belong to the videos."""
    total, parts, videos = len(base["start_s"]), len(base["part_scenes"]), len(base["durations_s"])
    units, dim = int(own["unit_offsets"][-1]), manifest.dim
    k = 0 if manifest.augmentation is None else manifest.augmentation.settings.k
    of_blend: dict[str, tuple[str, tuple[int | str, ...]]] = {
        "ids": ("i", (total, k)),
        "img": ("f", (total, k)),
        "txt": ("f", (total, k)),
        "norm": ("f", (total,)),
        "added": ("f", (total, dim)),
    }
    layout = {name: of_blend[name] for name in blends}
    layout |= {
        "video_means": ("f", (videos, dim)),
        "part_means": ("f", (parts, dim)),
        "unit_means": ("f", (units, dim)),
    }
    layout |= {"unit_of_part": ("i", (parts,)), "unit_offsets": ("i", (videos + 1,))}
    if not arrays_fit(own, layout):
        return False
    whole = _ascends(own["unit_offsets"], units) and _within(own["unit_of_part"], units)
    return whole and _kept_fit(own, base, own)


def _kept_fit(arrays: Mapping[str, Any], base: Mapping[str, Any], own: Mapping[str, Any]) -> bool:
    """Whether kept arrays have a row per unit or per segment of the shard."""
    rows = {f"{_KEPT}unit_": int(own["unit_offsets"][-1]), f"{_KEPT}frame_": len(base["start_s"])}
    return all(of.shape[:1] == (rows.get(_kind(name)),) for name, of in arrays.items() if name.startswith(_KEPT))


def _kind(name: str) -> str:
    return name[: name.find("_", len(_KEPT)) + 1]


def write_arrays(file: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write named arrays atomically, a few thousand rows at a time; they may be `Pieces`.

    Raises:
        OSError: the file cannot be written.
    """
    header: dict[str, tuple[str, tuple[int, ...], int]] = {}
    at = 0
    for name, array in arrays.items():
        header[name] = (array.dtype.str, array.shape, at)
        at += _aligned(_size(array.dtype, array.shape))
    text = json.dumps(header).encode("ascii")
    first = _aligned(len(_MAGIC) + 8 + len(text))
    with atomic_path(file) as part, part.open("wb") as opened:
        opened.write(_MAGIC + len(text).to_bytes(8, "little") + text)
        for name, array in arrays.items():
            opened.seek(first + header[name][2])
            for rows in _batches(array):
                opened.write(np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data)
        opened.truncate(first + at)


def map_arrays(file: Path) -> dict[str, npt.NDArray[Any]] | None:
    """Map the arrays of a file; None where it is missing, cut or none of these files."""
    try:
        with file.open("rb") as opened:
            start = opened.read(len(_MAGIC) + 8)
            length = int.from_bytes(start[len(_MAGIC) :], "little")
            if start[: len(_MAGIC)] != _MAGIC or length > file.stat().st_size:
                return None
            header = json.loads(opened.read(length))
        # Slices of plain arrays are much faster than those of `numpy.memmap`.
        whole = np.memmap(file, np.uint8, mode="r").view(np.ndarray)
        first, found = _aligned(len(start) + length), {}
        end = first
        for name, (kind, shape, offset) in header.items():
            size = _size(np.dtype(kind), shape)
            end = max(end, first + offset + _aligned(size))
            found[name] = whole[first + offset : first + offset + size].view(kind).reshape(shape)
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    return found if end == len(whole) else None


def _size(kind: np.dtype[Any], shape: Sequence[int]) -> int:
    size = kind.itemsize
    for one in shape:
        size *= one
    return size


def _aligned(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED


def _batches(array: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    step = _ROWS if array.ndim > 1 else _ROWS * 64
    return (array[first : first + step] for first in range(0, len(array), step))
