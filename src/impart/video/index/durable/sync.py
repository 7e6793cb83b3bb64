"""Sync of an index's tables to disk: what is reported as stored survives a power cut.

LanceDB writes files without syncing them. After a power cut a file of the last seconds may be empty, full of zeros, or
absent. So a writer syncs new files, and the folders that list them, in this order:

1. the mark `writing.json`: from here on newer versions of a table may be damaged;
2. rows of segments, before the row of their video is written; neighbours are not, since they are computed from these;
3. rows of videos, before the video is reported, and before rows that it no longer needs are deleted;
4. merged files, before the files that they replace are deleted;
5. at the end all the rest; then the mark is removed.

The next writer that finds the mark undoes damaged versions (`roll_back.py`) and syncs all that a killed run left.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from impart.errors import VideoIndexError
from impart.files import sync_together, write_json_atomic
from impart.video.index.manifest import IndexManifest
from impart.video.integrity import ends_well, versions_of

__all__ = ["MARK", "TableSync", "read_mark", "sync_tables"]

MARK = "writing.json"
"""A file in the index: a writer is at work, or was killed. It contains the last synced version of each table."""

_LISTED = ("_versions", "data", "_deletions")
"""Folders of a table that a reader needs. Transactions serve concurrent writers alone, and may be lost."""

_WITH_END = (".lance", ".manifest")
_NOT_NEEDED = "latest_version_hint.json"  # read as a hint: a wrong, empty or lost one changes nothing


class TableSync:
    """Syncs the files that a writer makes, each once.

    Args:
        folder: of the index; the caller holds its lock. None where the tables are on a remote store, which has no
            sync: nothing is done.

    Raises:
        OSError: a file cannot be synced.
        VideoIndexError: a file was not written whole, or the index was moved meanwhile: nothing may be reported.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._synced: set[str] = set()
        self._place: tuple[int, int] | None = None

    def begin(self) -> None:
        """Mark the index as being written. What is there counts as synced; what a killed run left is synced now."""
        if self._folder is None:
            return
        self._place = _identity(self._folder)
        there = [path for table in _tables(self._folder) for path in _parts_of(table)]
        if read_mark(self._folder) is not None:
            _sync_new(set(there))
        self._synced.update(there)
        versions = {table.stem: max(versions_of(table), default=0) for table in _tables(self._folder)}
        write_json_atomic(self._folder / MARK, {"versions": versions}, ascii_only=True)

    def sync(self, *names: str) -> None:
        """Sync the new files of tables, and the folders that list them."""
        if self._folder is not None:
            self._sync(path for name in names for path in _parts_of(self._folder / f"{name}.lance"))

    def forget(self, name: str) -> None:
        """Forget a table that is deleted: another one of its name is synced anew."""
        if self._folder is not None:
            table = str(self._folder / f"{name}.lance")
            self._synced = {path for path in self._synced if path != table and not path.startswith(table + os.sep)}

    def end(self) -> None:
        """Sync what is new in all tables, and remove the mark; nothing happens before `begin`."""
        if self._folder is not None and self._place is not None:
            self._check_place()
            self.sync(*(table.stem for table in _tables(self._folder)))
            (self._folder / MARK).unlink(missing_ok=True)

    def _sync(self, paths: Iterable[str]) -> None:
        new = {path for path in paths if path not in self._synced}
        cut = next((path for path in sorted(new) if path.endswith(_WITH_END) and not _is_whole(Path(path))), None)
        if cut is not None:  # the database does not report each error of its last write
            raise VideoIndexError(
                f"{cut} was not written whole: is the disk full? Free some space, and run the same command again; what "
                "was committed before is kept"
            )
        _sync_new(new)
        self._check_place()
        self._synced |= new

    def _check_place(self) -> None:
        """Refuse to go on where the index was moved: the database writes to its old place without an error."""
        assert self._folder is not None
        if self._place in (None, _identity(self._folder)):
            return
        if not IndexManifest.exists(self._folder):
            _remove_strays(self._folder)
        raise VideoIndexError(
            f"the index {self._folder} was moved while it was written: what was committed before is in the moved "
            "folder. Run the same command again with its new place (--index DIR)"
        )


def sync_tables(folder: Path) -> None:
    """Sync all tables of a new index, which no writer has opened yet.

    Raises:
        OSError: a file cannot be synced.
    """
    _sync_new({path for table in _tables(folder) for path in _parts_of(table)})


def read_mark(folder: Path) -> dict[str, int] | None:
    """Read the versions that were synced when the last writer began; None = it ended, and all is synced."""
    try:
        values = json.loads((folder / MARK).read_text(encoding="ascii"))
        return {str(name): int(number) for name, number in values["versions"].items()}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}


def _is_whole(path: Path) -> bool:
    """Whether a file has its last bytes; a table, which is a folder, is no file."""
    return path.is_dir() or not path.exists() or ends_well(path)


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _remove_strays(folder: Path) -> None:
    """Remove what was written to the place of an index after it was moved away."""
    for path in (*_tables(folder), folder / "cache"):
        shutil.rmtree(path, ignore_errors=True)
    for name in (MARK, "folders.json"):
        (folder / name).unlink(missing_ok=True)
    with suppress(OSError):  # it contains something else
        folder.rmdir()


def _sync_new(new: set[str]) -> None:
    """Sync new files and folders, and the folders that list them."""
    sync_together([Path(path) for path in new | {os.path.dirname(path) for path in new}])  # noqa: PTH120


def _tables(folder: Path) -> list[Path]:
    return list(folder.glob("*.lance"))


def _parts_of(table: Path) -> Iterator[str]:
    """Yield a table, its folders that a reader needs, and the files in them; text, since they are many."""
    yield str(table)
    for name in _LISTED:
        folder = os.path.join(table, name)  # noqa: PTH118
        with suppress(FileNotFoundError), os.scandir(folder) as entries:  # a table may have no data yet
            yield folder
            yield from (entry.path for entry in entries if entry.name != _NOT_NEEDED)
