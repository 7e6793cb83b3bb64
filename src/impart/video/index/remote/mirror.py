"""Mirror of an index on object storage: the small files in a folder of this machine, the same as in the bucket.

    manifest.json, manifest.copy.json, folders.json, paused.json, names-clusters.json
    references/  rams/  names/  faces/  crops/

The bucket has the files that count. `refresh` copies what has changed there, the manifests last; it also undoes what a
killed process wrote here and did not upload. `publishing` uploads what has changed here, the manifests last. A lock on
the folder keeps processes of this machine apart. Tables are read and written at the URL, never through the mirror.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from impart.errors import IndexLockedError, VideoIndexError
from impart.files import write_atomic, write_json_atomic
from impart.video.index.remote.bucket import Bucket, Entry
from impart.video.index.remote.location import Location, location_of

__all__ = ["FRESH_S", "Mirror", "mirror_of", "publishing", "refreshed"]

FRESH_S = 0.25
"""Age up to which an answer of the server is taken again: one search asks once."""
LISTED_S = 10.0
"""Changes of other files (faces, crops, a pause) are seen after this time at the latest."""

_MANIFESTS = ("names/manifest.json", "manifest.json", "manifest.copy.json")
"""Written last, in this order: a manifest never names what is not there yet."""
_CHANGING = ("folders.json", "paused.json", "names-clusters.json", "faces/videos.npz", "faces/examples.npz")
"""Files that are replaced under the same name; the names of others contain a digest."""
_FOLDERS = ("references", "rams", "names", "faces", "crops")
_ROWS = "videos.lance"
_RECORD, _LOCK = ".mirror.json", ".mirror.lock"
_WAIT_S, _FIRST_WAIT_S = 0.2, 60.0
_TRIES = 5
_LONG_AGO = -1e9
_MIRRORS: dict[str, Mirror] = {}
_MAKING = threading.Lock()


@dataclass(frozen=True)
class _Known:
    """A file that is the same here and in the bucket.

    Attributes:
        tag: of the object, empty where its name tells its content.
        size_bytes, modified_s: of the object; local: size and time of the file.
    """

    tag: str
    size_bytes: int
    modified_s: float
    local: tuple[int, int]


class Mirror:
    """The small files of one index on object storage. May be shared by threads.

    Attributes:
        versions: names of the versions of `videos`, as of the last `refresh`.
    """

    def __init__(self, folder: Path, location: Location) -> None:
        from filelock import FileLock

        self.folder, self.location = folder, location
        self.bucket = Bucket(location)
        self.versions: tuple[str, ...] = ()
        self._threads = threading.RLock()
        self._file_lock = FileLock(str(folder / _LOCK), thread_local=False)
        self._publishing = 0
        self._known: dict[str, _Known] = {}
        self._asked_at = self._listed_at = _LONG_AGO

    def refresh(self, *, max_age_s: float = 0.0, whole: bool = False) -> None:
        """Copy what has changed in the bucket.

        Args:
            max_age_s: nothing is asked where the last answer is not older.
            whole: also list the files other than the manifests.

        Raises:
            VideoIndexError: the server does not answer, or refuses; names the remedy.
        """
        with self._threads:
            if self._publishing or (not whole and time.monotonic() - self._asked_at <= max_age_s):
                return
            tags, self.versions = self._newest()
            whole = whole or time.monotonic() - self._listed_at > LISTED_S
            with self._locked(_WAIT_S if (self.folder / _MANIFESTS[1]).exists() else _FIRST_WAIT_S) as locked:
                if locked:  # else another process is uploading: the files are those of the last time
                    self._load()
                    if whole or any(not self._is_same(name, tag) for name, tag in tags.items()):
                        self._pull()
            self._asked_at = time.monotonic()

    def forget(self) -> None:
        """Ask again at the next `refresh`: a table was changed."""
        self._asked_at = _LONG_AGO

    @contextmanager
    def publishing(self, *names: str) -> Iterator[None]:
        """Upload files that the block changes; where it raises, they are taken back by the next `refresh`.

        Args:
            names: of the files, or of their folders.

        Raises:
            VideoIndexError: they cannot be uploaded.
        """
        with self._threads, self._locked(_FIRST_WAIT_S) as locked:
            if not locked:
                raise IndexLockedError(f"another process is writing to the local folder {self.folder}: try again")
            self._publishing += 1
            try:
                yield
                self._load()
                self._push(names)
            finally:
                self._publishing -= 1
                self.forget()

    def tables(self) -> list[str]:
        """List the names of the tables."""
        return [name.removesuffix(".lance") for name in self.bucket.list()[1] if name.endswith(".lance")]

    def names(self) -> list[str]:
        """List the files and folders of the index, in the bucket."""
        files, folders = self.bucket.list()
        return [*files, *folders]

    def has_rows(self) -> bool:
        """Whether the table of videos has data."""
        return bool(self.bucket.list(f"{_ROWS}/data")[0])

    def sizes(self, folder: str) -> dict[str, int]:
        """List the bytes of all files below a folder."""
        return {name: entry.size_bytes for name, entry in self.bucket.list(folder, recursive=True)[0].items()}

    def _newest(self) -> tuple[dict[str, str | None], tuple[str, ...]]:
        """Ask for the tags of the manifests and the versions of `videos`, at once."""
        with ThreadPoolExecutor(3, thread_name_prefix="impart-remote") as pool:
            asked = {name: pool.submit(self.bucket.tag, name) for name in _MANIFESTS[:2]}
            versions = pool.submit(self.bucket.list, f"{_ROWS}/_versions")
            return {name: one.result() for name, one in asked.items()}, tuple(sorted(versions.result()[0]))

    def _pull(self) -> None:
        for _ in range(_TRIES):
            with suppress(FileNotFoundError):  # replaced meanwhile
                if self._pull_once():
                    return
        raise VideoIndexError(f"the index {self.location.url} is changed again and again: try again later")

    def _pull_once(self) -> bool:
        """Copy the files; returns whether the manifests are still those that were copied."""
        contents: dict[str, tuple[bytes, str]] = {}
        for name in _MANIFESTS:
            with suppress(FileNotFoundError):
                contents[name] = self.bucket.read(name)
        files, folders = self.bucket.list()
        for folder in folders:
            if folder in _FOLDERS:
                files |= self.bucket.list(folder, recursive=True)[0]
        files = {name: entry for name, entry in files.items() if _is_managed(name)}
        changed = False
        try:
            for name, entry in files.items():
                if name not in _MANIFESTS:
                    self._fetch(name, entry)
            for name, (content, tag) in contents.items():
                if not self._is_same(name, tag):
                    changed = True
                    (self.folder / name).parent.mkdir(exist_ok=True)
                    write_atomic(self.folder / name, content)
                    self._known[name] = _Known(tag, len(content), 0.0, _stamp(self.folder / name) or (0, 0))
            for name in self._local():
                if name not in files and name not in contents:
                    (self.folder / name).unlink(missing_ok=True)
            self._known = {name: known for name, known in self._known.items() if name in files or name in contents}
        except OSError as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise VideoIndexError(f"cannot write the local folder {os.fspath(self.folder)}: {error}") from error
        finally:
            self._save()
        self._listed_at = time.monotonic()
        if not changed:
            return True
        tags, self.versions = self._newest()
        return all(self._is_same(name, tag) for name, tag in tags.items())

    def _fetch(self, name: str, entry: Entry) -> None:
        """Copy a file, unless it is the same here."""
        path, known = self.folder / name, self._known.get(name)
        here = known is not None and known.local == _stamp(path) and known.size_bytes == entry.size_bytes
        if name not in _CHANGING:
            if here and known is not None and (known.modified_s in (0.0, entry.modified_s)):
                return
        elif here and known is not None and known.tag and self.bucket.tag(name) == known.tag:
            return
        tag = self.bucket.download(name, path)
        self._known[name] = _Known(tag, entry.size_bytes, entry.modified_s, _stamp(path) or (0, 0))

    def _push(self, scopes: tuple[str, ...]) -> None:
        local = {name: stamp for name, stamp in self._local().items() if _within(name, scopes)}
        new = [name for name, stamp in local.items() if name not in self._known or self._known[name].local != stamp]
        order = {name: number for number, name in enumerate(_MANIFESTS, 1)}
        gone = [name for name in self._known if _within(name, scopes) and name not in local]
        try:
            for name in sorted(new, key=lambda name: (order.get(name, 0), name.endswith("manifest.json"), name)):
                self.bucket.upload(self.folder / name, name)
                tag = self.bucket.tag(name) if name in _CHANGING or name in _MANIFESTS else ""
                self._known[name] = _Known(tag or "", local[name][0], 0.0, local[name])
            for name in gone:
                self.bucket.delete(name)
                del self._known[name]
        finally:
            self._save()

    def _is_same(self, name: str, tag: str | None) -> bool:
        """Whether a manifest is the same here as in the bucket."""
        known, stamp = self._known.get(name), _stamp(self.folder / name)
        if tag is None or known is None:
            return tag is None and known is None and stamp is None
        return known.tag == tag and known.local == stamp

    def _local(self) -> dict[str, tuple[int, int]]:
        """List the files of the mirror that belong in the bucket, with size and time."""
        paths = list(self.folder.iterdir())
        for name in _FOLDERS:
            paths += (self.folder / name).rglob("*")
        names = {path.relative_to(self.folder).as_posix(): path for path in paths if path.is_file()}
        stamps = {name: _stamp(path) for name, path in names.items() if _is_managed(name)}
        return {name: stamp for name, stamp in stamps.items() if stamp is not None}

    def _load(self) -> None:
        """Read the record; another process may have changed it."""
        try:
            rows = json.loads((self.folder / _RECORD).read_text(encoding="utf-8"))
            self._known = {name: _Known(**(row | {"local": tuple(row["local"])})) for name, row in rows.items()}
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            self._known = {}

    def _save(self) -> None:
        with suppress(OSError):  # then files are copied again
            write_json_atomic(self.folder / _RECORD, {name: asdict(known) for name, known in self._known.items()})

    @contextmanager
    def _locked(self, wait_s: float) -> Iterator[bool]:
        from filelock import Timeout

        try:
            self._file_lock.acquire(timeout=wait_s)
        except Timeout:
            yield False
            return
        except OSError as error:
            raise VideoIndexError(f"cannot lock the local folder {os.fspath(self.folder)}: {error}") from error
        try:
            yield True
        finally:
            self._file_lock.release()


def mirror_of(folder: Path) -> Mirror | None:
    """Return the mirror that a folder is; None for an index in a folder."""
    location = location_of(folder)
    if location is None:
        return None
    with _MAKING:
        return _MIRRORS.setdefault(os.fspath(folder), Mirror(Path(os.fspath(folder)), location))


def refreshed(folder: Path, *, max_age_s: float = FRESH_S, whole: bool = False) -> None:
    """Copy what has changed in the bucket of an index; nothing happens for an index in a folder.

    Raises:
        VideoIndexError: the server does not answer, or refuses; names the remedy.
    """
    mirror = mirror_of(folder)
    if mirror is not None:
        mirror.refresh(max_age_s=max_age_s, whole=whole)


def publishing(folder: Path, *names: str) -> AbstractContextManager[Any]:
    """Upload files of an index that a block changes; nothing more happens for an index in a folder.

    Args:
        names: of the files, or of their folders.

    Raises:
        VideoIndexError: on leaving the block, they cannot be uploaded.
    """
    mirror = mirror_of(folder)
    return nullcontext() if mirror is None else mirror.publishing(*names)


def _is_managed(name: str) -> bool:
    folder, _, file = name.rpartition("/")
    if file.startswith(".") or file.endswith((".part", ".checked")):
        return False
    return name in _MANIFESTS or name in _CHANGING or folder.split("/")[0] in _FOLDERS


def _within(name: str, scopes: tuple[str, ...]) -> bool:
    return any(name == scope or name.startswith(f"{scope}/") for scope in scopes)


def _stamp(path: Path) -> tuple[int, int] | None:
    """Return size and time of a file; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns
