"""Mark of a clean exit: the newest version of each table, as the last writer left it, in `closed.json`.

A writer looks for what an interrupted run left, which reads the keys of all rows. Where the tables are exactly as the
last writer marked them, after it had checked and completed them, there is nothing to find. Any later change of a table
writes a new version, so the mark never needs to be deleted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from impart.files import blake2b_of_file, write_json_atomic
from impart.video.integrity import damaged_file, newest_version

__all__ = ["MARK", "is_marked", "mark_closed"]

MARK = "closed.json"


def mark_closed(index: Path, tables: Iterable[str]) -> None:
    """Record that the tables are complete; without the mark, the next writer checks them.

    Args:
        index: folder of the index, whose lock is held.
    """
    with suppress(OSError):
        newest = _versions(index, tables)
        if newest is not None and _read(index) != newest:
            write_json_atomic(index / MARK, {"tables": newest})


def is_marked(index: Path, tables: Iterable[str]) -> bool:
    """Whether the tables are as the last writer left them, and none of their files is missing or cut."""
    names = list(tables)
    try:
        if _read(index) != _versions(index, names):
            return False
    except OSError:
        return False
    return all(damaged_file(index / f"{name}.lance") is None for name in names)


def _versions(index: Path, tables: Iterable[str]) -> dict[str, list[str]] | None:
    """Find name and digest of the newest version of each table; a version names all files of its rows."""
    found = {}
    for name in tables:
        newest = newest_version(index / f"{name}.lance")
        if newest is None:
            return None
        found[name] = [newest.name, blake2b_of_file(newest).hex()]
    return found


def _read(index: Path) -> object:
    try:
        content = json.loads((index / MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return content.get("tables") if isinstance(content, dict) else ""
