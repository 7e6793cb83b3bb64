"""Claim: one writer at a time on object storage.

A writer puts an object of its own into `locks/<what>/` and lists that folder. It writes only where it finds no other
claim there that was renewed lately. Of two that begin at once, the one that lists last finds the other, and withdraws:
it needs no more of the server than listings that contain what was written before. Ages are differences of the server's
own times, so clocks of machines do not count.

A claim is renewed every `RENEW_S` seconds. That of a killed process ends after `STALE_S`; on the same machine at once,
since the lock of the folder is taken first. Who was stopped for longer (a machine that slept) finds out before it
writes, and ends.
"""

from __future__ import annotations

import json
import os
import platform
import random
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from impart.errors import IndexLockedError, VideoIndexError
from impart.files import now, sha256_hex, write_atomic
from impart.video.index.remote.bucket import Bucket, Entry
from impart.video.index.remote.mirror import Mirror, mirror_of

__all__ = ["RENEW_S", "STALE_S", "Claim", "check_claim", "claimed", "held_here", "is_claimed"]

RENEW_S, STALE_S = 15.0, 60.0
_FOLDER, _MACHINE = "locks", ".machine"
_PAUSE_S = 0.25
_HELD: dict[str, Claim] = {}
"""Claims of this process to write tables, by the folder of the mirror."""


class Claim:
    """The claim of this machine to write one part of an index.

    Args:
        mirror: of the index.
        what: `writer` of the tables, or `names`.
    """

    def __init__(self, mirror: Mirror, what: str) -> None:
        self._bucket: Bucket = mirror.bucket
        self._url = mirror.location.url
        self._folder = f"{_FOLDER}/{what}"
        self._name = f"{self._folder}/{_machine(mirror.folder)}.json"
        self._content = {"host": platform.node(), "process": os.getpid(), "since": now()}
        self._renewed = _clocks()
        self._lost = False
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def take(self, *, wait_s: float) -> None:
        """Take the claim, and renew it from now on.

        Raises:
            IndexLockedError: another machine has it for longer than `wait_s`.
            VideoIndexError: the server does not answer, or refuses.
        """
        until = time.monotonic() + wait_s
        while True:
            self._put()
            other = self._other()
            if other is None:
                break
            self._bucket.delete(self._name)
            if time.monotonic() >= until:
                raise IndexLockedError(
                    f"another process is writing to the index {self._url} ({self._described(other)}): wait until it is "
                    f"done. If it was killed, its lock ends {STALE_S:.0f} s after that"
                )
            time.sleep(_PAUSE_S * (1 + random.random()))  # of two that began at once, one comes first now
        self._thread = threading.Thread(target=self._renew, name="impart-claim", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Check that the claim still holds; costs nothing while it was renewed lately.

        Raises:
            IndexLockedError: it ended, since it could not be renewed in time, and another machine may have taken it.
            VideoIndexError: the server does not answer.
        """
        if self._lost or _since(self._renewed) > STALE_S / 2:
            self._confirm()

    def release(self) -> None:
        """Give the claim back. Where the server does not answer, it ends by itself."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        with suppress(VideoIndexError):
            self._bucket.delete(self._name)

    def _renew(self) -> None:
        while not self._ended.wait(RENEW_S):
            with suppress(VideoIndexError):  # it is tried again, and `check` tells the writer
                self._confirm()

    def _confirm(self) -> None:
        """Renew the claim; where that is late, only if it is still there and alone."""
        with self._lock:
            late_s = _since(self._renewed)
            if not self._lost and late_s <= STALE_S / 2:
                self._put()
                return
            self._lost = self._lost or self._name not in self._bucket.list(self._folder)[0]
            if not self._lost:
                self._put()
                self._lost = self._other() is not None
            if self._lost:
                raise IndexLockedError(
                    f"this run lost the lock of the index {self._url}, which it could not renew for {late_s:.0f} s: "
                    "give the same command again, it continues"
                )

    def _put(self) -> None:
        began = _clocks()
        self._bucket.write(self._name, json.dumps(self._content | {"renewed": now()}).encode())
        self._renewed = began

    def _other(self) -> str | None:
        """Return the name of another claim that holds; delete those that ended."""
        found = self._bucket.list(self._folder)[0]
        own = found.pop(self._name, None)
        if own is None:  # deleted by another one
            return self._name
        holding, ended = _split(found, at_s=own.modified_s)
        for name in ended:
            self._bucket.delete(name)
        return holding[0] if holding else None

    def _described(self, name: str) -> str:
        try:
            value = json.loads(self._bucket.read(name)[0])
            return f"on {value['host']}, process {value['process']}, since {value['since']}"
        except (OSError, ValueError, LookupError, TypeError):
            return "on another machine"


@contextmanager
def claimed(folder: Path, what: str, *, wait_s: float) -> Iterator[None]:
    """Hold the claim of an index on object storage; nothing happens for an index in a folder.

    Args:
        folder: of the index, whose own lock is held.
        what: `writer` of the tables, or `names`.

    Raises:
        IndexLockedError: another machine has it for longer than `wait_s`.
        VideoIndexError: the server does not answer, or refuses.
    """
    mirror = mirror_of(folder)
    if mirror is None:
        yield
        return
    claim = Claim(mirror, what)
    claim.take(wait_s=wait_s)
    key = f"{os.fspath(folder)} {what}"
    _HELD[key] = claim
    try:
        mirror.refresh(whole=True)
        yield
    finally:
        del _HELD[key]
        claim.release()


@contextmanager
def held_here(folder: Path) -> Iterator[bool]:
    """Hold the lock of the mirror, if no other process of this machine has it, for what concerns this machine alone."""
    from filelock import FileLock, Timeout

    lock = FileLock(str(folder / ".lock"), timeout=0)
    try:
        lock.acquire()
    except (Timeout, OSError):
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def is_claimed(folder: Path) -> bool:
    """Whether another machine is writing to the tables of an index; a claim that ended lately counts as one."""
    mirror = mirror_of(folder)
    if mirror is None:
        return False
    found, _ = mirror.bucket.list(f"{_FOLDER}/writer")
    found.pop(f"{_FOLDER}/writer/{_machine(mirror.folder)}.json", None)
    return bool(_split(found, at_s=time.time())[0])


def check_claim(folder: Path) -> None:
    """Check the claim of this process to write the tables of an index, where it has one.

    Raises:
        IndexLockedError: it ended.
    """
    claim = _HELD.get(f"{os.fspath(folder)} writer")
    if claim is not None:
        claim.check()


def _split(found: dict[str, Entry], *, at_s: float) -> tuple[list[str], list[str]]:
    """Split claims into those that hold at a time, and those that ended."""
    holding = [name for name, entry in found.items() if entry.modified_s > at_s - STALE_S]
    return sorted(holding), sorted(set(found) - set(holding))


def _machine(folder: Path) -> str:
    """Return an id of this machine and its mirror."""
    path = folder / _MACHINE
    if not path.exists():
        write_atomic(path, uuid.uuid4().hex)
    return sha256_hex(f"{path.read_text(encoding='ascii')} {platform.node()} {uuid.getnode()}")[:24]


def _clocks() -> tuple[float, float]:
    return time.monotonic(), time.time()


def _since(clocks: tuple[float, float]) -> float:
    """Return the seconds since then, by the clock that advanced most: one of them stops while a machine sleeps."""
    return max(time.monotonic() - clocks[0], time.time() - clocks[1])
