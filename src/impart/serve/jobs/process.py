"""The process of one job, as its server sees it.

It has a process group of its own, so that Ctrl-C in the terminal of the server does not end it before its video is
committed. Not a session of its own: Linux shares the time of a core between sessions before it heeds priorities.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from impart.serve.jobs.messages import message_of
from impart.video.decode.decoder import exit_in_words, worker_environment

__all__ = ["JobProcess"]

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class JobProcess:
    """A process that works on one request.

    Args:
        command: starts it.
        request: its first line.
        nice: how much lower its priority is.
        threads: threads of its numeric libraries; 0 = as they like.
    """

    def __init__(self, command: Sequence[str], request: dict[str, Any], *, nice: int, threads: int = 0) -> None:
        environment = worker_environment()
        if threads:
            environment.update({name: str(threads) for name in _ONE_THREAD if name not in environment})
        options: dict[str, Any] = {"process_group": 0}
        if sys.platform == "win32":
            options = {"creationflags": subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP}
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=environment,
            **options,
        )
        self._error_lines: deque[str] = deque(maxlen=20)
        self._writing = threading.Lock()
        self._errors = threading.Thread(target=self._read_errors, name="impart-job-errors", daemon=True)
        self._errors.start()
        self._write({**request, "nice": nice})

    @property
    def pid(self) -> int:
        return self._process.pid

    def order(self, order: str) -> None:
        """Send an order: `pause`, `resume`, `cancel` or `stop`."""
        self._write({"order": order})

    def messages(self) -> Iterator[dict[str, Any]]:
        """Yield the messages of the process until it ends."""
        assert self._process.stdout is not None
        with open(self._process.stdout.fileno(), "rb", closefd=False) as stdout:
            for line in stdout:
                with suppress(ValueError):  # the last line of a process that was killed may be cut short
                    yield message_of(line)

    def how_it_ended(self) -> str:
        """Name how the process ended, with the last line that it wrote to its standard error."""
        code = self._process.wait()
        self._errors.join(timeout=1)
        last = next((line.strip() for line in reversed(self._error_lines) if line.strip()), "")
        return f"its process {exit_in_words(code)}" + (f": {last}" if last else "")

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()

    def close(self) -> None:
        """End the process where it still runs, and release its pipes."""
        self._process.kill()
        self._process.wait()
        self._errors.join(timeout=1)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            with suppress(OSError):
                if pipe is not None:
                    pipe.close()

    def _write(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        line = json.dumps(message, default=str).encode("ascii") + b"\n"
        with suppress(OSError, ValueError), self._writing:  # it is gone: its messages end
            while line:
                line = line[self._process.stdin.write(line) or 0 :]

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        with open(self._process.stderr.fileno(), "rb", closefd=False) as stderr:
            for line in stderr:
                self._error_lines.append(line.decode("utf-8", "replace"))
