"""Integrity of an index on disk: the rows of each video, damaged files, and the files that killed runs left.

A copy that was made while the index was written, or a lost file, leaves videos without some of their rows. Readers
leave such videos out; the next writer takes them out of `videos` and lists them among the failures, so that they are
indexed again. Rows of a neighbours table are computed again from the stored vectors.
"""

from __future__ import annotations

import contextlib
import re
import stat
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "COPY_REMEDY",
    "KEYS",
    "ROWS_MISSING",
    "TEMPORARY",
    "Placed",
    "Rows",
    "bytes_below",
    "damaged_data",
    "damaged_file",
    "damaged_version",
    "data_names",
    "ends_well",
    "newest_version",
    "place_rows",
    "remove_temporary",
    "version_number",
    "versions_of",
]

KEYS = ("video_id", "revision", "number")
"""Columns that identify a row of `segments` and of a neighbours table."""

ROWS_MISSING = (
    "rows of it are missing (was the index copied while it was written, or a file of it lost?): "
    "impart index PATH indexes it again"
)
COPY_REMEDY = (
    "impart doctor --repair, with the same --index, saves what is whole and indexes the rest again; or restore the "
    "file from a copy of the index, or index your videos again into a new folder (--index DIR)"
)

TEMPORARY = ".tmp"
"""Begin of the names of the database's temporary files."""

_PART = re.compile(r"\.(.+)\.[0-9]+-[0-9]+\.part")  # of `impart.files.atomic_path`
_PROBE = ".impart-*"  # of a disk, see `impart.video.index.durable.lock`
_IN_USE_S = 3600.0  # a temporary file that another process may be writing is stale after this time
_MAGIC = b"LANC"  # last bytes of each data file and of each version of a table
_DATA_FILE = re.compile(rb"[01]{24}[0-9a-f]{26}\.lance|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\.lance")
_NEWEST = 2**64 - 1  # a version is named by its distance from this number


class Rows(Protocol):
    """The known facts about the rows of a video, such as a `VideoRecord`."""

    @property
    def video_id(self) -> str: ...
    @property
    def revision(self) -> str: ...
    @property
    def segments(self) -> int: ...
    @property
    def path(self) -> Path: ...


@dataclass(frozen=True)
class Placed:
    """The m rows of a table among the n segments of V videos.

    Attributes:
        place: (m,) position among the segments; -1 = an orphan row, whose (video_id, revision) is not committed.
        whole: (V,) whether each segment of a video has exactly one row.
    """

    place: npt.NDArray[np.int64]
    whole: npt.NDArray[np.bool_]


def place_rows(rows: pa.Table, records: Sequence[Rows]) -> Placed:
    """Find the segments of the rows of a table, and the videos that lack rows.

    Args:
        rows: with the columns `KEYS`.
        records: V committed videos; their segments are numbered in this order.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    counts = np.array([record.segments for record in records], np.int64)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    revisions = sorted({record.revision for record in records})
    code = {revision: i for i, revision in enumerate(revisions)}
    wanted = np.array([code[record.revision] for record in records] + [-2], np.int64)  # the last one for unknown videos
    video = _codes(pc.index_in(rows["video_id"], pa.array([record.video_id for record in records], pa.string())))
    revision = _codes(pc.index_in(rows["revision"], pa.array(revisions, pa.string())))
    committed = (video >= 0) & (wanted[video] == revision)
    number = rows["number"].to_numpy().astype(np.int64)
    counted = np.append(counts, 0)[video]
    inside = committed & (number >= 0) & (number < counted)
    place = np.where(inside, offsets[np.maximum(video, 0)] + number, -1)
    once = np.bincount(place[inside], minlength=offsets[-1]) == 1  # (n,)
    good = np.concatenate([[0], np.cumsum(once)])
    whole = good[offsets[1:]] - good[offsets[:-1]] == counts
    whole[video[committed & ~inside]] = False
    return Placed(place, whole)


def damaged_file(table: Path) -> Path | None:
    """Find a file of a table's folder that is missing or damaged, by its name and its last bytes.

    Returns:
        The first one found; None where every file of the newest version ends as it should.
    """
    broken = damaged_version(table)
    if broken is not None:
        return broken
    newest = newest_version(table)
    assert newest is not None
    return damaged_data(table, newest)


def damaged_data(table: Path, manifest: Path) -> Path | None:
    """Find a data file of one version of a table that is missing or damaged; None where there is none.

    Args:
        manifest: of the version, which is not damaged.
    """
    files = (table / "data" / name for name in sorted(data_names(manifest)))
    return next((file for file in files if not ends_well(file)), None)


def data_names(manifest: Path) -> set[str]:
    """Read the names of the data files of one version of a table, which is not damaged."""
    content = manifest.read_bytes()
    # Before this place is the transaction that made the version: it names merged files, which may be deleted by now.
    place = int.from_bytes(content[-16:-8], "little")
    return {name.decode("ascii") for name in _DATA_FILE.findall(content, min(place, len(content)))}


def damaged_version(table: Path) -> Path | None:
    """Return the newest version of a table where it is damaged: the database may read it as an empty table.

    Returns:
        The file, or the table's folder where it has no version; None where all is well.
    """
    newest = newest_version(table)
    if newest is None:
        return table
    return None if ends_well(newest) else newest


def versions_of(table: Path) -> dict[int, Path]:
    """List the files of the versions of a table, newest first."""
    found = {version_number(file): file for file in (table / "_versions").glob("*.manifest")}
    return dict(sorted(found.items(), reverse=True))


def remove_temporary(folder: Path, *, by_others: Collection[str]) -> None:
    """Delete the temporary files of killed runs in an index and its tables; the caller holds the write lock.

    Args:
        folder: of the index.
        by_others: patterns of the names of files that processes without the lock write. Their temporary files, and
            those of faces, are deleted when they are an hour old, all others at once.
    """
    for file in [*folder.glob(".*.part"), *folder.glob("faces/.*.part"), *folder.glob(_PROBE)]:
        part = _PART.fullmatch(file.name)
        in_use = part is None or file.parent != folder or any(fnmatchcase(part[1], pattern) for pattern in by_others)
        with contextlib.suppress(FileNotFoundError):
            if not in_use or abs(time.time() - file.stat().st_mtime) > _IN_USE_S:
                file.unlink()
    for table in folder.glob("*.lance"):
        for file in [*table.rglob(f"{TEMPORARY}*"), *table.rglob("*#[0-9]*")]:
            if file.is_file():
                file.unlink(missing_ok=True)


def bytes_below(folder: Path) -> int:
    """Sum the sizes of the files of a folder that a writer may be changing."""
    total = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            status = file.stat()
            total += status.st_size if stat.S_ISREG(status.st_mode) else 0
    return total


def _codes(indices: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    codes: npt.NDArray[np.int64] = indices.fill_null(-1).to_numpy().astype(np.int64)
    return codes


def newest_version(table: Path) -> Path | None:
    """Return the file of the newest version of a table; None where there is none."""
    return next(iter(versions_of(table).values()), None)


def version_number(manifest: Path) -> int:
    """Read the number of a version from the name of its file."""
    number = int(manifest.stem) if manifest.stem.isdigit() else 0
    return _NEWEST - number if len(manifest.stem) == 20 else number


def ends_well(file: Path) -> bool:
    """Whether a data file, or the file of a version, is there and has its last bytes."""
    try:
        with file.open("rb") as opened:
            opened.seek(-len(_MAGIC), 2)
            return opened.read() == _MAGIC
    except OSError:
        return False
