"""Control of a job's process: messages out, orders in, priority."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

from impart.errors import ImpartError, IndexLockedError, MissingExtraError
from impart.files import lower_priority
from impart.serve.jobs.messages import line_of, message_of
from impart.video.index.events import Event

__all__ = ["Control", "Order", "serve_request"]

Order: TypeAlias = Literal["go", "cancel", "stop"]
"""Order to a process at an event: go on, stop at once, or stop when the video in progress is committed."""


_CODES = ((IndexLockedError, "index_locked"), (MissingExtraError, "missing_extra"))


class Control:
    """Both pipes of a process. The end of its input ends the process: the server closed it or died."""

    def __init__(self) -> None:
        # Text that a library prints to standard output must not get between the messages.
        self._out = os.dup(1)
        os.dup2(2, 1)
        self._write = threading.Lock()
        self._changed = threading.Condition()
        self._paused = self._waits = False
        self._order: Order = "go"
        self._rest = b""

    def read_line(self) -> bytes:
        """Read a line of the input; ends the process where there is none."""
        # Not sys.stdin: a thread that waits in it makes Python abort at exit.
        while b"\n" not in self._rest:
            more = os.read(0, 1 << 16)
            if not more:
                os._exit(1)
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def listen(self) -> None:
        """Read orders, in a thread, until the end of the input ends the process."""
        threading.Thread(target=self._listen, name="impart-orders", daemon=True).start()

    def _listen(self) -> None:
        while True:
            order = message_of(self.read_line()).get("order")
            with self._changed:
                if order == "pause":
                    self._paused = True
                    if self._waits:  # it was not woken yet by the order before, to go on
                        self.send({"type": "paused"})
                elif order == "resume":
                    self._paused = False
                elif order in ("cancel", "stop") and self._order != "cancel":
                    self._order = order
                self._changed.notify_all()

    def send(self, message: dict[str, Any] | Event) -> None:
        """Write a message; ends the process where the server is gone."""
        line = line_of(message)
        try:
            with self._write:
                while line:
                    line = line[os.write(self._out, line) :]
        except OSError:
            os._exit(1)

    def checkpoint(self) -> Order:
        """Wait while the job is paused; return what to do."""
        with self._changed:
            if self._paused and self._order == "go":
                self.send({"type": "paused"})
                self._waits = True
                self._changed.wait_for(lambda: not self._paused or self._order != "go")
                self._waits = False
            return self._order


def serve_request(work: Callable[[dict[str, Any], Control], None]) -> None:
    """Read a request, do the work, and report how it ended: the main function of each process.

    Args:
        work: gets the request; an `ImpartError` that it raises is the error of the job.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which lets a video commit first
    control = Control()
    request = message_of(control.read_line())
    if nice := int(request.get("nice", 0)):
        lower_priority(nice)
    control.listen()
    try:
        work(request, control)
    except ImpartError as error:
        code = next((code for kind, code in _CODES if isinstance(error, kind)), "failed")
        detail = str(error).encode("utf-8", "backslashreplace").decode("utf-8")  # a file name may be no text
        control.send({"type": "error", "code": code, "detail": detail})
