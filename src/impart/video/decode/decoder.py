"""Decoder: decodes videos in a worker process, ahead of the encoder.

    with Decoder(settings, short_side_px=224) as decoder:
        for item in decoder.decode(paths):        # DecodedSegment | DecodeFinished | DecodeFailed

The order of files is kept. The worker continues with the next file while this one is being encoded, until
`DecodeSettings.look_ahead` frames wait. A file on which it crashes or hangs is reported as `DecodeFailed`; the next
files are decoded by a new worker. A worker that is killed from outside (by the system when memory is short, or by a
person) is started again, with the same file. Only where that one is killed as well, the file is reported.
"""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

import impart
from impart.config import DecodeSettings
from impart.errors import DecodeError
from impart.video.decode.container import VideoInfo
from impart.video.decode.frames.changes import Step
from impart.video.decode.sampler import DecodedSegment, DecodeFailed, DecodeFinished
from impart.video.decode.worker import memory_reason, read_message

__all__ = ["Decoder", "exit_in_words", "worker_environment"]

STARTS = 3  # of a worker that is killed while it starts
REQUESTS = 8  # files requested ahead; enough that short clips fill the look-ahead too
KILLED = tuple(-getattr(signal, name) for name in ("SIGKILL", "SIGTERM", "SIGHUP", "SIGINT") if hasattr(signal, name))
NO_MEMORY = ("bad_alloc", "memoryerror", "memory allocation of", "cannot allocate memory", "out of memory")
END: tuple[dict[str, Any], bytes] = ({"kind": "end"}, b"")


class Decoder:
    """Runs `impart.video.decode.worker` and reads its messages.

    Args:
        settings: of sampling; `look_ahead` and `stall_s` are used here, the rest by the worker.
        short_side_px: short side of the images.
        command: starts a worker; tests give another one.
    """

    def __init__(
        self, settings: DecodeSettings | None = None, *, short_side_px: int, command: Sequence[str] | None = None
    ) -> None:
        self._settings = settings or DecodeSettings()
        self._short_side_px = short_side_px
        # -P: a json.py in the current folder is not imported in place of Python's.
        self._command = list(command or [sys.executable, "-P", "-m", "impart.video.decode.worker"])
        self._worker: _Worker | None = None
        self._next_id = 0

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the worker. The decoder may be used again afterwards."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def decode(self, paths: Iterable[Path]) -> Iterator[DecodedSegment | DecodeFinished | DecodeFailed]:
        """Decode files one after another.

        Args:
            paths: read a few files ahead.

        Yields:
            For each path in order: its segments, then `DecodeFinished` or `DecodeFailed`.

        Raises:
            DecodeError: the worker process cannot be started at all.
        """
        if self._worker is not None and not self._worker.runs:
            self.close()  # it ended between two calls: no file is the cause
        coming = iter(paths)
        waiting: deque[tuple[int, Path]] = deque()
        yielded = 0  # segments of the first file that waits
        passed_over = 0  # of these, how many the present worker has not sent again yet
        tried_again = False
        try:
            while True:
                worker = self._running()
                for path in coming:
                    waiting.append((self._next_id, Path(path)))
                    self._next_id += 1
                    self._request(worker, *waiting[-1])
                    if len(waiting) >= REQUESTS:
                        break
                if not waiting:
                    return
                number, path = waiting[0]
                item = self._next(worker, number=number, path=path)
                if isinstance(item, DecodedSegment):
                    if passed_over:  # decoding is deterministic: these are the ones that were yielded before
                        passed_over -= 1
                    else:
                        yielded += 1
                        yield item
                    continue
                again = isinstance(item, DecodeFailed) and not item.lasting and self._worker is None and not tried_again
                if not again:
                    waiting.popleft()
                if self._worker is None:  # this file ended it; a new one gets the rest
                    worker = self._running()
                    for rest in waiting:
                        self._request(worker, *rest)
                tried_again, passed_over = again, yielded if again else 0
                if not again:
                    yielded = 0
                    yield item
        finally:
            if waiting:  # the caller stopped early: the worker still has requests
                self.close()

    def _next(self, worker: _Worker, *, number: int, path: Path) -> DecodedSegment | DecodeFinished | DecodeFailed:
        while True:
            try:
                header, payload = worker.next(stall_s=self._settings.stall_s)
            except TimeoutError:
                self.close()
                return DecodeFailed(path, f"no frame for {self._settings.stall_s:g} s; decoding was stopped")
            if header["kind"] == "end":
                reason, killed = worker.how_it_ended(), worker.was_killed
                if worker.lacked_memory and not killed:
                    reason = memory_reason(self._settings.memory_gb)
                self.close()
                return DecodeFailed(path, reason, lasting=not killed)
            if header.get("id") == number:
                return _item(path, header, payload)

    def _running(self) -> _Worker:
        """Return the worker; start one where there is none.

        Raises:
            DecodeError: it does not start, or is killed each time.
        """
        for start in range(STARTS):
            if self._worker is not None:
                break
            worker = self._worker = _Worker(self._command, look_ahead=self._settings.look_ahead)
            try:
                header, _ = worker.next(stall_s=self._settings.stall_s)
            except TimeoutError:
                header = {"kind": "nothing"}
            if header["kind"] != "ready":
                reason = worker.how_it_ended() if header["kind"] == "end" else "it does not respond"
                killed = worker.was_killed
                self.close()
                if not killed or start == STARTS - 1:
                    times = f" ({STARTS} times)" if killed else ""
                    command = " ".join(self._command)
                    raise DecodeError(f"the decoder process ({command}) cannot be started: {reason}{times}")
        assert self._worker is not None
        return self._worker

    def _request(self, worker: _Worker, number: int, path: Path) -> None:
        settings = dataclasses.asdict(self._settings)
        worker.send({"id": number, "path": str(path), "short_side_px": self._short_side_px, "settings": settings})


class _Worker:
    """One worker process, with the threads that read its pipes."""

    def __init__(self, command: Sequence[str], *, look_ahead: int) -> None:
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=worker_environment(),
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        except OSError as error:
            raise DecodeError(f"the decoder process ({command[0]}) cannot be started: {error.strerror}") from error
        self._messages: queue.Queue[tuple[dict[str, Any], bytes]] = queue.Queue(maxsize=look_ahead)
        self._last_message_s = time.monotonic()
        self._closed = threading.Event()
        self._error_lines: deque[str] = deque(maxlen=20)
        self._threads = [
            threading.Thread(target=self._read_messages, name="impart-decoder", daemon=True),
            threading.Thread(target=self._read_errors, name="impart-decoder-errors", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def send(self, request: dict[str, Any]) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        try:
            stdin.write(json.dumps(request).encode("ascii") + b"\n")
            stdin.flush()
        except OSError:
            pass  # the process is gone: `next` returns END

    def next(self, *, stall_s: float) -> tuple[dict[str, Any], bytes]:
        """Wait for the next message.

        Raises:
            TimeoutError: none came for `stall_s`. Time during which the queue was full does not count: the worker then
                waits for this process.
        """
        asked = time.monotonic()
        while True:
            silent_s = time.monotonic() - max(asked, self._last_message_s)
            if silent_s > stall_s:
                raise TimeoutError
            try:
                return self._messages.get(timeout=min(1.0, max(0.01, stall_s - silent_s)))
            except queue.Empty:
                continue

    def how_it_ended(self) -> str:
        """Name the reason why the process ended."""
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "the decoder closed its output"
        self._threads[1].join(timeout=1)
        last_line = next((line for line in reversed(self._error_lines) if line.strip()), "")
        how = exit_in_words(code)
        return f"the decoder {how}" + (f": {last_line.strip()}" if last_line else "")

    @property
    def was_killed(self) -> bool:
        """Whether the process was ended from outside: by the system when memory is short, or by a person."""
        return self._process.poll() in KILLED

    @property
    def lacked_memory(self) -> bool:
        """Whether the last lines of the process name a lack of memory, as libraries do before they end it."""
        self._threads[1].join(timeout=1)
        return any(words in line.lower() for line in list(self._error_lines)[-3:] for words in NO_MEMORY)

    def close(self) -> None:
        """Kill the process and end the threads."""
        self._closed.set()
        self._process.kill()
        self._process.wait()
        for thread in self._threads:
            thread.join(timeout=5)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            _close(pipe)

    def _read_messages(self) -> None:
        stdout = self._process.stdout
        assert stdout is not None
        while not self._closed.is_set():
            message = read_message(stdout)
            self._last_message_s = time.monotonic()
            if message is None:
                self._put(END)
                return
            if message[0]["kind"] != "alive":
                self._put(message)

    def _put(self, message: tuple[dict[str, Any], bytes]) -> None:
        while not self._closed.is_set():
            try:
                self._messages.put(message, timeout=0.2)
            except queue.Full:
                continue
            self._last_message_s = time.monotonic()
            return

    def _read_errors(self) -> None:
        stderr = self._process.stderr
        assert stderr is not None
        for line in stderr:
            self._error_lines.append(line.decode("utf-8", "replace"))


def _item(path: Path, header: dict[str, Any], payload: bytes) -> DecodedSegment | DecodeFinished | DecodeFailed:
    if header["kind"] == "segment":
        height, width = header["shape"]
        image = np.frombuffer(payload, np.uint8).reshape(height, width, 3)
        still = header["still"]
        return DecodedSegment(path, header["start_s"], header["end_s"], header["weight"], image, still=still)
    if header["kind"] == "finished":
        return DecodeFinished(
            path,
            VideoInfo(**header["info"]),
            header["samples"],
            header["problem"],
            header["lasting"],
            tuple(header["notes"]),
            tuple(Step(**step) for step in header["steps"]),
        )
    return DecodeFailed(path, header["reason"], header["lasting"])


def exit_in_words(code: int) -> str:
    """Name how a process ended, such as `crashed with SIGSEGV`."""
    if code < 0:  # POSIX: ended by a signal
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        likely = " (out of memory?)" if name == "SIGKILL" else ""
        return f"was killed by {name}{likely}" if name in ("SIGKILL", "SIGTERM") else f"crashed with {name}"
    if code >= 0xC0000000:  # Windows: ended by an exception
        return f"crashed with exception {code:#x}"
    return f"stopped with exit code {code}"


def worker_environment() -> dict[str, str]:
    """Make the environment of a process that imports this very package."""
    root = str(Path(impart.__file__).parent.parent)
    known = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([root, known] if known else [root])}


def _close(pipe: IO[bytes] | None) -> None:
    try:
        if pipe is not None:
            pipe.close()
    except OSError:
        pass  # unsent requests to a worker that is gone
