"""Files of an index beside its tables: what is wrong with them, and what their repair needs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from impart.blending.ram_solved import learned_ram
from impart.config import RamSettings
from impart.errors import EncoderError, VideoIndexError
from impart.images import load_image
from impart.refset.check import check_set
from impart.refset.manifest import MANIFEST
from impart.retrieval.coarse import Basis
from impart.video.crops.store import FOLDER as CROPS
from impart.video.crops.store import CropStore, key_of
from impart.video.faces.store import FOLDER as FACES
from impart.video.faces.store import FaceStore
from impart.video.index.doctor.checksums import MISSING, Recorded
from impart.video.index.doctor.report import Damage, Needs
from impart.video.index.files.prune import DEVICES_NAME
from impart.video.index.manifest import IndexManifest
from impart.video.index.store import CLUSTERS, LAST_SEARCH, VideoRecord
from impart.video.search.rank.pairs import pairs_in_force, wrong_ids
from impart.video.search.state.shard_files import map_arrays

__all__ = ["CACHE", "check_others"]

NAMES, CACHE = "names", "cache"


def check_others(
    index: Path,
    manifest: IndexManifest,
    recorded: Mapping[str, Recorded],
    differences: Mapping[str, str],
    videos: Sequence[VideoRecord],
) -> Iterator[Damage]:
    """Check what is neither a table nor a manifest.

    Args:
        index: folder of the index.
        recorded: checksums, by path below the index.
        differences: files that are not as recorded, see `differences_of`.
        videos: of the index, as far as they could be read.
    """
    changed = {name: wrong for name, wrong in differences.items() if ".lance/" not in name and wrong != MISSING}
    yield from _references(index, manifest, changed)
    yield from _ram(index, manifest, changed)
    yield from _names(index, changed)
    yield from _faces(index, changed)
    yield from _crops(index, recorded, changed, videos)
    yield from _cache(index, recorded, changed, pairs=pairs_in_force(index, manifest))
    for name in (DEVICES_NAME, LAST_SEARCH, CLUSTERS):
        gone = name in recorded and not (index / name).exists()
        wrong = changed.get(name) or (MISSING if gone else _wrong_json(index / name))
        if wrong:
            remedy = "the next impart index writes it again" if name == DEVICES_NAME else "it is written again"
            yield Damage(file=index / name, wrong=wrong, needs="nothing", remedy=remedy)


def _below(changed: Mapping[str, str], folder: str) -> dict[str, str]:
    return {name: wrong for name, wrong in changed.items() if name.startswith(f"{folder}/")}


def _damage(index: Path, found: Mapping[str, str], *, needs: Needs, remedy: str) -> Iterator[Damage]:
    for name in sorted(found):
        yield Damage(file=index / name, wrong=found[name], needs=needs, remedy=remedy)


def _references(index: Path, manifest: IndexManifest, changed: Mapping[str, str]) -> Iterator[Damage]:
    """Check the copy of the reference set in force."""
    augmentation = manifest.augmentation
    if augmentation is None:
        return
    folder = index / augmentation.folder
    found = _below(changed, augmentation.folder)
    for fault in check_set(folder):
        found.setdefault(fault.file.relative_to(index).as_posix(), fault.wrong)
    remedy = f"impart refset use SET --index {index} copies it again"
    yield from _damage(index, found, needs="person", remedy=remedy)


def _ram(index: Path, manifest: IndexManifest, changed: Mapping[str, str]) -> Iterator[Damage]:
    """Check the copy of the trained RAM in force."""
    augmentation = manifest.augmentation
    if augmentation is None or not isinstance(augmentation.settings, RamSettings):
        return
    graph = index / augmentation.graph
    found = _below(changed, "rams")
    try:
        ram = learned_ram(
            graph,
            augmentation.settings,
            encoder_id=manifest.encoder_id,
            encoder_fingerprint=manifest.encoder_fingerprint,
        )
        if ram.digest[:16] != graph.stem:
            found.setdefault(augmentation.graph, "has other content than its name states")
    except EncoderError as error:
        found.setdefault(augmentation.graph, MISSING if not graph.exists() else str(error))
    remedy = f"impart refset use CHECKPOINT --index {index} copies it again"
    yield from _damage(index, found, needs="person", remedy=remedy)


def _names(index: Path, changed: Mapping[str, str]) -> Iterator[Damage]:
    """Check the taught names."""
    folder = index / NAMES
    found = _below(changed, NAMES)
    images = {name: found.pop(name) for name in list(found) if name.startswith(f"{NAMES}/images/")}
    if (folder / MANIFEST).is_file() or any(folder.glob("pairs-*.arrow")):
        for fault in check_set(folder):
            found.setdefault(fault.file.relative_to(index).as_posix(), fault.wrong)
    remedy = f"teach them again from the images in {folder / 'images'}: impart names add FOLDER --index {index}"
    yield from _damage(index, found, needs="person", remedy=remedy)
    for file in sorted((folder / "images").glob("*.jpg")):
        wrong = _wrong(file, _open_image)
        if wrong:
            images.setdefault(file.relative_to(index).as_posix(), wrong)
    yield from _damage(index, images, needs="nothing", remedy="only shown to people; the name itself is whole")


def _faces(index: Path, changed: Mapping[str, str]) -> Iterator[Damage]:
    found = _below(changed, FACES)
    store = FaceStore(index)
    for name, read in (("videos", store.videos), ("examples", store.examples)):
        try:
            read()
        except VideoIndexError:
            found.setdefault(f"{FACES}/{name}.npz", "cannot be read")
    remedy = f"impart names faces --index {index} finds them again"
    yield from _damage(index, found, needs="videos", remedy=remedy)


def _crops(
    index: Path, recorded: Mapping[str, Recorded], changed: Mapping[str, str], videos: Sequence[VideoRecord]
) -> Iterator[Damage]:
    store = CropStore(index)
    found = _below(changed, CROPS)
    paths = {f"{CROPS}/{key_of(record)}.npy": record.path for record in videos}
    for name in paths if store.folder.is_dir() else ():
        if not (index / name).exists():
            if name in recorded:
                found.setdefault(name, MISSING)
            continue
        try:
            rows = store.load(Path(name).stem)
            if rows is not None and not np.isfinite(rows).all():
                found.setdefault(name, "has numbers that are not finite")
        except VideoIndexError:
            found.setdefault(name, "cannot be read")
    for damage in _damage(index, found, needs="videos", remedy="impart index PATH... --crops makes them again"):
        name = damage.file.relative_to(index).as_posix()
        concerned = (paths[name],) if name in paths else ()
        yield Damage(file=damage.file, wrong=damage.wrong, needs="videos", remedy=damage.remedy, videos=concerned)


def _cache(
    index: Path, recorded: Mapping[str, Recorded], changed: Mapping[str, str], *, pairs: int
) -> Iterator[Damage]:
    found = _below(changed, CACHE)
    for name in recorded:
        if name.startswith(f"{CACHE}/") and not (index / name).exists() and (index / name).parent.is_dir():
            found.setdefault(name, MISSING)
    for file in sorted((index / CACHE).rglob("*")):
        if file.is_file() and ".part" not in file.name:
            check = {".json": _read_json, ".npy": _map_array, ".basis": Basis.load}.get(file.suffix)
            wrong = _wrong(file, check) if check else ""
            if check is None and file.parent == index / CACHE:
                wrong = _wrong_shard(file, pairs)
            if wrong:
                found.setdefault(file.relative_to(index).as_posix(), wrong)
    yield from _damage(index, found, needs="index", remedy="computed again from the tables")


def _wrong_shard(file: Path, pairs: int) -> str:
    """Describe what is wrong with a file of a shard; "" = nothing.

    Args:
        pairs: of the reference set in force.
    """
    arrays = map_arrays(file)
    if arrays is None:
        return "cannot be read: it is cut short or overwritten"
    return wrong_ids(arrays["ids"], pairs) if "ids" in arrays and "added" not in arrays else ""


def _wrong_json(file: Path) -> str:
    return _wrong(file, _read_json) if file.exists() else ""


def _wrong(file: Path, read: Callable[[Path], object]) -> str:
    """Describe why a file cannot be read; "" = it can."""
    try:
        read(file)
    except Exception as error:  # noqa: BLE001 - readers of damaged files raise many classes
        return f"cannot be read: {error}"
    return ""


def _read_json(file: Path) -> object:
    return json.loads(file.read_bytes())


def _map_array(file: Path) -> object:
    return np.load(file, mmap_mode="r", allow_pickle=False)


def _open_image(file: Path) -> object:
    return load_image(file)
