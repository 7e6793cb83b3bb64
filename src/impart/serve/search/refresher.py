"""Refresher: loads the model, and keeps the state of a server's searches up to date, in a thread of low priority.

While a job commits a video every few seconds, reading each commit would take more time than searching. A refresh
therefore starts when the index rests, or after ten times the time that the last one took.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from contextlib import suppress

from impart.errors import ImpartError
from impart.serve.problems import Problem
from impart.video.index.index import VideoIndex
from impart.video.index.store import TableGoneError
from impart.video.search.query import Query

__all__ = ["Refresher"]

_POLL_S = 0.5
_LEAST_S = 2.0  # between two refreshes
_REST_S = 2.0  # without a commit: the index rests
_CATCH_UP_POLL_S = 0.05
_CATCH_UP_S = 10.0  # longest wait for the newest state
_SHARE = 10  # times the time of the last refresh
_NICE = 10


class Refresher:
    """Refreshes the state in force of an index.

    Args:
        index: whose state is held from now on.

    Attributes:
        ready: set when the model is loaded and the first state is complete.
        error: of the last refresh, None where it was well. Searches then use the state before.
        took_s: time of the last refresh.
    """

    def __init__(self, index: VideoIndex) -> None:
        self._index = index
        self._state = index.searcher.state
        self._state.hold()
        self._stop = threading.Event()
        self._now = threading.Event()
        self.ready = threading.Event()
        self.error: Exception | None = None
        self.took_s = 0.0
        self._thread = threading.Thread(target=self._run, name="impart-refresh", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop; a refresh that runs is not waited for."""
        self._stop.set()
        self._now.set()

    def catch_up(self) -> None:
        """Refresh at once, such as after a job, and wait until searches see the newest state, at most 10 s."""
        until = time.monotonic() + _CATCH_UP_S
        while time.monotonic() < until and not self._stop.is_set() and self._index.exists and not self._is_newest():
            self._now.set()
            time.sleep(_CATCH_UP_POLL_S)

    def _is_newest(self) -> bool:
        return self.error is not None or (self.ready.is_set() and self._state.is_warm)

    def check(self) -> None:
        """Check that a search is answered without loading anything first.

        Raises:
            Problem: 503, with the reason.
        """
        if not self._index.exists:
            raise Problem(
                503, "no_index", f"there is no index at {self._index.path} yet: make one with impart index FOLDER"
            )
        if self.ready.is_set():
            return
        later, error = {"Retry-After": "1"}, self.error
        if error is not None:
            shown = str(error) if isinstance(error, ImpartError) else f"{type(error).__name__}: {error}"
            raise Problem(503, "not_ready", f"the index cannot be searched: {shown}", headers=later)
        raise Problem(503, "warming_up", "the model and the index are being loaded", headers=later)

    def _load(self) -> None:
        """Wait for the index, and load the model."""
        while not self._stop.is_set():
            try:
                if self._index.exists:
                    self._index.searcher.encode([Query(text="a person")])
                    return
            except (ImpartError, TableGoneError, OSError) as error:
                self.error = error
            self._now.clear()
            self._now.wait(_POLL_S)

    def _run(self) -> None:
        self._load()  # before the priority is lowered: threads of the model would inherit it
        with suppress(OSError, AttributeError):  # of this thread and those that it starts
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        seen, changed_at, ended_at = "", 0.0, 0.0
        while not self._stop.is_set():
            asked = self._now.is_set()
            self._now.clear()
            try:
                if self._index.exists:
                    state, now = self._state.newest(), time.monotonic()
                    if state != seen:
                        seen, changed_at = state, now
                    rests = now - changed_at >= _REST_S and now - ended_at >= max(_LEAST_S, self.took_s)
                    due = now - ended_at >= max(_LEAST_S, _SHARE * self.took_s)
                    if not self._state.is_warm and (asked or rests or due or not self.ready.is_set()):
                        self._state.refresh()
                        ended_at = time.monotonic()
                        self.took_s = ended_at - now
                        self.ready.set()
                        self._state.prepare_frames()
                        _give_back()
                    self.error = None
            except (ImpartError, TableGoneError, OSError) as error:  # damaged, or replaced meanwhile
                self.error, ended_at = error, time.monotonic()
            self._now.wait(_POLL_S)


def _give_back() -> None:
    """Give memory that is free back to the system; the allocator of glibc keeps what a refresh needed in between."""
    with suppress(OSError, AttributeError, TypeError):  # of other systems
        ctypes.CDLL(None).malloc_trim(0)
