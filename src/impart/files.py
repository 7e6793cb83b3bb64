"""Files and digests: atomic writes, file stamps, the clock, library versions, and ordered read-ahead.

A file that is there is whole. Every write goes to a temporary name beside the target, is synced to disk, and then takes
the target's name; the folder is synced too. A killed process, or a power cut, leaves the old file or the new one.

Digest functions take bytes, or text as UTF-8. Their values are part of artefacts on disk and must not change.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import itertools
import json
import os
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future

__all__ = [
    "Digest",
    "atomic_path",
    "blake2b_hex",
    "blake2b_of_file",
    "digest_of",
    "file_key",
    "file_stamp",
    "file_state",
    "library_versions",
    "move_synced",
    "new_blake2b",
    "new_sha256",
    "now",
    "read_ahead",
    "remove_stale",
    "sha256_hex",
    "sha256_int",
    "sha256_of_file",
    "sync",
    "write_atomic",
    "write_csv_atomic",
    "write_json_atomic",
]

Item = TypeVar("Item")
Result = TypeVar("Result")

_NUMBERS = itertools.count()
_NO_FOLDER_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES, errno.EPERM}
_VERSIONED = ("impart", "numpy", "pillow", "pyarrow")


@contextlib.contextmanager
def atomic_path(path: Path, *, keep_suffix: bool = False) -> Iterator[Path]:
    """Write a file at a temporary path, which replaces the target when the block ends without an error.

    Args:
        path: the target; its folder must be there.
        keep_suffix: end the temporary name like the target, for libraries that choose a format by it.

    Yields:
        The temporary path, in the same folder. It is removed when the block raises.

    Raises:
        OSError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> target = Path(folder.name) / "figures.txt"
        >>> with atomic_path(target) as part:
        ...     _ = part.write_text("42", encoding="utf-8")
        ...     target.exists()
        False
        >>> target.read_text(encoding="utf-8")
        '42'
        >>> folder.cleanup()
    """
    suffix = path.suffix if keep_suffix else ""
    part = path.with_name(f".{path.name}.{os.getpid()}-{next(_NUMBERS)}.part{suffix}")
    try:
        yield part
        move_synced(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def write_atomic(path: Path, content: bytes | str) -> None:
    """Replace a file by new content in one step; text is written as UTF-8, line ends as they are.

    Raises:
        OSError: the file cannot be written.
    """
    with atomic_path(path) as part:
        part.write_bytes(_encoded(content))


def write_json_atomic(path: Path, content: Any, *, indent: int | None = 2, ascii_only: bool = False) -> None:
    """Replace a JSON file in one step.

    Raises:
        OSError: the file cannot be written.
    """
    write_atomic(path, json.dumps(content, indent=indent, ensure_ascii=ascii_only) + "\n")


def write_csv_atomic(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]], *, line_end: str = "\n") -> None:
    """Replace a CSV file in one step; rows are written as they come.

    Raises:
        OSError: the file cannot be written.
    """
    with atomic_path(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator=line_end)
        writer.writerow(header)
        writer.writerows(rows)


def sync(path: Path) -> None:
    """Wait until a file, or a folder with everything in it, is on disk.

    Raises:
        OSError: a file cannot be synced.
    """
    if not path.is_dir():
        with path.open("rb+") as file:
            os.fsync(file.fileno())
        return
    for folder, _, names in os.walk(path):
        for name in names:
            sync(Path(folder) / name)
        _sync_folder(Path(folder))


def move_synced(source: Path, target: Path) -> None:
    """Sync a finished file, or a folder with everything in it, and give it the target's name.

    Both must lie on one file system. A target file is replaced; a target folder must not be there.

    Raises:
        OSError: it cannot be synced or moved.
    """
    sync(source)
    os.replace(source, target)  # noqa: PTH105 - the one place that replaces files
    _sync_folder(target.parent)
    if source.parent != target.parent:
        _sync_folder(source.parent)


def _sync_folder(path: Path) -> None:
    """Wait until a folder's entries are on disk; a no-op where folders cannot be opened or synced."""
    if os.name == "nt":
        return
    try:
        number = os.open(path, os.O_RDONLY)
    except PermissionError:  # a folder that may be written to but not read
        return
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(number)


def remove_stale(folder: Path, patterns: Iterable[str], *, keep: Collection[str]) -> None:
    """Remove the files that match any glob pattern, except stems in `keep`; one that cannot be removed stays."""
    for stale in [path for pattern in patterns for path in folder.glob(pattern)]:
        if stale.stem not in keep:
            with contextlib.suppress(OSError):
                stale.unlink()


class Digest(Protocol):
    """A digest that is fed piece by piece."""

    def update(self, data: bytes, /) -> None:
        """Feed the next bytes."""

    def digest(self) -> bytes:
        """Digest of everything so far."""

    def hexdigest(self) -> str:
        """Digest of everything so far, in hex digits."""


def new_sha256(*parts: bytes | str) -> Digest:
    """Start a SHA-256 digest, fed with the parts."""
    return _fed(hashlib.sha256(), parts)


def new_blake2b(*parts: bytes | str, size_bytes: int = 16) -> Digest:
    """Start a BLAKE2b digest of a size, fed with the parts."""
    return _fed(hashlib.blake2b(digest_size=size_bytes), parts)


def sha256_hex(*parts: bytes | str) -> str:
    """SHA-256 of the parts joined, in 64 hex digits.

    >>> sha256_hex("a", b"b") == sha256_hex("ab")
    True
    """
    return new_sha256(*parts).hexdigest()


def sha256_int(part: bytes | str) -> int:
    """First 64 bits of a SHA-256: of 15 million different items, two meet with a chance of 6 in a million."""
    return int.from_bytes(new_sha256(part).digest()[:8], "big")


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in 64 hex digits; the file is not held in memory.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def blake2b_hex(*parts: bytes | str, size_bytes: int = 16) -> str:
    """BLAKE2b of the parts joined, two hex digits per byte."""
    return new_blake2b(*parts, size_bytes=size_bytes).hexdigest()


def blake2b_of_file(path: Path, *, size_bytes: int = 16) -> bytes:
    """BLAKE2b of a file's bytes; the file is not held in memory.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=size_bytes)).digest()


def digest_of(parts: Iterable[str]) -> str:
    """SHA-256 over texts, each with its length, so that no two lists collide.

    >>> digest_of(["ab", "c"]) == digest_of(["a", "bc"])
    False
    """
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part)} {part} ".encode())
    return digest.hexdigest()


def _encoded(part: bytes | str) -> bytes:
    return part.encode() if isinstance(part, str) else part


def _fed(digest: Digest, parts: Iterable[bytes | str]) -> Digest:
    for part in parts:
        digest.update(_encoded(part))
    return digest


def file_state(path: Path) -> str:
    """Size in bytes and time of change in ns of a file; empty where there is none."""
    try:
        status = path.stat()
    except OSError:
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"


def file_stamp(path: Path) -> str:
    """Resolved path, size and time of change of a file; a missing one has a stamp of its own."""
    return f"{path.resolve()} {file_state(path) or 'missing'}"


def file_key(path: Path) -> str:
    """Key of a file in 32 hex digits: where it is, its size and time of change; a replaced file has another key."""
    return sha256_hex(f"{path.absolute()}|{file_state(path)}")[:32]


def now() -> str:
    """The current time, ISO 8601 in UTC, to the second."""
    from datetime import UTC, datetime

    return datetime.now(UTC).isoformat(timespec="seconds")


def library_versions(names: Sequence[str] = _VERSIONED) -> dict[str, str]:
    """Installed versions of libraries that determine an artefact's content; by default those of a reference set."""
    from importlib import metadata

    return {name: metadata.version(name) for name in names}


def read_ahead(
    items: Iterable[Item], function: Callable[[Item], Result], *, workers: int, ahead: int
) -> Generator[Result, None, None]:
    """Apply a function to items in threads, and yield the results in the items' order.

    Items are taken in the caller's thread, never more than `ahead` beyond the last result taken. Wrap the iterator in
    `contextlib.closing` where the loop may end early: closing drops what has not begun and waits for what has.

    Args:
        items: any iterable, also an endless one.
        function: called in a worker thread; what it raises is raised in the place of its result.
        workers: threads.
        ahead: items in work or finished and waiting, at most.

    Example:
        >>> list(read_ahead(range(5), lambda n: n * n, workers=2, ahead=3))
        [0, 1, 4, 9, 16]
    """
    assert workers >= 1, workers
    assert ahead >= 1, ahead
    from concurrent.futures import ThreadPoolExecutor

    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
