"""Repair an index: keep what is whole, compute again what can be, and name what must be indexed again.

Damaged files are moved to `damaged/` in the index. They are deleted once a further check finds the index whole and
nothing is left to do by hand. A repair that is killed is repeated: a table is replaced by two renames, and where only
the first one was done, the second one is done or the table is put back.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from impart.blending.encoder import settings_of
from impart.blending.solved.blender import with_solved_weights
from impart.config import SolvedSettings
from impart.errors import ReferenceSetError, VideoIndexError
from impart.files import move_synced, sync, write_atomic
from impart.refset.check import check_set, made_again
from impart.refset.manifest import MANIFEST
from impart.refset.refset import ReferenceSet
from impart.video.index.doctor.check import Examination, examine
from impart.video.index.doctor.checksums import CHECKSUMS, forget, record
from impart.video.index.doctor.others import CACHE
from impart.video.index.doctor.report import CheckReport, Damage
from impart.video.index.doctor.salvage import salvage
from impart.video.index.doctor.tables import TableState
from impart.video.index.durable.lock import write_lock
from impart.video.index.manifest import MANIFESTS, IndexManifest
from impart.video.index.store import FAILURES, SEGMENTS, VIDEOS, schemas

__all__ = ["ASIDE", "Restored", "put_back", "repair_files", "repair_references"]

ASIDE = "damaged"
_WORK = ".doctor"
_CLOSED = "closed.json"


@dataclass(frozen=True, kw_only=True)
class Restored:
    """Result of the repair of files.

    Attributes:
        before: the check before the repair.
        done: in words, one line each.
        left: what a person has to do, one line each.
        wanted: videos that are to be indexed again, where their paths are known.
        rows: whether tables, neighbours or the cache are to be made complete by a run of `impart index`.
    """

    before: CheckReport
    done: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    wanted: tuple[Path, ...] = ()
    rows: bool = False


@dataclass(kw_only=True)
class _Work:
    """The repair of one index, step by step."""

    folder: Path
    aside: Path
    found: Examination
    done: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def move(self, file: Path) -> None:
        """Move a file or folder of the index to `damaged/`; nothing happens where it is missing."""
        if file.exists() or file.is_symlink():
            target = self.aside / file.relative_to(self.folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            move_synced(file, target)


def repair_files(folder: Path) -> Restored:
    """Put the files of an index in order, so that it can be read and written again.

    Rows of damaged files are gone afterwards; the next run of `impart index` finds that videos lack rows.

    Raises:
        IndexLockedError: another process is writing to the index.
        VideoIndexError: there is no index, both manifests are lost, or the folder cannot be written.
    """
    if not IndexManifest.exists(folder):
        IndexManifest.load(folder)  # raises, with the remedy
    with write_lock(folder):
        try:
            put_back(folder)
            found = examine(folder)
            if found.report.whole:
                return Restored(before=found.report)
            if found.manifest is None:
                lost = found.report.damage[0]
                raise VideoIndexError(
                    f"{lost.file} {lost.wrong}, and so is its copy: {lost.remedy}. Nothing was changed"
                )
            work = _Work(folder=folder, aside=_new_folder(folder / ASIDE), found=found)
            return _repair(work, found.manifest)
        except OSError as error:
            raise VideoIndexError(
                f"cannot repair the index {folder}: {error.filename or ''} {error.strerror or error}; damaged files "
                f"are in {folder / ASIDE}, and the same command continues"
            ) from error


def put_back(folder: Path) -> None:
    """Undo what a killed repair began: a table that was moved away, and not replaced, is put back."""
    for work in [folder / _WORK]:
        shutil.rmtree(work, ignore_errors=True)
    for table in (VIDEOS, SEGMENTS, FAILURES):
        place = folder / f"{table}.lance"
        moved = sorted((folder / ASIDE).glob(f"*/{place.name}/_versions"))
        if moved and not place.exists():
            move_synced(moved[-1].parent, place)


def repair_references(folder: Path, report: CheckReport) -> Restored:
    """Make again what of a reference set can be: its nearest-neighbour index and its solved weights.

    Args:
        report: of `check_references`.

    Raises:
        ReferenceSetError: the folder cannot be written.
    """
    done, left = [], []
    for damage in report.damage:
        if damage.needs == "index" and damage.file.name != MANIFEST:
            damage.file.unlink(missing_ok=True)
            references = ReferenceSet.open(folder)
            if damage.file.name == references.manifest.weights:
                stored = settings_of(references)
                assert isinstance(stored, SolvedSettings)
                with_solved_weights(references, stored).save(folder)
            else:
                references.index.write(damage.file)
            done.append(f"{damage.file} made again")
        else:
            left.append(f"{damage.file} {damage.wrong}")
    return Restored(before=report, done=tuple(done), left=tuple(left))


def _repair(work: _Work, manifest: IndexManifest) -> Restored:
    report, folder = work.found.report, work.folder
    (folder / _CLOSED).unlink(missing_ok=True)  # the next writer checks all rows
    if work.found.content is not None:
        for name in MANIFESTS:
            if any(damage.file == folder / name for damage in report.damage):
                work.move(folder / name)
            write_atomic(folder / name, work.found.content)
        work.done.append("the manifest and its copy are the same again")
    for name, state in work.found.tables.items():
        if state.faults:
            _repair_table(work, name, state, manifest)
    tables = {state.folder for state in work.found.tables.values()}
    others = [damage for damage in report.damage if not tables & {damage.file, *damage.file.parents}]
    _repair_others(work, others, manifest)
    rows = any(damage.needs != "nothing" for damage in report.damage) or bool(report.lacking)
    cached = [damage.file for damage in report.damage if folder / CACHE in damage.file.parents]
    if all(damage.needs == "nothing" or damage.file in cached for damage in report.damage) and not report.lacking:
        for file in cached:
            work.move(file)  # the other shards stay
    elif rows:
        work.move(folder / CACHE)
    (folder / CHECKSUMS).unlink(missing_ok=True) if any(one.file.name == CHECKSUMS for one in report.damage) else None
    record(folder)
    if report.lost_records > len(report.lost_paths):
        count = report.lost_records - len(report.lost_paths)
        work.left.append(
            f"{count} videos are lost whose paths are not known: impart index PATH... --index {folder} finds them again"
        )
    wanted = sorted({*report.lacking, *report.lost_paths})
    return Restored(before=report, done=tuple(work.done), left=tuple(work.left), wanted=tuple(wanted), rows=rows)


def _repair_table(work: _Work, name: str, state: TableState, manifest: IndexManifest) -> None:
    """Go back to what is whole of a table."""
    folder = state.folder
    if name not in (VIDEOS, SEGMENTS, FAILURES) and not state.whole:
        work.move(folder)  # a writer makes it again, and computes its rows
        forget(work.folder, name)
        work.done.append(f"{folder.name}: its rows are computed again")
        return
    if state.whole:
        for file in [*(fault.file for fault in state.faults), *state.stale]:
            work.move(file)
        work.done.append(f"{folder.name}: damaged files of older versions moved away")
        return
    place = work.folder / _WORK
    place.mkdir(exist_ok=True)
    try:
        table = salvage(state, place, schemas(manifest)[name], link=True).table(name)
        kept = sum(batch.num_rows for batch in table.search().to_batches(16_384))
        version = table.version
    except Exception as error:
        raise VideoIndexError(
            f"what is whole of {folder} cannot be read: {error}; it was not changed. Restore it from a copy"
        ) from error
    sync(place / folder.name)
    forget(work.folder, name)
    work.move(folder)
    move_synced(place / folder.name, folder)
    shutil.rmtree(place, ignore_errors=True)
    lost = sum(fault.rows for fault in state.faults if fault.in_force)
    what = f"{kept} rows kept" + (f", {lost} lost" if lost else "")
    what += f", version {version} in force" if state.back else ""
    work.done.append(f"{folder.name}: {what}")


def _repair_others(work: _Work, others: Iterable[Damage], manifest: IndexManifest) -> None:
    """Move damaged files aside, or make them again."""
    folder, augmentation = work.folder, manifest.augmentation
    by_place: dict[str, list[Damage]] = {}
    for damage in others:
        by_place.setdefault(damage.file.relative_to(folder).parts[0], []).append(damage)
    for place, damages in by_place.items():
        if place in (*MANIFESTS, CHECKSUMS, CACHE):
            continue
        if place == "names":
            _repair_names(work, damages, manifest)
        elif place == "references" and augmentation is not None:
            _repair_copy(work, folder / augmentation.folder, damages, manifest)
        elif place == "rams":
            work.left += [f"{damage.file} {damage.wrong}: {damage.remedy}" for damage in damages]
        else:
            for damage in damages:
                work.move(damage.file)
                work.done.append(f"{damage.file.relative_to(folder)} moved away: {damage.remedy}")
            if damages[0].needs == "videos":
                work.left.append(f"{place}: {damages[0].remedy}")


def _repair_names(work: _Work, damages: Iterable[Damage], manifest: IndexManifest) -> None:
    """Make the manifest of the names again from their rows, or move them aside."""
    names = work.folder / "names"
    wrong = [damage for damage in damages if damage.needs != "nothing"]
    for damage in damages:
        if damage.needs == "nothing":
            work.move(damage.file)
            work.done.append(f"{damage.file.relative_to(work.folder)} moved away: {damage.remedy}")
    if not wrong:
        return
    if _manifest_again(work, names, wrong, manifest):
        work.done.append("names: their manifest is made again from their rows")
        return
    for file in [names / MANIFEST, *names.glob("*-*.*")]:
        work.move(file)
    work.left.append(f"names are lost: {wrong[0].remedy}")


def _repair_copy(work: _Work, copy: Path, damages: Iterable[Damage], manifest: IndexManifest) -> None:
    """Make the copy of the reference set in force whole: from its rows, or from the set that comes with the model."""
    damages = list(damages)
    if _manifest_again(work, copy, damages, manifest) or _bundled(work, copy, manifest):
        work.done.append(f"the copy of the reference set in {copy} is whole again")
        return
    work.left += [f"{damage.file} {damage.wrong}: {damage.remedy}" for damage in damages]


def _manifest_again(work: _Work, folder: Path, damages: Iterable[Damage], manifest: IndexManifest) -> bool:
    """Make the manifest of a set in the index again where only that is damaged."""
    if any(damage.file.name != MANIFEST for damage in damages):
        return False
    made = made_again(folder, encoder_id=manifest.encoder_id, encoder_fingerprint=manifest.encoder_fingerprint)
    augmentation = manifest.augmentation
    in_force = augmentation is not None and folder == work.folder / augmentation.folder
    if made is None or (in_force and augmentation and made.fingerprint != augmentation.references_fingerprint):
        return False
    if in_force and augmentation is not None:
        made = dataclasses.replace(made, name=augmentation.references_name)
    work.move(folder / MANIFEST)
    made.write(folder)
    return not check_set(folder)


def _bundled(work: _Work, copy: Path, manifest: IndexManifest) -> bool:
    """Copy the reference set that comes with the model, where it is the one in force."""
    from impart.encoders.bundled import bundled

    augmentation = manifest.augmentation
    source = bundled(manifest.encoder_id, "references")
    if source is None or augmentation is None:
        return False
    with suppress(ReferenceSetError):
        references = ReferenceSet.open(source)
        if (
            references.fingerprint == augmentation.references_fingerprint
            and references.znorm.digest[:8] == copy.name[-8:]
        ):
            work.move(copy)
            references.save(copy)
            return not check_set(copy)
    return False


def _new_folder(aside: Path) -> Path:
    """Name a new folder for damaged files: by the time, in UTC."""
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S", time.gmtime())
    names: Iterator[Path] = (aside / (stamp + (f"-{number}" if number else "")) for number in range(1000))
    return next(place for place in names if not place.exists())
