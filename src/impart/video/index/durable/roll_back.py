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
from impart.video.index.durable.lock import write_lock
from impart.video.index.durable.sync import read_mark
from impart.video.integrity import damaged_data, ends_well, versions_of

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
    """Delete the damaged versions that a writer had not synced when it ended; the caller holds the lock.

    Returns:
        Their files.

    Raises:
        OSError: a file cannot be deleted.
    """
    synced = read_mark(folder)
    undone: list[Path] = []
    for table in folder.glob("*.lance") if synced is not None else ():
        undone += _roll_back(table, synced.get(table.stem, 0))
    return undone


def _roll_back(table: Path, synced: int) -> list[Path]:
    """Delete the damaged versions of a table above the synced one; none where no version is whole."""
    damaged: list[Path] = []
    versions = versions_of(table)
    for number, manifest in versions.items():
        if number <= synced or _is_whole(table, number, manifest):
            # Older versions serve readers no more, but a damaged one would stop the clean-up of the database.
            older = (file for one, file in versions.items() if synced < one < number and not ends_well(file))
            damaged += older
            break
        damaged.append(manifest)
    else:
        return []
    for manifest in damaged:
        manifest.unlink()
    return damaged


def _is_whole(table: Path, number: int, manifest: Path) -> bool:
    """Whether a version and its files are undamaged: by their ends, and by reading all but the vectors."""
    if not ends_well(manifest) or damaged_data(table, manifest) is not None:
        return False
    import lancedb
    import pyarrow as pa

    try:
        opened: Any = lancedb.connect(str(table.parent)).open_table(table.stem, version=number)
        plain = [field.name for field in opened.schema if not pa.types.is_fixed_size_list(field.type)]
        opened.search().select(plain).to_arrow()
    except (OSError, RuntimeError, ValueError):
        return False
    return True
