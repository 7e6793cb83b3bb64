"""Check an index: every file, the rows that are left, and the videos that lack some."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from impart.errors import IndexLockedError, VideoIndexError
from impart.files import sha256_hex
from impart.refset.check import check_set
from impart.video.index.doctor.checksums import (
    CHECKSUMS,
    Recorded,
    differences_of,
    files_of,
    read_checksums,
    record,
)
from impart.video.index.doctor.others import check_others
from impart.video.index.doctor.report import CheckReport, Damage, Needs
from impart.video.index.doctor.rows import read_ids, read_unrecorded
from impart.video.index.doctor.salvage import salvage
from impart.video.index.doctor.tables import TableState, inspect_table
from impart.video.index.durable.lock import write_lock
from impart.video.index.files.prune import read_devices
from impart.video.index.manifest import MANIFESTS, IndexManifest
from impart.video.index.store import FAILURES, SEGMENTS, VIDEOS, Store, VideoRecord, path_id, schemas
from impart.video.integrity import KEYS, place_rows
from impart.video.search.rank.pairs import pairs_in_force
from impart.video.search.state.shard_files import map_arrays

__all__ = ["Examination", "check_index", "check_references", "examine", "held"]


@dataclass(frozen=True, kw_only=True)
class Examination:
    """Result of an examination: the report, with what a repair needs.

    Attributes:
        manifest: None where neither it nor its copy can be read.
        content: of the manifest that is to be restored; None = both are whole.
        tables: states, by name.
        report: what is told.
    """

    manifest: IndexManifest | None
    content: bytes | None
    tables: Mapping[str, TableState]
    report: CheckReport


def check_index(folder: Path) -> CheckReport:
    """Check every file of an index. Nothing is changed, but new files get a checksum where all are whole.

    Raises:
        VideoIndexError: there is no index.
        IndexLockedError: another process is writing to it.
    """
    with held(folder):
        return examine(folder).report


def check_references(folder: Path) -> CheckReport:
    """Check every file of a reference set."""
    began = time.monotonic()
    damage = tuple(
        Damage(
            file=fault.file,
            wrong=fault.wrong,
            needs="index" if fault.derived else "person",
            remedy="impart doctor --repair makes it again" if fault.derived else "build the set again, or restore it",
        )
        for fault in check_set(folder)
    )
    sizes = [file.stat().st_size for file in folder.iterdir() if file.is_file()] if folder.is_dir() else []
    return CheckReport(
        folder=folder, damage=damage, files=len(sizes), size_bytes=sum(sizes), elapsed_s=time.monotonic() - began
    )


@contextmanager
def held(folder: Path) -> Iterator[bool]:
    """Hold the write lock of an index, where it can be taken: one on a disk that cannot be written is checked as well.

    Yields:
        Whether the lock is held.

    Raises:
        IndexLockedError: another process is writing.
        VideoIndexError: there is no index.
    """
    if not IndexManifest.exists(folder):
        IndexManifest.load(folder)  # raises, with the remedy; a lock would make the folder
    with ExitStack() as stack:
        try:
            stack.enter_context(write_lock(folder))
            locked = True
        except IndexLockedError:
            raise
        except VideoIndexError:
            locked = False
        yield locked


def examine(folder: Path) -> Examination:
    """Check every file of an index, and find the videos that lack rows.

    The caller holds the lock (`held`).

    Raises:
        VideoIndexError: there is no index.
    """
    began = time.monotonic()
    damage: list[Damage] = []
    recorded: dict[str, Recorded] = {}
    try:
        recorded = read_checksums(folder)
    except (OSError, ValueError) as error:
        remedy = "all files were read instead; it is written again"
        damage.append(Damage(file=folder / CHECKSUMS, wrong=f"is damaged: {error}", needs="nothing", remedy=remedy))
    differences = differences_of(folder, recorded)
    manifest, content, wrong = _manifest(folder, recorded)
    damage += wrong
    names = list(files_of(folder))
    report = CheckReport(
        folder=folder,
        files=len(names),
        size_bytes=sum((folder / name).stat().st_size for name in names),
        not_recorded=sum(name not in recorded for name in names),
    )
    tables: dict[str, TableState] = {}
    videos: Sequence[VideoRecord] = ()
    found = _Rows()
    if manifest is not None:
        with tempfile.TemporaryDirectory(prefix="impart-doctor-") as place:
            for name in _tables(manifest):
                (Path(place) / "rows").mkdir(exist_ok=True)
                tables[name] = read_unrecorded(inspect_table(folder, name, recorded, differences), Path(place) / "rows")
            if manifest.augmentation is not None and not manifest.augmentation.dense:
                name = manifest.augmentation.table
                tables[name] = read_ids(tables[name], pairs_in_force(folder, manifest))
            found = _rows(folder, manifest, tables, Path(place))
        videos = found.videos
        damage += [one for name in tables for one in _of_table(name, tables[name], found)]
        damage += check_others(folder, manifest, recorded, differences, videos)
    if manifest is not None and not damage:
        record(folder)
    report = CheckReport(
        folder=folder,
        damage=tuple(sorted(damage, key=lambda one: str(one.file))),
        lacking=tuple(video.path for video in found.lacking),
        lost_records=found.lost,
        lost_paths=found.lost_paths,
        versions={name: state.versions for name, state in tables.items()},
        files=report.files,
        size_bytes=report.size_bytes,
        not_recorded=report.not_recorded,
        elapsed_s=time.monotonic() - began,
    )
    return Examination(manifest=manifest, content=content, tables=tables, report=report)


@dataclass(kw_only=True)
class _Rows:
    """Videos with whole rows in `videos`, those that lack segments, and what is known of the others."""

    videos: Sequence[VideoRecord] = ()
    lacking: Sequence[VideoRecord] = ()
    lost: int = 0
    lost_paths: tuple[Path, ...] = ()
    unreadable: tuple[str, ...] = ()


def _tables(manifest: IndexManifest) -> list[str]:
    return [VIDEOS, SEGMENTS, FAILURES, *([manifest.augmentation.table] if manifest.augmentation else [])]


def _manifest(
    folder: Path, recorded: Mapping[str, Recorded]
) -> tuple[IndexManifest | None, bytes | None, list[Damage]]:
    """Find the whole one of the manifest and its copy.

    Returns:
        The manifest; the content that both are to have, None where they have it; what is damaged.
    """
    contents: dict[str, bytes] = {}
    wrong: dict[str, str] = {}
    if not IndexManifest.is_of_this_schema(folder):
        IndexManifest.load(folder)  # raises, with the remedy
    for name in MANIFESTS:
        try:
            contents[name] = (folder / name).read_bytes()
            IndexManifest.parse(contents[name], where=folder / name)
        except FileNotFoundError:
            wrong[name] = "is missing"
        except (OSError, VideoIndexError) as error:
            wrong[name] = f"cannot be read: {error}"
    whole = [name for name in MANIFESTS if name not in wrong]
    if len({contents[name] for name in whole}) > 1:
        known = {line.sha256 for name, line in recorded.items() if name in MANIFESTS}
        same = [name for name in whole if sha256_hex(contents[name]) in known]
        kept = same[0] if len(same) == 1 else MANIFESTS[0]
        wrong |= {name: f"differs from {kept}" for name in whole if name != kept}
        whole = [kept]
    if not whole:
        remedy = "restore one of both from a copy of the index, or index your videos into a new folder (--index DIR)"
        needs: Needs = "person"
    else:
        remedy, needs = f"written again from {whole[0]}", "index"
    damage = [Damage(file=folder / name, wrong=text, needs=needs, remedy=remedy) for name, text in wrong.items()]
    if not whole:
        return None, None, damage
    content = contents[whole[0]]
    manifest = IndexManifest.parse(content, where=folder / whole[0])
    return manifest, content if damage else None, damage


def _rows(folder: Path, manifest: IndexManifest, tables: Mapping[str, TableState], place: Path) -> _Rows:
    """Read the rows that are whole of `videos` and `segments`, in a folder of links to their files."""
    for name in (VIDEOS, SEGMENTS):
        if tables[name].whole:
            (place / f"{name}.lance").symlink_to((folder / f"{name}.lance").absolute(), target_is_directory=True)
        else:
            try:
                salvage(tables[name], place, schemas(manifest)[name], link=False)
            except Exception:  # noqa: BLE001 - as in `rows.py`
                return _Rows(unreadable=(name,))
    store = Store(place)
    try:
        videos = store.videos()
        rows = store.read(SEGMENTS, columns=KEYS)
    except Exception as error:  # noqa: BLE001 - as in `rows.py`
        return _Rows(unreadable=(str(error),))
    whole = place_rows(rows, videos).whole
    lacking = [video for video, complete in zip(videos, whole, strict=True) if not complete]
    if tables[VIDEOS].whole:
        return _Rows(videos=videos, lacking=lacking)
    lost = set(rows["video_id"].to_pylist()) - {video.video_id for video in videos}
    paths = _paths_of(folder, lost)
    return _Rows(videos=videos, lacking=lacking, lost=len(lost), lost_paths=paths)


def _paths_of(folder: Path, lost: set[str]) -> tuple[Path, ...]:
    """Find the paths of videos by their ids: in the cache, and among the files of the folders with indexed videos."""
    found: dict[str, Path] = {}
    for file in (folder / "cache").glob("*.base"):
        try:
            values = json.loads(bytes((map_arrays(file) or {})["videos"]))
            found |= {str(key): Path(path) for key, path in zip(values["video_ids"], values["paths"], strict=True)}
        except (ValueError, LookupError, TypeError):
            continue
    for known in sorted(read_devices(folder)) if lost - set(found) else ():
        try:
            with os.scandir(known) as entries:
                found |= {path_id(Path(entry.path)): Path(entry.path) for entry in entries}
        except OSError:
            continue
    return tuple(sorted(found[video_id] for video_id in lost & set(found)))


def _of_table(name: str, state: TableState, found: _Rows) -> Iterator[Damage]:
    """Say what the faults of a table cost."""
    concerned = tuple(video.path for video in found.lacking) if name == SEGMENTS else ()
    concerned = found.lost_paths if name == VIDEOS else concerned
    for fault in state.faults:
        if not fault.in_force:
            yield Damage(file=fault.file, wrong=fault.wrong, needs="nothing", remedy="no version in force needs it")
        elif name in (VIDEOS, SEGMENTS):
            remedy = "impart doctor --repair keeps what is whole, and indexes these videos again"
            yield Damage(
                file=fault.file, wrong=fault.wrong, needs="videos", remedy=remedy, videos=concerned, rows=fault.rows
            )
        else:
            remedy = "its files are tried again" if name == FAILURES else "computed again from the stored vectors"
            yield Damage(file=fault.file, wrong=fault.wrong, needs="index", remedy=remedy, rows=fault.rows)
    if name == VIDEOS and found.unreadable and state.whole:
        wrong = f"has rows that cannot be read: {found.unreadable[0]}"
        yield Damage(file=state.folder, wrong=wrong, needs="person", remedy="restore it from a copy of the index")
