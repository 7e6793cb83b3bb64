"""Undo of damaged versions after a power cut: back to the newest whole version of each table.

A writer syncs a version before what it contains is reported (`sync.py`). A version that is damaged although the mark of
a writer is there was therefore not reported yet, and its videos are indexed again. Versions that were synced before the
writer began are never undone: damage to them is a failing disk, and is reported.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from impart.errors import ImpartError
from impart.files import move_synced
from impart.video.index.doctor.checksums import forget_files
from impart.video.index.durable.lock import write_lock
from impart.video.index.durable.sync import read_mark
from impart.video.integrity import TEMPORARY, damaged_data, data_names, ends_well, versions_of

__all__ = ["roll_back", "try_roll_back"]


def try_roll_back(folder: Path) -> bool:
    """Undo damaged versions for a reader, where no writer is at work and the index can be written.

    Returns:
        Whether a version was undone.
    """
    if read_mark(folder) is None:
        return False
    with suppress(ImpartError, OSError), write_lock(folder):
        return bool(roll_back(folder))
    return False


def roll_back(folder: Path) -> list[Path]:
    """Delete what a killed writer left: damaged versions that it had not synced, and files of no version.

    The caller holds the lock. Nothing is done where the last writer ended.

    Returns:
        The files of the versions that are undone.

    Raises:
        OSError: a file cannot be deleted.
    """
    synced = read_mark(folder)
    undone: list[Path] = []
    if synced is None:
        return undone
    for table in folder.glob("*.lance"):
        undone += _roll_back(table, synced.get(table.stem, 0))
        _remove_unnamed(table)
    if undone:
        forget_files(folder, undone)
    return undone


def _roll_back(table: Path, synced: int) -> list[Path]:
    """Go back to the newest whole version of a table that is not below the synced one; stay where there is none."""
    versions = versions_of(table)
    if max(versions, default=0) <= synced:
        return []
    aside: list[Path] = []
    for number, manifest in versions.items():
        if _is_whole(table, manifest):
            # Older versions serve readers no more, but a damaged one would stop the clean-up of the database.
            older = [file for one, file in versions.items() if synced < one < number and not ends_well(file)]
            for file in (*older, *map(_aside, aside)):
                file.unlink()
            return [*aside, *older]
        if number <= synced:
            break
        move_synced(manifest, _aside(manifest))  # so that the database opens the version before it
        aside.append(manifest)
    for manifest in aside:
        move_synced(_aside(manifest), manifest)
    return []


def _aside(manifest: Path) -> Path:
    return manifest.with_name(f"{TEMPORARY}{manifest.name}")


def _is_whole(table: Path, manifest: Path) -> bool:
    """Whether the newest version and its files are undamaged: by their ends, and by reading all but the vectors."""
    if not ends_well(manifest) or damaged_data(table, manifest) is not None:
        return False
    import lancedb
    import pyarrow as pa

    try:
        opened: Any = lancedb.connect(str(table.parent)).open_table(table.stem)
        plain = [field.name for field in opened.schema if not pa.types.is_fixed_size_list(field.type)]
        opened.search().select(plain).to_arrow()
    except (OSError, RuntimeError, ValueError):
        return False
    return True


def _remove_unnamed(table: Path) -> None:
    """Delete the data files that no version names."""
    versions = versions_of(table).values()
    if not all(map(ends_well, versions)):
        return
    named = {name for manifest in versions for name in data_names(manifest)}
    for file in (table / "data").glob("*.lance") if named else ():
        if file.name not in named:
            file.unlink()
