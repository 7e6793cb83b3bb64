"""Disturb an index at random moments, and check what is left: kills, a full disk, a moved folder, two writers.

Each trial copies a prepared index, starts an operation in a process of its own, disturbs it, and then asks: is all that
the operation reported there, does the index answer, is no process left, does the next run make the index of an
undisturbed run, and does it leave no file behind?

Processes are forked from this one, which must not have used LanceDB: its threads do not survive a fork.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import lancedb  # noqa: F401 - before the clock of a trial starts; it may be forked until it is used

from helpers.clips import write_clip
from helpers.colour_references import colour_set
from helpers.photos import write_photo
from helpers.power_loads import SETTINGS, in_process, left_behind, rows_of
from helpers.tiny_encoder import TinyEncoder
from impart.errors import ImpartError
from impart.video.index import writer
from impart.video.index.events import VideoCopied, VideoDone, VideoRemoved
from impart.video.index.index import VideoIndex

__all__ = ["FAULTS", "OPERATIONS", "Trials"]

OPERATIONS = ("index", "add", "prune", "optimise", "references")
FAULTS = (
    "kill process",
    "kill worker",
    "kill parent alone",
    "full disk",
    "read-only folder",
    "clock jump",
    "two writers",
    "folder moved",
)
_TOKEN = "IMPART_ENDURANCE"
_COLOURS = ("red", "green", "blue", "yellow", "cyan", "magenta")
_WAIT_S = 60.0
_HANGS = 124
_YEAR_S = 365 * 24 * 3600


@dataclass
class Trials:
    """Prepared films and indexes, and the trials made with them.

    Args:
        work: an empty folder.
    """

    work: Path
    wrong: list[str] = field(default_factory=list)
    made: int = 0
    landed: int = 0

    def __post_init__(self) -> None:
        self._token = f"{os.getpid()}-{time.monotonic_ns()}"
        os.environ[_TOKEN] = self._token
        self._seconds: dict[str, float] = {}
        self._place = self.work / "trial"  # the same for all trials, since an index contains paths
        for operation in OPERATIONS:
            self._place.mkdir()
            self._films("before")
            if operation != "index":
                assert _finished(_forked(lambda: _prepare(self._place, "index"))) == 0
            self._films(operation)
            assert _finished(_forked(lambda: _prepare(self._place, "whole"))) == 0
            self._place.rename(self._prepared(operation))

    def trial(self, operation: str, fault: str, seed: int) -> list[str]:
        """Make one trial. Returns what is wrong, which is also kept in `wrong`."""
        rng = random.Random(seed)
        if operation not in self._seconds:  # undisturbed, to know how long it takes
            shutil.copytree(self._prepared(operation), self._place)
            self._run(operation, fault="", rng=rng)
            shutil.rmtree(self._place)
        shutil.copytree(self._prepared(operation), self._place)
        before = len(self.wrong)
        reported = self._run(operation, fault=fault, rng=rng)
        wrong = [f"a process is left: {one}" for one in _left_over(self._token)]
        code, text = _answer(lambda: _checked(self._place, reported))
        wrong += json.loads(text) if code == 0 else [f"the check ended with {code}: {text[-600:]}"]
        self.made += 1
        self.wrong += [f"{operation}, {fault}, seed {seed}: {one}" for one in wrong]
        shutil.rmtree(self._place)
        return self.wrong[before:]

    def _prepared(self, operation: str) -> Path:
        return self.work / "prepared" / operation

    def _films(self, operation: str) -> None:
        films = self._place / "films"
        if operation == "before":
            films.mkdir()
            write_clip(films / "a.mp4", colours=["red", "blue"], seconds_each=0.5)
            write_clip(films / "b.mp4", colours=["green"], seconds_each=0.5)
            for number in range(3):
                write_photo(films / f"photo {number}.png", _COLOURS[number])
        elif operation in ("add", "optimise"):
            write_clip(films / "b.mp4", colours=["yellow", "cyan"], seconds_each=0.5)
            for number, colour in enumerate(_COLOURS[3:]):
                write_clip(films / f"more {number}.mp4", colours=[colour], seconds_each=0.5)
        elif operation == "prune":
            (films / "a.mp4").unlink()
            (films / "photo 1.png").unlink()
            write_photo(films / "photo 9.png", "magenta")

    def _run(self, operation: str, *, fault: str, rng: random.Random) -> list[str]:
        """Run an operation, disturb it, and return the files that it reported as stored."""
        place = self._place
        shift_s = rng.choice((-_YEAR_S, _YEAR_S)) if fault == "clock jump" else 0
        limit = rng.choice((0, 300, 700, 1500, 3000, 6000)) if fault == "full disk" else None
        reading, writing = os.pipe()
        children = [
            _forked(lambda: _operate(place, operation, writing, shift_s=shift_s, limit=limit))
            for _ in range(2 if fault == "two writers" else 1)
        ]
        os.close(writing)
        with os.fdopen(reading, encoding="utf-8") as lines:
            lines.readline()  # it is ready
            began = time.monotonic()
            after_s = rng.uniform(0, self._seconds.get(operation, 0.0))
            if fault == "read-only folder":
                self._read_only(after_s, children)
            elif fault and fault not in ("full disk", "clock jump"):
                time.sleep(after_s)
                self.landed += _running(children[0])
                _disturb(place, children, fault)
            for child in children:
                if _finished(child) == _HANGS:
                    self.wrong.append(f"{operation}, {fault}: the process hangs")
            if not fault:
                self._seconds[operation] = time.monotonic() - began
            reported = [line.strip() for line in lines if line.strip() != "ready"]
        self._move_back(f"{operation}, {fault}")
        return reported

    def _move_back(self, what: str) -> None:
        moved, index = self._place / "moved", self._place / "index"
        if (index / "manifest.json").exists():  # moved before it was opened: a new one was made
            shutil.rmtree(moved, ignore_errors=True)
        elif moved.exists():
            if index.exists() and any(index.iterdir()):  # an empty folder may become an index
                self.wrong.append(f"{what}: left at the old place: {sorted(entry.name for entry in index.iterdir())}")
            shutil.rmtree(index, ignore_errors=True)
            moved.rename(index)

    def _read_only(self, after_s: float, children: list[int]) -> None:
        """Make the index read-only while it is written: by its permissions, or for root by a mount."""
        index = self._place / "index"
        time.sleep(after_s)
        index.mkdir(exist_ok=True)
        self.landed += _running(children[0])
        if os.geteuid() != 0:
            folders = [index, *(path for path in index.rglob("*") if path.is_dir())]
            for folder in folders:
                folder.chmod(0o555)
            for child in children:
                _finished(child)
            for folder in folders:
                folder.chmod(0o755)
            return
        bound = subprocess.run(["mount", "--bind", index, index], capture_output=True, check=False).returncode == 0
        try:
            if bound:
                subprocess.run(["mount", "-o", "remount,ro,bind", index], capture_output=True, check=False)
            for child in children:
                _finished(child)
        finally:
            if bound:
                subprocess.run(["umount", "-l", index], check=True)


def _disturb(place: Path, children: list[int], fault: str) -> None:
    if fault == "kill process":
        for process in (children[0], *_descendants(children[0])):
            _kill(process)
    elif fault in ("kill parent alone", "two writers"):
        _kill(children[0])
    elif fault == "kill worker":
        for process in _descendants(children[0]):
            _kill(process)
    elif fault == "folder moved" and (place / "index").exists():
        (place / "index").rename(place / "moved")


def _operate(place: Path, operation: str, pipe: int, *, shift_s: float, limit: int | None) -> None:
    """Carry out an operation in a forked process; report each stored file on the pipe."""

    class Paced(TinyEncoder):
        def encode_images(self, images: Any) -> Any:
            time.sleep(0.02)
            return super().encode_images(images)

    def report(text: str) -> None:
        os.write(pipe, f"{text}\n".encode())

    if limit is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    real = time.time

    def shifted() -> float:
        return real() + shift_s

    patches: list[Any] = [mock.patch("time.time", new=shifted)] if shift_s else []
    if operation == "optimise":
        patches.append(mock.patch.multiple(writer, _worth_compacting=lambda _: True, _KEEP_VERSIONS=timedelta(0)))
    for patch in patches:
        patch.start()
    report("ready")
    index = VideoIndex.open(place / "index", Paced(), settings=SETTINGS)
    try:
        if operation == "references":
            index.use_references(colour_set())
            report("references")
        else:
            for event in index.add([place / "films"], prune=operation == "prune"):
                if isinstance(event, VideoDone | VideoCopied):
                    report(event.path.name)
                elif isinstance(event, VideoRemoved):
                    report(f"-{event.path.name}")
    except ImpartError:
        pass  # a clear error is a good answer to a fault


def _prepare(place: Path, name: str) -> None:
    with in_process():
        list(VideoIndex.open(place / name, TinyEncoder(), settings=SETTINGS).add([place / "films"]))


def _checked(place: Path, reported: list[str]) -> str:
    """Check an index after a fault, in a forked process. Returns what is wrong, as JSON."""
    wrong: list[str] = []
    folder, films = place / "index", place / "films"
    stored = {name for name in reported if name != "references" and not name.startswith("-")}
    removed = {name[1:] for name in reported if name.startswith("-")}
    with in_process():
        index = VideoIndex.open(folder, TinyEncoder())
        if index.exists:
            lacking = {record.path.name for record in index.incomplete()}
            names = {record.path.name for record in index.videos()} - lacking
            wrong += [f"{name} was reported and is lost" for name in sorted(stored - names)]
            wrong += [f"{name} was reported as removed and is there" for name in sorted(removed & names)]
            if "references" in reported and index.manifest.augmentation is None:
                wrong.append("the reference set was reported and is not in force")
            index.search(text="red", top=20)
        elif reported:
            wrong.append(f"there is no index, but {reported} were reported")
        for _ in range(2):
            list(VideoIndex.open(folder, TinyEncoder(), settings=SETTINGS).add([films], prune=True))
        expected, rows = rows_of(place / "whole"), rows_of(folder)
        wrong += [f"rows of {name} differ after the next run" for name in expected if rows[name] != expected[name]]
        wrong += left_behind(folder)
        if VideoIndex.open(folder, TinyEncoder()).incomplete():
            wrong.append("a video is incomplete after the next run")
    return json.dumps(wrong)


def _forked(call: Callable[[], Any]) -> int:
    """Call a function in a forked process."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123 - warnings of the database
        call()
        code = 0
    except BaseException:  # noqa: BLE001 - named by the exit code
        traceback.print_exc(file=sys.__stderr__)
    finally:
        os._exit(code)


def _answer(call: Callable[[], str]) -> tuple[int, str]:
    """Call a function in a forked process, and return its exit code and its text."""
    reading, writing = os.pipe()

    def answer() -> None:
        try:
            text = call()
        except BaseException:
            os.write(writing, traceback.format_exc().encode()[-4000:])
            raise
        os.write(writing, text.encode()[:60_000])

    child = _forked(answer)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as pipe:
        text = pipe.read()
    return _finished(child), text


def _finished(process: int) -> int:
    """Wait for a forked process; one that hangs is killed."""
    until = time.monotonic() + _WAIT_S
    while time.monotonic() < until:
        try:
            done, status = os.waitpid(process, os.WNOHANG)
        except ChildProcessError:
            return 0
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    _kill(process)
    return _HANGS


def _running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _kill(process: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def _descendants(process: int) -> list[int]:
    """List the processes that a process has started."""
    try:
        names = Path(f"/proc/{process}/task").iterdir()
        return [int(child) for task in names for child in (task / "children").read_text().split()]
    except OSError:
        return []


def _left_over(token: str) -> list[str]:
    """List the decoder processes of this run that are alive three seconds after their parent ended."""
    until = time.monotonic() + 3 + _WAIT_S / 10
    while True:
        found = []
        for process in Path("/proc").iterdir():
            try:
                if process.name.isdigit() and f"{_TOKEN}={token}".encode() in (process / "environ").read_bytes():
                    command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    if "impart.video.decode" in command and _running(int(process.name)):
                        found.append(f"{process.name} {command}")
            except OSError:
                continue
        if not found or time.monotonic() > until:
            return found
        time.sleep(0.05)
