"""Worker processes of media as the server sees them: one per thread, started when it is needed, replaced when it ends.

A request that crashes its process, or lets nothing be heard of it for long, fails alone. The next one gets a new
process. A request that is cancelled ends its process as well: nothing else stops a decoder.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from typing import Any

from impart.errors import DataError
from impart.serve.media.work import CancelledWorkError
from impart.serve.media.worker.main import IDLE
from impart.video.decode.decoder import exit_in_words, worker_environment
from impart.video.decode.worker import read_message

__all__ = ["WorkerProcesses"]

STALL_S = 120.0
IDLE_S = 600.0
_TICK_S = 0.1


class WorkerProcesses:
    """Runs requests in a process per calling thread.

    Args:
        nice: how much lower the priority of the processes is.
        stall_s: a request of which nothing is heard for this long is ended.
        idle_s: a process without a request for this long ends itself.
    """

    def __init__(self, *, nice: int = 0, stall_s: float = STALL_S, idle_s: float = IDLE_S) -> None:
        self._command = [sys.executable, "-P", "-m", "impart.serve.media.worker.main", str(nice), str(idle_s)]
        self._stall_s = stall_s
        self._own = threading.local()
        self._lock = threading.Lock()
        self._all: set[_Process] = set()
        self._closed = False

    def start(self) -> None:
        """Start the process of this thread, so that the first request need not wait for it."""
        self._process()

    def request(self, request: dict[str, Any], *, cancelled: threading.Event | None = None) -> bytes:
        """Send a request and wait for the answer; a process that ended for lack of requests is replaced.

        Args:
            cancelled: ends the process when it is set.

        Raises:
            DataError: the file cannot be decoded, or ended the process.
            OSError: a file cannot be written.
            CancelledWorkError: it was cancelled, or the server ends.
        """
        while True:
            process = self._process()
            try:
                return process.answer(request, cancelled=cancelled, stall_s=self._stall_s)
            except _EndedError as error:
                self._forget(process)
                if self._closed or (cancelled is not None and cancelled.is_set()):
                    raise CancelledWorkError from error
                if not error.idle:
                    raise DataError(f"{request['source']['path']} cannot be decoded: {error}") from error

    def close(self) -> None:
        """End all processes."""
        self._closed = True
        with self._lock:
            for process in self._all:
                process.kill()

    def _process(self) -> _Process:
        process: _Process | None = getattr(self._own, "process", None)
        if process is None:
            process = self._own.process = _Process(self._command)
            with self._lock:
                self._all.add(process)
                if self._closed:
                    process.kill()
        return process

    def _forget(self, process: _Process) -> None:
        self._own.process = None
        with self._lock:
            self._all.discard(process)
        process.end()


class _EndedError(Exception):
    """The process ended before it answered; `idle` = since it had no request for long."""

    def __init__(self, reason: str, *, idle: bool) -> None:
        super().__init__(reason)
        self.idle = idle


class _Process:
    def __init__(self, command: list[str]) -> None:
        self._heard_s = time.monotonic()
        self._stalled = False
        self._popen = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=worker_environment(),
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )

    def answer(self, request: dict[str, Any], *, cancelled: threading.Event | None, stall_s: float) -> bytes:
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._heard_s = time.monotonic()
        answered = threading.Event()
        watch = threading.Thread(target=self._watch, args=(answered, cancelled, stall_s), daemon=True)
        watch.start()
        try:
            try:
                self._popen.stdin.write(json.dumps(request).encode("ascii") + b"\n")
                self._popen.stdin.flush()
            except OSError as error:
                raise self._ended() from error
            while (message := read_message(self._popen.stdout)) is not None:
                self._heard_s = time.monotonic()
                header, content = message
                if header["kind"] == "done":
                    return content
                if header["kind"] == "failed":
                    raise OSError(header["reason"]) if header.get("unwritable") else DataError(header["reason"])
            raise self._ended()
        finally:
            answered.set()
            watch.join()

    def kill(self) -> None:
        self._popen.kill()

    def end(self) -> None:
        """Kill the process and release its pipes."""
        self._popen.kill()
        self._popen.wait()
        for pipe in (self._popen.stdin, self._popen.stdout):
            try:
                if pipe is not None:
                    pipe.close()
            except OSError:
                pass  # an unsent request to a process that is gone

    def _watch(self, answered: threading.Event, cancelled: threading.Event | None, stall_s: float) -> None:
        """Kill the process when its request is cancelled, or nothing is heard of it for long."""
        while not answered.wait(_TICK_S):
            self._stalled = time.monotonic() - self._heard_s > stall_s
            if self._stalled or (cancelled is not None and cancelled.is_set()):
                self._popen.kill()
                return

    def _ended(self) -> _EndedError:
        code = self._popen.wait()
        if self._stalled:
            return _EndedError(f"no frame for {time.monotonic() - self._heard_s:.0f} s", idle=False)
        return _EndedError(f"the decoder {exit_in_words(code)}", idle=code == IDLE)
