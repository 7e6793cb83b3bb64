"""Newest versions of the tables: each is compared with its checksums once, before the database reads it.

The database reads some damaged versions as other content than was written, so this costs a writer or a reader no more
than the digests of a few small files. Of `videos` the rows are compared as well; those of vectors are not, since that
takes as long as reading them (`impart doctor` does).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from impart.errors import VideoIndexError
from impart.video.index.doctor.checksums import changed_file, forget
from impart.video.index.doctor.tables import checked_version, named_files
from impart.video.index.doctor.versions import read_version
from impart.video.integrity import COPY_REMEDY, damaged_version, newest_version

__all__ = ["NewestVersions", "check_unchanged", "newest_names"]


class NewestVersions:
    """Compares the newest versions of the tables of one index.

    Args:
        index: its folder.
    """

    def __init__(self, index: Path) -> None:
        self._index = index
        self._compared: set[Path] = set()

    def wrong(self, table: str, *, rows: bool) -> str:
        """Describe what is wrong with the newest version of a table; "" = nothing.

        Args:
            rows: whether its data files are compared as well.
        """
        folder = self._index / f"{table}.lance"
        broken = damaged_version(folder)
        if broken is not None:
            return f"{broken} is missing or damaged"
        newest = newest_version(folder)
        if newest is None or newest in self._compared:
            return ""
        names = newest_names(self._index, table)
        changed = changed_file(self._index, [name for name in names if rows or "/data/" not in name])
        if changed is not None:
            return f"{changed} has other content than its checksum"
        self._compared.add(newest)
        return ""

    def changed(self, tables: Iterable[str]) -> Path | None:
        """Find a file of the newest versions of tables, data files included, that is not as recorded."""
        return changed_file(self._index, [name for table in tables for name in newest_names(self._index, table)])

    def forget(self, table: str) -> None:
        """Forget a table that is about to be deleted: a new one may have files of the same names."""
        self._compared.clear()
        forget(self._index, table)


def check_unchanged(index: Path, table: str) -> None:
    """Compare all files of the newest version of a table with their checksums.

    Raises:
        VideoIndexError: one differs; names it, and the remedy.
    """
    changed = changed_file(index, newest_names(index, table))
    if changed is not None:
        raise VideoIndexError(f"{changed} has other content than its checksum: {COPY_REMEDY}")


def newest_names(index: Path, table: str) -> list[str]:
    """List the files of the newest version of a table, as paths below the index: that of the version itself first.

    Returns:
        Only that one where it cannot be read; nothing where there is none.
    """
    folder = index / f"{table}.lance"
    newest = newest_version(folder)
    if newest is None:
        return []
    try:
        others = named_files(checked_version(read_version(newest.read_bytes()), newest))
    except (OSError, ValueError):
        others = frozenset[str]()
    return [f"{folder.name}/{name}" for name in (f"_versions/{newest.name}", *sorted(others))]
