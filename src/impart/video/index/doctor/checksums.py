"""Checksums of the files of an index: `checksums.txt` in its folder, one line per file.

    <SHA-256> <size in bytes> <modification time in ns> <path>

The last line has the digest of the lines before it. LanceDB never changes a file of a table, so such a file must have
its recorded content for ever. Other files are replaced under their names: their line counts while size and time are
those recorded. Writers record new files when they end and when they compact. Files of a killed run, and of versions of
IMPART without checksums, are not recorded; `impart doctor` reads these, and then records them.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from impart.files import read_ahead, sha256_hex, sha256_of_file, write_atomic

__all__ = [
    "CHANGED",
    "CHECKSUMS",
    "MISSING",
    "Recorded",
    "Recorder",
    "changed_file",
    "differences_of",
    "differs",
    "files_of",
    "forget",
    "forget_files",
    "is_fixed",
    "read_checksums",
    "record",
]

CHECKSUMS = "checksums.txt"
CHANGED = "has other content than its checksum"
MISSING = "is missing"
_THREADS = 2  # that read files; a disk and a core are seldom busy at the same time
_AHEAD = 64  # files
_TABLE_PARTS = ("data", "_versions", "_deletions", "_transactions")
_FOLDERS = ("references", "rams", "crops", "cache", "names", "faces")
_FILES = ("manifest.json", "manifest.copy.json", "folders.json")
_NOT = (".lock", ".checked")


class Recorded(NamedTuple):
    """Record of a file: digest in hex digits, size in bytes, modification time in ns."""

    sha256: str
    size_bytes: int
    mtime_ns: int


def read_checksums(folder: Path) -> dict[str, Recorded]:
    """Read the checksums of the index in `folder`, by path below it.

    Returns:
        Nothing where there are none.

    Raises:
        ValueError: the file is damaged.
        OSError: it cannot be read.
    """
    try:
        content = (folder / CHECKSUMS).read_bytes()
    except FileNotFoundError:
        return {}
    body, _, last = content.rstrip(b"\n").rpartition(b"\n")
    body += b"\n" if body else b""
    if last.decode("ascii", "replace") != sha256_hex(body):
        raise ValueError("it differs from its own digest")
    recorded = {}
    for line in body.splitlines():
        digest, size, time, name = line.split(b" ", 3)
        recorded[os.fsdecode(name)] = Recorded(digest.decode("ascii"), int(size), int(time))
    return recorded


class Recorder:
    """Records the files that a writer makes. What was there before, and was not recorded, is for `impart doctor`.

    The caller holds the write lock from beginning to end.

    Args:
        folder: of the index.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        known = _read_or_none(folder)
        is_new = not (folder / CHECKSUMS).exists() and not any((folder / "videos.lance" / "data").glob("*"))
        states = {name: _state(folder / name) for name in files_of(folder)}
        self._before = {
            name: state for name, state in states.items() if not (is_new or _is_recorded(name, state, known))
        }

    def record(self) -> None:
        """Record the files that are new since the last time, and forget those that are gone.

        A disk that is full is no error: the files count as not recorded.
        """
        record(self._folder, but={name for name, state in self._before.items() if _state(self._folder / name) == state})


def record(folder: Path, *, but: Collection[str] = ()) -> None:
    """Record the files of an index that are not recorded, and forget those that are gone.

    Args:
        folder: of the index, whose write lock the caller holds.
        but: paths below the folder that are not to be recorded.
    """
    with suppress(OSError):
        known = _read_or_none(folder)
        lines = {name: line for name in files_of(folder) if name not in but and (line := _line(folder, name, known))}
        if lines != known:
            _write(folder, lines)


def _read_or_none(folder: Path) -> dict[str, Recorded]:
    try:
        return read_checksums(folder)
    except (OSError, ValueError):
        return {}


def _state(file: Path) -> tuple[int, int]:
    """Read size in bytes and modification time in ns; zeros where the file is gone."""
    try:
        status = file.stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


def _is_recorded(name: str, state: tuple[int, int], known: Mapping[str, Recorded]) -> bool:
    line = known.get(name)
    return line is not None and (is_fixed(name) or state == (line.size_bytes, line.mtime_ns))


def forget(folder: Path, table: str) -> None:
    """Forget the files of a table that is about to be deleted: a new one may have files of the same names."""
    with suppress(OSError, ValueError):
        known = read_checksums(folder)
        kept = {name: line for name, line in known.items() if not name.startswith(f"{table}.lance/")}
        if kept != known:
            _write(folder, kept)


def forget_files(folder: Path, files: Iterable[Path]) -> None:
    """Forget files of an index that are deleted: a table that goes back to an older version uses their names again."""
    with suppress(OSError, ValueError):
        known = read_checksums(folder)
        gone = {file.relative_to(folder).as_posix() for file in files} & set(known)
        if gone:
            _write(folder, {name: line for name, line in known.items() if name not in gone})


def files_of(folder: Path) -> Iterator[str]:
    """List the files of an index that have a checksum, as paths below its folder, sorted."""
    yield from (name for name in _FILES if (folder / name).is_file())
    places = [table / part for table in sorted(folder.glob("*.lance")) for part in _TABLE_PARTS]
    places += [folder / name for name in _FOLDERS]
    for place in places:
        for here, folders, names in os.walk(place):
            folders.sort()
            for name in sorted(names):
                if not name.startswith(".") and not name.endswith(_NOT) and "#" not in name:
                    yield Path(here, name).relative_to(folder).as_posix()


def is_fixed(name: str) -> bool:
    """Whether a file never changes: one of a table, but for the hint at its newest version."""
    return ".lance/" in name and not name.endswith(".json")


def differences_of(folder: Path, recorded: Mapping[str, Recorded]) -> dict[str, str]:
    """Compare all recorded files with their checksums, each read once, in two threads.

    Args:
        folder: of the index.
        recorded: checksums, by path below it.

    Returns:
        What is wrong with the files that are not as recorded, by path. One that may be replaced, and was, is none.
    """

    def compare(name: str) -> str:
        try:
            return CHANGED if differs(folder / name, recorded[name], fixed=is_fixed(name)) else ""
        except FileNotFoundError:
            return MISSING
        except OSError as error:
            return f"cannot be read: {error.strerror or error}"

    found = read_ahead(recorded, compare, workers=_THREADS, ahead=_AHEAD)
    return {name: wrong for name, wrong in zip(recorded, found, strict=True) if wrong}


def changed_file(folder: Path, names: Iterable[str]) -> Path | None:
    """Find a file whose content is not the recorded one; None where all that are recorded have it.

    Args:
        folder: of the index.
        names: paths below it.
    """
    try:
        known = read_checksums(folder)
    except (OSError, ValueError):
        return None
    for name in names:
        line = known.get(name)
        with suppress(FileNotFoundError):  # deleted meanwhile, or missing: the database says so
            if line is not None and differs(folder / name, line, fixed=is_fixed(name)):
                return folder / name
    return None


def differs(file: Path, line: Recorded, *, fixed: bool) -> bool:
    """Whether a file has other content than was recorded; a replaced one that may be replaced has not.

    Raises:
        OSError: it cannot be read.
    """
    status = file.stat()
    if not fixed and (status.st_size, status.st_mtime_ns) != (line.size_bytes, line.mtime_ns):
        return False
    return status.st_size != line.size_bytes or sha256_of_file(file) != line.sha256


def _line(folder: Path, name: str, known: Mapping[str, Recorded]) -> Recorded | None:
    """Make the line of a file; None where a reader of the index has deleted it meanwhile."""
    line = known.get(name)
    if line is not None and is_fixed(name):
        return line
    try:
        status = (folder / name).stat()
        if line is not None and (status.st_size, status.st_mtime_ns) == (line.size_bytes, line.mtime_ns):
            return line
        return Recorded(sha256_of_file(folder / name), status.st_size, status.st_mtime_ns)
    except FileNotFoundError:
        return None


def _write(folder: Path, lines: Mapping[str, Recorded]) -> None:
    rows = [
        f"{line.sha256} {line.size_bytes} {line.mtime_ns} ".encode() + os.fsencode(name) for name, line in lines.items()
    ]
    body = b"".join(row + b"\n" for row in rows)
    write_atomic(folder / CHECKSUMS, body + sha256_hex(body).encode() + b"\n")
