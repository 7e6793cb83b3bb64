"""Roots: the folders that indexing jobs may read."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

from impart.serve.jobs.refusal import JobRefusedError

__all__ = ["check_folders", "top_folders"]


def top_folders(files: Iterable[Path]) -> list[Path]:
    """Find the smallest list of folders that contain all files: a folder below another one of the list is left out.

    >>> [folder.as_posix() for folder in top_folders(map(Path, ["/a/x.mp4", "/a/b/y.mp4", "/c/d/z.mp4", "/c/e/w.mp4"]))]
    ['/a', '/c/d', '/c/e']
    """
    folders = {file.parent for file in files}
    return sorted(folder for folder in folders if not any(parent in folders for parent in folder.parents))


def check_folders(paths: Sequence[str], roots: Sequence[Path]) -> tuple[Path, ...]:
    """Check that paths are existing folders inside the roots.

    A path outside the roots is refused before the disk is asked, so that the answer tells nothing about other folders.

    Args:
        paths: absolute, as texts.

    Returns:
        The folders, with their symbolic links followed.

    Raises:
        JobRefusedError: a path is relative, has `..`, leads out of the roots, or is no folder; names the roots and
            the remedy.
    """
    real = [Path(os.path.realpath(root)) for root in roots]
    return tuple(_checked(path, [*roots, *real], real) for path in paths)


def _checked(text: str, spelled: Sequence[Path], real: Sequence[Path]) -> Path:
    path = Path(text)
    if "\0" in text or not path.is_absolute() or ".." in path.parts:
        raise _refused(text, "must be an absolute path without '..'", spelled, real)
    if not any(path.is_relative_to(root) for root in spelled):
        raise _refused(text, "is outside the folders that this server may index", spelled, real)
    try:
        found = path.resolve(strict=True)
        is_folder = stat.S_ISDIR(found.stat().st_mode)
    except (OSError, ValueError, RuntimeError):
        raise _refused(text, "cannot be found", spelled, real) from None
    if not any(found.is_relative_to(root) for root in real):
        raise _refused(text, "leads out of the folders that this server may index", spelled, real)
    if not is_folder:
        raise _refused(text, "is a file: give its folder", spelled, real)
    return found


def _refused(text: str, reason: str, spelled: Sequence[Path], real: Sequence[Path]) -> JobRefusedError:
    roots = spelled[: len(spelled) - len(real)]
    named = ", ".join(str(root) for root in roots) or "none yet"
    shown = text if len(text) <= 200 else f"{text[:200]}..."
    return JobRefusedError(
        f"the path {shown!r} {reason}. Folders that may be indexed: {named}. To permit another one, start the server "
        "with: impart serve --root FOLDER",
        status=403,
        code="outside_roots",
    )
