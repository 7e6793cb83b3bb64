"""Record what a program writes and syncs, and make the files as they may be after a power cut.

The model: what was synced is there. Of what was not synced since, each part may be there or not. A file's content may
be new, that of its last sync, empty, cut, or partly zeros. An entry of a folder (a new name, a rename, a deletion) may
be there or not. Files and folders are told apart by their inode, which the recorder keeps from being used again.

Syncs are seen at `os.fsync`. LanceDB makes none, so what one of its calls may leave behind is a part of what it has
written when it returns: the tree is recorded after each call, and between all operations of Python on files.
"""

from __future__ import annotations

import os
import random
import resource
import stat
import sys
import threading
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any
from unittest import mock

__all__ = ["Moment", "Recorder", "allowed", "tree_after_cut"]

_HOOKED = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.truncate"}
_NOT_ON_DISK = (".lock", "lock")  # locks are held by the system, not by their files

Entries = Mapping[str, int]


@dataclass(frozen=True)
class Moment:
    """The files at one moment, as they are and as they were synced last.

    Attributes:
        folders, synced_folders: entries (name to node) of each folder, by node.
        contents, synced_contents: of each file, by node.
        acknowledged: how many acknowledgements came before.
        stage: of the program.
    """

    folders: Mapping[int, Entries]
    synced_folders: Mapping[int, Entries]
    contents: Mapping[int, bytes]
    synced_contents: Mapping[int, bytes]
    acknowledged: int
    stage: int


@dataclass
class Recorder:
    """Records the tree below `root` while its context is entered; `root` itself is on disk."""

    root: Path
    moments: list[Moment] = field(default_factory=list)
    acknowledged: list[tuple[int, Hashable, Any]] = field(default_factory=list)
    stage: int = 0
    syncs: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.RLock()
        self._nodes: dict[tuple[int, int], int] = {}  # (device, inode) to node; an open descriptor keeps the inode
        self._open: list[int] = []
        self._stamps: dict[int, tuple[int, int]] = {}
        self._folders: dict[int, dict[str, int]] = {}
        self._contents: dict[int, bytes] = {}
        self._synced_folders: dict[int, dict[str, int]] = {}
        self._synced_contents: dict[int, bytes] = {}
        self._at_work = False
        self._on = False

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record, with the calls of LanceDB and of `os` watched."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self._observe()
        self._synced_folders[0] = dict(self._folders[0])
        self._on = True
        sys.addaudithook(self._audited)
        try:
            with mock.patch("os.fsync", self._fsync):
                yield
        finally:
            self._on = False
            for number in self._open:
                os.close(number)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    @contextmanager
    def watching_database(self) -> Iterator[None]:
        """Record the tree after each call of LanceDB that writes."""
        from lancedb.db import LanceDBConnection
        from lancedb.merge import LanceMergeInsertBuilder
        from lancedb.table import LanceTable

        calls = [(LanceTable, name) for name in ("add", "delete", "optimize", "add_columns")]
        calls += [(LanceMergeInsertBuilder, "execute")]
        calls += [(LanceDBConnection, name) for name in ("create_table", "drop_table")]
        with self.recording():
            patches = [mock.patch.object(owner, name, self._watched(getattr(owner, name))) for owner, name in calls]
            for patch in patches:
                patch.start()
            try:
                yield
            finally:
                for patch in patches:
                    patch.stop()

    def acknowledge(self, key: Hashable, value: Any) -> None:
        """Record that the program reported something as stored; `value` None = as removed."""
        with self._lock:
            self._observe()
            self.acknowledged.append((self.stage, key, value))
            self._keep()

    def _watched(self, call: Any) -> Any:
        @wraps(call)
        def watched(*given: Any, **named: Any) -> Any:
            result = call(*given, **named)
            self._observe()
            return result

        return watched

    def _audited(self, event: str, _: Any) -> None:
        if self._on and event in _HOOKED and not self._at_work:
            self._observe()

    def _fsync(self, number: int) -> None:
        with self._lock:
            self._observe()
            status = os.fstat(number)
            node = self._nodes.get((status.st_dev, status.st_ino))
            self.syncs += 1
            if node is None:
                return
            if stat.S_ISDIR(status.st_mode):
                self._synced_folders[node] = dict(self._folders.get(node, {}))
            else:
                self._synced_contents[node] = self._contents[node]
            self._keep()

    def _observe(self) -> None:
        with self._lock:
            self._at_work = True
            before = (self._folders, dict(self._contents))
            self._folders = {}
            self._read(self.root)
            if before != (self._folders, self._contents):
                self._keep()
            self._at_work = False

    def _keep(self) -> None:
        self.moments.append(
            Moment(
                folders=self._folders,
                synced_folders=dict(self._synced_folders),
                contents=dict(self._contents),
                synced_contents=dict(self._synced_contents),
                acknowledged=len(self.acknowledged),
                stage=self.stage,
            )
        )

    def _read(self, folder: Path) -> int:
        node = self._node(folder, folder.stat())
        entries: dict[str, int] = {}
        for entry in os.scandir(folder):
            try:
                status = entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    entries[entry.name] = self._read(Path(entry.path))
                elif entry.name not in _NOT_ON_DISK:
                    entries[entry.name] = self._file(Path(entry.path), status)
            except FileNotFoundError:  # deleted by a thread of the database
                continue
        self._folders[node] = entries
        return node

    def _file(self, path: Path, status: os.stat_result) -> int:
        node = self._node(path, status)
        stamp = (status.st_size, status.st_mtime_ns)
        if self._stamps.get(node) != stamp:
            self._stamps[node] = stamp
            self._contents[node] = path.read_bytes()
        return node

    def _node(self, path: Path, status: os.stat_result) -> int:
        key = (status.st_dev, status.st_ino)
        if key not in self._nodes:
            self._open.append(os.open(path, os.O_RDONLY))
            self._nodes[key] = len(self._nodes)
        return self._nodes[key]


def allowed(recorder: Recorder, moment: Moment) -> dict[Hashable, set[Any]]:
    """Return what may be found after a cut: the values acknowledged last, and those of the stage that was under way."""
    known: dict[Hashable, set[Any]] = {}
    for _, key, value in recorder.acknowledged[: moment.acknowledged]:
        known[key] = {value}
    for stage, key, value in recorder.acknowledged[moment.acknowledged :]:
        if stage == moment.stage:
            known.setdefault(key, {None}).add(value)
    return known


def tree_after_cut(moment: Moment, target: Path, rng: random.Random) -> None:
    """Write the files as they may be after a power cut at a moment to an empty folder."""
    lost = rng.choice((0.15, 0.5, 0.85, 1.0))  # probability that what was not synced is lost
    made: set[int] = set()

    def write_folder(node: int, path: Path) -> None:
        live, synced = moment.folders.get(node, {}), moment.synced_folders.get(node, {})
        for name in sorted({*live, *synced}):
            mine, old = live.get(name), synced.get(name)
            chosen = old if mine != old and rng.random() < lost else mine
            if chosen is None:
                continue
            if chosen in moment.contents:
                write_file(chosen, path / name)
            elif chosen not in made:  # a folder that was moved is in one place
                made.add(chosen)
                (path / name).mkdir()
                write_folder(chosen, path / name)

    def write_file(node: int, path: Path) -> None:
        content, synced = moment.contents[node], moment.synced_contents.get(node)
        path.write_bytes(content if content == synced else _damaged(content, synced or b"", rng, lost))

    write_folder(0, target)


def _damaged(content: bytes, synced: bytes, rng: random.Random, lost: float) -> bytes:
    if rng.random() >= lost:
        return content
    size = rng.randrange(len(content) + 1)
    return rng.choice((synced, b"", content[:size], bytes(len(content)), content[:size] + bytes(len(content) - size)))
