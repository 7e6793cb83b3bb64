"""Lock of a video index: one process writes at a time. The system releases it when the process dies."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from impart.errors import IndexLockedError, VideoIndexError
from impart.video.index.pause import is_paused
from impart.video.index.remote.claim import claimed, is_claimed
from impart.video.index.remote.location import location_of

__all__ = ["check_hard_links", "is_locked", "write_lock"]

PROBE = ".impart-"
_LOCK_WAIT_S = 0.2
"""A test whether the lock is held (`is_locked`) holds it for a moment: a writer waits that long before it gives up."""


def is_locked(folder: Path) -> bool:
    """Whether a process is writing to the index in `folder`."""
    from filelock import FileLock, Timeout

    lock = FileLock(str(folder / ".lock"), timeout=0)
    try:
        if (folder / ".lock").exists():
            lock.acquire()
            lock.release()
    except Timeout:
        return True
    except (OSError, NotImplementedError):
        return False  # nobody can hold a lock that cannot be taken here
    return is_claimed(folder)


@contextmanager
def write_lock(folder: Path, *, wait_s: float = _LOCK_WAIT_S) -> Iterator[None]:
    """Hold the lock of the index in `folder`, which must exist; the system releases it when the process dies.

    Args:
        wait_s: for another process that holds it.

    Raises:
        IndexLockedError: another process, or another object of this one, holds it.
        VideoIndexError: the folder cannot be written, or its file system has no hard links.
    """
    from filelock import FileLock, Timeout

    check_hard_links(folder)
    moved = f"there is no folder {folder}: was the index moved? Give its new place (--index DIR)"
    place = _inode(folder)
    if place is None:  # the lock would make it
        raise VideoIndexError(moved)
    lock = FileLock(str(folder / ".lock"), timeout=wait_s)
    try:
        lock.acquire()
    except Timeout as error:
        remedy = "wait until it is done (searching works meanwhile), or stop it and try again"
        if is_paused(folder):
            remedy = "it is paused, until impart resume. Let it go on, or stop it and try again"
        raise IndexLockedError(f"another process is writing to the index {folder}: {remedy}") from error
    except (OSError, NotImplementedError) as error:
        raise VideoIndexError(f"cannot lock the index {folder} for writing: {error}") from error
    try:
        if _inode(folder) != place:  # it was moved at this moment, and the lock has made another one
            lock.release()
            with suppress(OSError):
                (folder / ".lock").unlink(missing_ok=True)
                folder.rmdir()
            raise VideoIndexError(moved)
        with claimed(folder, "writer", wait_s=wait_s):
            yield
    finally:
        lock.release()


def _inode(folder: Path) -> int | None:
    try:
        return folder.stat().st_ino
    except OSError:
        return None


def check_hard_links(folder: Path) -> None:
    """Refuse a folder, which need not exist yet, on a file system without hard links; Lance commits with them.

    Raises:
        VideoIndexError: names the remedy.
    """
    if location_of(folder) is not None:  # object storage needs none
        return
    try:
        while not folder.exists():
            folder = folder.parent
        number, made = tempfile.mkstemp(prefix=PROBE, dir=folder)
        os.close(number)
    except OSError:  # it cannot be written: this is told where it is
        return
    linked = Path(f"{made}.link")
    try:
        os.link(made, linked)
    except OSError as error:
        raise VideoIndexError(
            f"{folder} is on a file system without hard links (exFAT, FAT, some network and FUSE disks), which a video "
            "index needs: choose a folder on another disk, such as --index ~/library.impart; the videos may stay where "
            "they are. An index that was copied here can be searched, but not changed"
        ) from error
    finally:
        linked.unlink(missing_ok=True)
        Path(made).unlink(missing_ok=True)
