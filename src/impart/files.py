"""Files and digests: atomic writes, file stamps, the clock, library versions, ordered read-ahead, priority.

A file that exists is complete. Every write goes to a temporary file beside the target, is synced to disk, and is then
renamed to the target; the folder is synced too. A killed process, or a power cut, leaves the old file or the new one.

Digest functions take bytes, or text as UTF-8. Digests are part of artefacts on disk: they must not change.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import itertools
import json
import os
import sys
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from impart.errors import DISTRIBUTION

if TYPE_CHECKING:
    from concurrent.futures import Future

__all__ = [
    "Digest",
    "arrays_fit",
    "atomic_path",
    "blake2b_hex",
    "blake2b_of_file",
    "cache_folder",
    "digest_of",
    "file_key",
    "file_stamp",
    "file_state",
    "library_versions",
    "lower_priority",
    "make_folder",
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
    "sync_together",
    "write_atomic",
    "write_csv_atomic",
    "write_json_atomic",
]

Item = TypeVar("Item")
Result = TypeVar("Result")

_NUMBERS = itertools.count()
_SYNCS = 8  # at the same time
_NO_FOLDER_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES, errno.EPERM}
NICE, _BELOW_NORMAL = 10, 0x4000  # of POSIX: from -20 to 19; of Windows
_VERSIONED = ("impart", "numpy", "pillow", "pyarrow")


@contextlib.contextmanager
def atomic_path(path: Path, *, keep_suffix: bool = False) -> Iterator[Path]:
    """Yield a temporary path; the file written there replaces the target when the block ends without an error.

    Args:
        path: the target; its folder must exist.
        keep_suffix: keep the target's suffix, for libraries that choose the format by it.

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
    """Write a file atomically; text is written as UTF-8, with its line ends unchanged.

    Raises:
        OSError: the file cannot be written.
    """
    with atomic_path(path) as part:
        part.write_bytes(_encoded(content))


def write_json_atomic(path: Path, content: Any, *, indent: int | None = 2, ascii_only: bool = False) -> None:
    """Write a JSON file atomically.

    Raises:
        OSError: the file cannot be written.
    """
    write_atomic(path, json.dumps(content, indent=indent, ensure_ascii=ascii_only) + "\n")


def write_csv_atomic(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]], *, line_end: str = "\n") -> None:
    """Write a CSV file atomically, row by row.

    Raises:
        OSError: the file cannot be written.
    """
    with atomic_path(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator=line_end)
        writer.writerow(header)
        writer.writerows(rows)


def sync(path: Path) -> None:
    """Sync a file, or a folder with all its files, to disk.

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


def sync_together(paths: Collection[Path]) -> None:
    """Sync many files, and entries of folders, at the same time: a disk takes them in one step.

    Args:
        paths: of a folder its entries alone are synced, not its files. A path that is gone is left out.

    Raises:
        OSError: one cannot be synced.
    """
    from concurrent.futures import ThreadPoolExecutor

    def sync_one(path: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            if path.is_dir():
                _sync_folder(path)
            else:
                sync(path)

    if paths:
        with ThreadPoolExecutor(min(len(paths), _SYNCS)) as pool:
            list(pool.map(sync_one, paths))


def make_folder(folder: Path, *, parents: bool = True) -> None:
    """Make a folder where it is missing, and sync the folder that lists it.

    Args:
        parents: also make the folders above.

    Raises:
        OSError: it cannot be made.
    """
    made = [folder]
    while parents and not made[-1].parent.exists():
        made.append(made[-1].parent)
    folder.mkdir(parents=parents, exist_ok=True)
    for one in reversed(made):
        _sync_folder(one.parent)


def move_synced(source: Path, target: Path) -> None:
    """Sync a complete file, or a folder with all its files, and rename it to the target.

    Both must be on one file system. A target file is replaced; a target folder must not exist.

    Raises:
        OSError: it cannot be synced or renamed.
    """
    sync(source)
    os.replace(source, target)  # noqa: PTH105 - the one place that replaces files
    _sync_folder(target.parent)
    if source.parent != target.parent:
        _sync_folder(source.parent)


def _sync_folder(path: Path) -> None:
    """Sync the entries of a folder; a no-op where folders cannot be opened or synced."""
    if os.name == "nt":
        return
    try:
        number = os.open(path, os.O_RDONLY)
    except PermissionError:  # the folder is writable but not readable
        return
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(number)


def arrays_fit(arrays: Mapping[str, Any], layout: Mapping[str, tuple[str, tuple[int | str, ...]]]) -> bool:
    """Whether stored arrays have the kinds of numbers and the shapes of a layout.

    Args:
        arrays: by name.
        layout: by name, kind (`f`, `i`, `U` of NumPy) and shape; equal letters in shapes are equal sizes.

    Example:
        >>> import numpy as np
        >>> stored = {"ids": np.zeros((3, 8), np.int32), "sims": np.zeros((3, 8))}
        >>> arrays_fit(stored, {"ids": ("i", ("n", 8)), "sims": ("f", ("n", 8))})
        True
        >>> arrays_fit(stored, {"ids": ("i", ("n", 5)), "sims": ("f", ("n", 5))})
        False
    """
    sizes: dict[str, int] = {}
    for name, (kind, shape) in layout.items():
        array = arrays.get(name)
        if array is None or array.dtype.kind != kind or array.ndim != len(shape):
            return False
        for size, wanted in zip(array.shape, shape, strict=True):
            if size != (sizes.setdefault(wanted, size) if isinstance(wanted, str) else wanted):
                return False
    return True


def remove_stale(folder: Path, patterns: Iterable[str], *, keep: Collection[str]) -> None:
    """Remove the files that match a glob pattern, except stems in `keep`. Files that cannot be removed are kept."""
    for stale in [path for pattern in patterns for path in folder.glob(pattern)]:
        if stale.stem not in keep:
            with contextlib.suppress(OSError):
                stale.unlink()


class Digest(Protocol):
    """A digest that is updated piece by piece."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Add the next bytes."""

    def digest(self) -> bytes:
        """Return the digest of all bytes so far."""

    def hexdigest(self) -> str:
        """Return the digest of all bytes so far, in hex digits."""


def new_sha256(*parts: bytes | str) -> Digest:
    """Start a SHA-256 digest with the given parts."""
    return _updated(hashlib.sha256(), parts)


def new_blake2b(*parts: bytes | str, size_bytes: int = 16) -> Digest:
    """Start a BLAKE2b digest with the given parts."""
    return _updated(hashlib.blake2b(digest_size=size_bytes), parts)


def sha256_hex(*parts: bytes | str) -> str:
    """Compute the SHA-256 of the joined parts, in 64 hex digits.

    >>> sha256_hex("a", b"b") == sha256_hex("ab")
    True
    """
    return new_sha256(*parts).hexdigest()


def sha256_int(part: bytes | str) -> int:
    """Compute the first 64 bits of a SHA-256: 15 million items collide with a probability of 6 in a million."""
    return int.from_bytes(new_sha256(part).digest()[:8], "big")


def sha256_of_file(path: Path) -> str:
    """Compute the SHA-256 of a file in 64 hex digits, without loading it into memory.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def blake2b_hex(*parts: bytes | str, size_bytes: int = 16) -> str:
    """Compute the BLAKE2b of the joined parts, two hex digits per byte."""
    return new_blake2b(*parts, size_bytes=size_bytes).hexdigest()


def blake2b_of_file(path: Path, *, size_bytes: int = 16) -> bytes:
    """Compute the BLAKE2b of a file, without loading it into memory.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=size_bytes)).digest()


def digest_of(parts: Iterable[str]) -> str:
    """Compute the SHA-256 of a list of texts. Each has its length prefixed, so that different lists differ.

    >>> digest_of(["ab", "c"]) == digest_of(["a", "bc"])
    False
    """
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part)} {part} ".encode())
    return digest.hexdigest()


def _encoded(part: bytes | str) -> bytes:
    return part.encode() if isinstance(part, str) else part


def _updated(digest: Digest, parts: Iterable[bytes | str]) -> Digest:
    for part in parts:
        digest.update(_encoded(part))
    return digest


def file_state(path: Path) -> str:
    """Return size in bytes and modification time in ns of a file; empty for a missing file."""
    try:
        status = path.stat()
    except OSError:
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"


def file_stamp(path: Path) -> str:
    """Return resolved path, size and modification time of a file; a missing file has its own stamp."""
    return f"{path.resolve()} {file_state(path) or 'missing'}"


def file_key(path: Path) -> str:
    """Compute a key of a file from path, size and modification time, in 32 hex digits."""
    return sha256_hex(f"{path.absolute()}|{file_state(path)}")[:32]


def cache_folder() -> Path:
    """Return the folder for what can be made again: `IMPART_CACHE`, else `impart` in the user's cache folder."""
    if chosen := os.environ.get("IMPART_CACHE"):
        return Path(chosen)
    home = os.environ.get("LOCALAPPDATA") or os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "impart"


def now() -> str:
    """Return the current time in UTC, ISO 8601, to the second."""
    from datetime import UTC, datetime

    return datetime.now(UTC).isoformat(timespec="seconds")


def lower_priority(nice: int = NICE) -> None:
    """Give way to other programs: this process, and those that it starts, get the processor and the disk after them.

    On Linux the schedulers of disks follow the priority of the process.

    Args:
        nice: how much lower, as of the command `nice`. Windows knows one lower priority.
    """
    if sys.platform == "win32":
        import ctypes

        kernel = ctypes.windll.kernel32
        kernel.SetPriorityClass(kernel.GetCurrentProcess(), _BELOW_NORMAL)
    else:
        os.nice(nice)


def library_versions(names: Sequence[str] = _VERSIONED) -> dict[str, str]:
    """Return the installed versions of libraries; by default of those that determine a reference set's content."""
    from importlib import metadata

    return {name: metadata.version(DISTRIBUTION if name == "impart" else name) for name in names}


def read_ahead(
    items: Iterable[Item], function: Callable[[Item], Result], *, workers: int, ahead: int
) -> Generator[Result, None, None]:
    """Apply a function to items in threads, and yield the results in the order of the items.

    Items are read in the caller's thread, at most `ahead` beyond the last result. Wrap the generator in
    `contextlib.closing` where the loop may end early: closing cancels calls that have not started and waits for the
    others.

    Args:
        items: any iterable, also an endless one.
        function: called in a worker thread; its exception is raised instead of its result.
        workers: number of threads.
        ahead: largest number of items that are in work or have a waiting result.

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
