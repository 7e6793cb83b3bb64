"""Scan: walk folders for video files in a fixed order, and hash content to recognise moved files."""

from __future__ import annotations

import errno
import functools
import os
import stat
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from impart.files import new_blake2b

__all__ = ["VIDEO_SUFFIXES", "FoundFile", "Scan", "absolute", "as_listed", "content_hash", "scan"]

_SUFFIXES = """
    3g2 3gp amv asf avi divx dv f4v flv gif h264 h265 hevc ivf m1v m2t m2ts m2v m4v mjpeg mjpg mkv mov mp4 mp4v mpe
    mpeg mpg mpv mts mxf nsv nut obu ogm ogv qt rm rmvb tod ts vob webm wmv wtv y4m
"""
VIDEO_SUFFIXES = frozenset(f".{name}" for name in _SUFFIXES.split())
"""Suffixes of the files taken from folders, in upper or lower case; a file given explicitly needs none of them."""

_SPECIAL = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_TS_PACKET_BYTES = 188
_BLOCK_BYTES = 1 << 16
_MIDDLE_BLOCKS = 14


@dataclass(frozen=True, kw_only=True)
class FoundFile:
    """A video file. `problem`: why it cannot be opened at all (a broken symbolic link), or None."""

    path: Path
    size_bytes: int
    mtime_ns: int
    problem: str | None = None


@dataclass(kw_only=True)
class Scan:
    """Result of a walk.

    Attributes:
        files: sorted by path, each once.
        problems: (path, reason) of given paths that do not exist and of folders that cannot be read.
        roots: given paths that could be read: pruning below them is safe.
        missing: given paths that do not exist; they are problems too.
    """

    files: list[FoundFile] = field(default_factory=list)
    problems: list[tuple[Path, str]] = field(default_factory=list)
    roots: list[Path] = field(default_factory=list)
    missing: list[Path] = field(default_factory=list)


def scan(paths: Iterable[str | os.PathLike[str]]) -> Scan:
    """Walk files and folders, recursively and sorted.

    Hidden files and folders (`.name`) below a given path are skipped. A folder is entered once, however many symbolic
    links point to it. Paths are made absolute by `absolute`, so that a link and its target are two entries.
    """
    result = Scan()
    found: dict[Path, FoundFile] = {}
    entered: set[tuple[int, int]] = set()
    for given in paths:
        path = absolute(given)
        try:
            info = path.stat()
        except OSError as error:
            result.problems.append((path, f"cannot be found: {_reason(error)}"))
            if isinstance(error, FileNotFoundError):
                result.missing.append(path)
            continue
        if not stat.S_ISDIR(info.st_mode):
            if not stat.S_ISREG(info.st_mode):
                kind = next((name for is_one, name in _SPECIAL if is_one(info.st_mode)), "no file")
                result.problems.append((path, f"is {kind}: give video files, and folders with videos"))
                continue
            found[path] = FoundFile(path=path, size_bytes=info.st_size, mtime_ns=info.st_mtime_ns)
            result.roots.append(path)
            continue
        root = as_listed(path.resolve())
        problems_before = len(result.problems)
        for item in _walk(root, entered=entered, problems=result.problems):
            found[item.path] = item
        if not any(problem_path == root for problem_path, _ in result.problems[problems_before:]):
            result.roots.append(root)
    result.files = sorted(found.values(), key=lambda item: os.fsencode(item.path))
    return result


def content_hash(path: Path) -> str:
    """Hash the size and parts of the content of a file, to recognise it when it was moved or copied.

    Reads at most 1 MiB: the first and last 64 KiB and 14 blocks of 64 KiB evenly spaced between them; a small file
    whole. Two files with the same size and the same blocks are taken as equal. A change outside the blocks that keeps
    the size is detected only by the file's time.

    Raises:
        OSError: the file cannot be read.
    """
    digest = new_blake2b()
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest.update(size.to_bytes(8, "little"))
        blocks = _MIDDLE_BLOCKS + 2
        if size <= blocks * _BLOCK_BYTES:
            digest.update(file.read())
        else:
            last = size - _BLOCK_BYTES
            for i in range(blocks):
                file.seek(last * i // (blocks - 1))
                digest.update(file.read(_BLOCK_BYTES))
    return digest.hexdigest()


def absolute(given: str | os.PathLike[str]) -> Path:
    """Make a path absolute; resolve symbolic links in its folder part, not in its last part.

    On a disk that ignores case, names are spelled as the disk lists them: a file has one path, however it is given.
    """
    path = Path(os.path.abspath(os.path.expanduser(given)))  # noqa: PTH100, PTH111 - pathlib keeps `..`
    return as_listed(Path(os.path.realpath(path.parent)) / path.name) if path.name else path


def as_listed(path: Path) -> Path:
    """Spell each name of an absolute path as its folder lists it; only a disk that ignores case changes it."""
    listed = Path(path.anchor)
    for name in path.parts[1:]:
        listed /= _listed_name(listed, name)
    return listed


def _listed_name(folder: Path, name: str) -> str:
    """Find the name of an existing entry in the listing of its folder; the name itself where that fails."""
    try:
        (folder / name).lstat()
        (folder / name.swapcase()).lstat()  # fails where the disk distinguishes case
        alike = _names_of(folder, folder.stat().st_mtime_ns).get(_folded(name), [name])
    except OSError:
        return name
    # Inode numbers are no help: some FUSE disks give each spelling its own.
    return name if name in alike else alike[0]


@functools.lru_cache(maxsize=64)
def _names_of(folder: Path, _mtime_ns: int) -> dict[str, list[str]]:
    """List a folder, by folded name."""
    names: dict[str, list[str]] = {}
    for name in os.listdir(folder):  # noqa: PTH208 - many names
        names.setdefault(_folded(name), []).append(name)
    return names


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _walk(root: Path, *, entered: set[tuple[int, int]], problems: list[tuple[Path, str]]) -> Iterator[FoundFile]:
    """Find the video files below `root`, with an explicit stack: folders may be deeper than Python's recursion."""
    stack = [root]
    while stack:
        folder = stack.pop()
        try:
            info = folder.stat()
            if (info.st_dev, info.st_ino) in entered:
                continue
            entered.add((info.st_dev, info.st_ino))
            with os.scandir(folder) as listing:
                entries = [entry for entry in listing if not entry.name.startswith(".")]
        except OSError as error:
            problems.append((folder, f"the folder cannot be read: {_reason(error)}"))
            continue
        for entry in entries:
            path = Path(entry.path)
            suffix_known = os.path.splitext(entry.name)[1].lower() in VIDEO_SUFFIXES  # noqa: PTH122 - a path is slow
            try:
                if entry.is_dir():
                    stack.append(as_listed(path.resolve()) if entry.is_symlink() else path)
                elif suffix_known:
                    info = entry.stat()
                    if stat.S_ISREG(info.st_mode) and not _is_typescript(path):
                        yield FoundFile(path=path, size_bytes=info.st_size, mtime_ns=info.st_mtime_ns)
            except OSError as error:
                if suffix_known:
                    yield _unreachable(path, error)


def _is_typescript(path: Path) -> bool:
    """Whether a `.ts` file is TypeScript: an MPEG transport stream has a sync byte every 188 bytes."""
    if path.suffix.lower() != ".ts":
        return False
    with path.open("rb") as file:
        head = file.read(_TS_PACKET_BYTES + 1)
    return bool(head) and not (head[0] == head[-1] == 0x47)


def _unreachable(path: Path, error: OSError) -> FoundFile:
    try:
        info = path.lstat()
    except OSError:  # deleted meanwhile
        return FoundFile(path=path, size_bytes=0, mtime_ns=0, problem=_reason(error))
    return FoundFile(path=path, size_bytes=info.st_size, mtime_ns=info.st_mtime_ns, problem=_reason(error))


def _reason(error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "its symbolic links form a circle"
    return error.strerror or str(error)
