"""Pruning: find the indexed videos whose files are surely gone.

A file that is missing was deleted, or the disk with its folder is away. A folder that is missing, empty, on another
device than when it was indexed, or that cannot be read, may be an unmounted disk: its videos are kept and named. The
caller removes them with `force`. Disks may be mounted in turn at one folder: a video that is kept keeps the number of
its own device.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from impart.files import write_json_atomic
from impart.video.index.files.scan import Scan, as_listed
from impart.video.index.remote.mirror import publishing
from impart.video.index.store import FailureRecord, VideoRecord

__all__ = ["DEVICES_NAME", "Gone", "devices_after", "find_gone", "read_devices", "save_devices"]

DEVICES_NAME = "folders.json"


@dataclass(kw_only=True)
class Gone:
    """Result of a search for missing files.

    Attributes:
        remove: videos whose files are gone.
        forget: files with a recorded failure that are gone.
        problems: (folder, reason) of folders whose videos are kept.
    """

    remove: list[VideoRecord] = field(default_factory=list)
    forget: list[Path] = field(default_factory=list)
    problems: list[tuple[Path, str]] = field(default_factory=list)


def find_gone(
    found: Scan,
    *,
    known: Mapping[Path, VideoRecord],
    failures: Mapping[Path, FailureRecord],
    kept: set[Path],
    devices: Mapping[str, int],
    force: bool,
) -> Gone:
    """Find the videos that are gone below the roots of a scan.

    Args:
        kept: paths that are not gone: the files found, and those that were moved.
        devices: device numbers, see `devices_after`.
        force: remove the videos of folders that may be an unmounted disk as well.
    """
    result = Gone()
    unreadable = [path for path, _ in found.problems if path not in found.missing]
    roots = [*found.roots, *found.missing]
    alive = _alive(found, known, devices)
    missing: dict[tuple[Path, int | None], list[Path]] = {}
    for path in {**known, **failures}:
        if path not in kept and _below(path, roots) and not _below(path, unreadable) and not _exists(path):
            missing.setdefault((path.parent, _number(path, devices)), []).append(path)
    suspects: dict[tuple[Path, str], int] = {}
    for (folder, device), paths in missing.items():
        suspect = None if force else _suspicion(folder, alive=(folder, device) in alive, device=device)
        videos = [known[path] for path in paths if path in known]
        if suspect is None:
            result.remove += videos
            result.forget += [path for path in paths if path in failures]
        elif videos:
            suspects[suspect] = suspects.get(suspect, 0) + len(videos)
    for (folder, reason), count in sorted(suspects.items()):
        videos_kept = f"{count} indexed video{' is' if count == 1 else 's are'} kept"
        result.problems.append(
            (folder, f"{reason}: is its disk mounted? {videos_kept}; --prune --force removes what is gone for good")
        )
    result.remove.sort(key=lambda record: os.fsencode(record.path))
    return result


def devices_after(
    devices: Mapping[str, int], found: Scan, *, known: Mapping[Path, VideoRecord], left: Iterable[Path]
) -> dict[str, int]:
    """Compute the device numbers to store after a run.

    Args:
        devices: those stored before.
        known: the indexed videos before the run; left: paths of those after it.

    Returns:
        The number per folder with videos, as it was when they were found last, and per video that was missing while
        another disk was mounted at its folder.
    """
    present = {file.path for file in found.files}
    alive = _alive(found, known, devices)
    current = _devices_of(present)
    after: dict[str, int] = {}
    for path in left:
        folder = str(path.parent)
        number = devices.get(str(path), devices.get(folder))  # as `_number` does
        here = current.get(folder, devices.get(folder))
        if here is not None:
            after[folder] = here
        if number in (None, here) or path in present:
            continue
        if (path.parent, number) not in alive:  # last: it takes the longest
            after[str(path)] = number
    return after


def read_devices(index: Path) -> dict[str, int]:
    """Read the device numbers stored in an index; none where there are none, or they are damaged."""
    try:
        values = json.loads((index / DEVICES_NAME).read_text(encoding="ascii"))
        return {str(folder): int(device) for folder, device in values["devices"].items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}


def save_devices(index: Path, devices: Mapping[str, int]) -> None:
    """Store device numbers in an index; the caller holds the write lock.

    Raises:
        OSError: the file cannot be written.
    """
    if read_devices(index) != devices:
        with publishing(index, DEVICES_NAME):
            write_json_atomic(index / DEVICES_NAME, {"devices": dict(sorted(devices.items()))}, ascii_only=True)


def _devices_of(files: Iterable[Path]) -> dict[str, int]:
    """Read the device number of each folder that contains one of the files."""
    devices = {}
    for folder in {path.parent for path in files}:
        try:
            devices[str(folder)] = _device(folder)
        except OSError:  # it went away meanwhile
            continue
    return devices


def _number(path: Path, devices: Mapping[str, int]) -> int | None:
    """Look up the device that a file was on."""
    return devices.get(str(path), devices.get(str(path.parent)))


def _alive(found: Scan, known: Mapping[Path, VideoRecord], devices: Mapping[str, int]) -> set[tuple[Path, int | None]]:
    """List the (folder, device) of videos that are where they were: that disk is there, whatever its number is now."""
    alive = set()
    for file in found.files:
        record = known.get(file.path)
        if record and (file.size_bytes, file.mtime_ns) == (record.size_bytes, record.mtime_ns):
            alive.add((file.path.parent, _number(file.path, devices)))
    return alive


def _suspicion(folder: Path, *, alive: bool, device: int | None) -> tuple[Path, str] | None:
    """Name why a folder with missing files may be an unmounted disk; None = it is not.

    Args:
        alive: whether another indexed video of its device is in it.
        device: its number when it was indexed.

    Returns:
        The folder to name, and the reason.
    """
    if alive:
        return None
    here = folder
    try:
        while not _exists(here):
            folder, here = here, here.parent
        if not _holds_a_file(here):
            return here, "the folder is empty"
        if folder != here:
            return folder, "the folder is missing"
        if device is not None and device != _device(here):
            return here, "the folder is on another disk than before"
    except OSError as error:
        return here, f"the folder cannot be read ({error.strerror or error})"
    return None


def _device(folder: Path) -> int:
    """Read the number of a folder's file system, which is that of its format where it has one, else of its device.

    Raises:
        OSError: the folder cannot be read.
    """
    of_format = os.statvfs(folder).f_fsid if hasattr(os, "statvfs") else 0
    return of_format or folder.stat().st_dev


def _holds_a_file(folder: Path) -> bool:
    """Whether a folder, or one below it, contains a file that is not hidden: empty folders are where disks are mounted.

    Raises:
        OSError: it cannot be listed.
    """
    with os.scandir(folder):  # `os.walk` hides the error
        pass
    for _, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if any(not name.startswith(".") for name in names):
            return True
    return False


def _below(path: Path, folders: Iterable[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)


def _exists(path: Path) -> bool:
    """Whether a path exists, spelled like this; one that cannot be asked for may."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return as_listed(path) == path
