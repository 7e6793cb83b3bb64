"""Log of the events of one job: numbered, bounded, read by streams in other threads."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

__all__ = ["EventKind", "EventLog", "JobEvent"]

EventKind: TypeAlias = Literal["snapshot", "status", "progress", "video", "failure", "done"]


@dataclass(frozen=True)
class JobEvent:
    """An event of a job. Numbers count from 1."""

    number: int
    kind: EventKind
    data: dict[str, Any]


class EventLog:
    """The last events of a job.

    Args:
        most: events that are kept.

    Example:
        >>> log = EventLog(most=2)
        >>> for count in (1, 2, 3):
        ...     log.append("progress", {"files_done": count})
        >>> [event.number for event in log.after(2) or ()]
        [3]
        >>> log.after(0) is None  # the first event is no longer kept
        True
    """

    def __init__(self, most: int) -> None:
        self._events: deque[JobEvent] = deque(maxlen=most)
        self._lock = threading.Lock()
        self._last = 0
        self._wake: list[Callable[[], None]] = []

    @property
    def last(self) -> int:
        """Number of the last event; 0 before the first."""
        return self._last

    def append(self, kind: EventKind, data: dict[str, Any]) -> None:
        """Add an event, and wake all who listen."""
        with self._lock:
            self._last += 1
            self._events.append(JobEvent(self._last, kind, data))
            wake = list(self._wake)
        for one in wake:
            one()

    def after(self, number: int) -> list[JobEvent] | None:
        """List the events behind a number; None where some of them are no longer kept, or it was never given."""
        with self._lock:
            if number > self._last or number < 0:
                return None
            first = self._events[0].number if self._events else self._last + 1
            if number + 1 < first:
                return None
            return [event for event in self._events if event.number > number]

    @contextmanager
    def listen(self, wake: Callable[[], None]) -> Iterator[None]:
        """Call a function, in the thread that appends, after each new event."""
        with self._lock:
            self._wake.append(wake)
        try:
            yield
        finally:
            with self._lock:
                self._wake.remove(wake)
