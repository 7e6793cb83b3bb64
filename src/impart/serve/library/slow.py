"""Slow results: computed once in a thread, while requests are answered with the progress."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from impart.errors import ImpartError

__all__ = ["Progress", "SlowResult", "SlowResults"]

Progress: TypeAlias = "Callable[[int, int], None]"
"""Called with the numbers of steps done, and of all."""


@dataclass
class SlowResult:
    """A result that is computed, or was.

    Attributes:
        key: what it depends on.
        done, total: steps; 0 of 0 before the first is done.
        value: the result, once it is finished.
        error: why there is none.
        finished: set once there is a value or an error.
    """

    key: str
    done: int
    total: int
    value: Any
    error: ImpartError | None
    finished: threading.Event

    def on_progress(self, done: int, total: int) -> None:
        """Keep the progress."""
        self.done, self.total = done, total


class SlowResults:
    """The slow results of one server, each by name. One of a name is computed at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._newest: dict[str, SlowResult] = {}
        self._last: dict[str, SlowResult] = {}  # finished, with a value

    def ask(self, name: str, key: str, work: Callable[[Progress], Any]) -> SlowResult:
        """Return the result of a key, or that which is being computed; begin where neither is.

        Args:
            name: of the result.
            key: what it depends on; a finished result of another key, or one that failed, is computed again.
            work: computes it; called in a thread.
        """
        with self._lock:
            newest = self._newest.get(name)
            if newest is not None:
                is_known = newest.key == key and newest.error is None
                if is_known or not newest.finished.is_set():
                    return newest
            begun = SlowResult(key, 0, 0, None, None, threading.Event())
            self._newest[name] = begun
        # A thread that does not hold up the end of the server: what it computes is lost then, and nothing else.
        threading.Thread(target=self._run, args=(name, begun, work), name=f"impart-{name}", daemon=True).start()
        return begun

    def newest(self, name: str) -> SlowResult | None:
        """Return the newest result of a name, finished or not; None before the first."""
        return self._newest.get(name)

    def last(self, name: str) -> SlowResult | None:
        """Return the last finished result of a name that has a value, also of an older key."""
        return self._last.get(name)

    def _run(self, name: str, begun: SlowResult, work: Callable[[Progress], Any]) -> None:
        try:
            begun.value = work(begun.on_progress)
            self._last[name] = begun
        except ImpartError as error:
            begun.error = error
        except Exception as error:  # noqa: BLE001 - who asks is told; the thread has nobody else to tell
            begun.error = ImpartError(f"{name} failed: {type(error).__name__}: {error}")
        finally:
            begun.finished.set()
