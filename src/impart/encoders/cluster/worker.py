"""Worker: a process of its own, on this machine or another one, that computes the messages of one unit after another.

The driver asks for each message, so a worker is never more than a few messages ahead and memory stays bounded.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from impart.files import library_versions

__all__ = ["VERSIONED", "Greeting", "WorkerJob", "Worker", "version_problem"]

VERSIONED = ("impart", "av", "numpy", "onnxruntime", "pillow")
"""Libraries that determine vectors: a worker has the same versions as the driver."""


class WorkerJob(Protocol):
    """Job of a worker: it loads its models once, and then works on units."""

    def run(self, unit: Any) -> Iterator[Any]:
        """Compute the messages of a unit, small enough that a few are in memory at once."""
        ...


@dataclass(frozen=True, kw_only=True)
class Greeting:
    """A worker that is ready: name of its machine, process id, and versions of `VERSIONED`."""

    host: str
    pid: int
    versions: Mapping[str, str]


class Worker:
    """Computes the messages of units. It has the interface of a Ray actor: one call at a time, in order.

    Args:
        make: makes the job, on the worker.
    """

    def __init__(self, make: Callable[[], WorkerJob]) -> None:
        self._make = make
        self._job: WorkerJob
        self._unit = -1
        self._messages: Iterator[Any] = iter(())

    def greet(self) -> Greeting:
        """Load the job; the first call."""
        self._job = self._make()
        return Greeting(host=platform.node(), pid=os.getpid(), versions=library_versions(VERSIONED))

    def start(self, number: int, unit: Any) -> None:
        """Begin a unit; what was left of the last one is dropped."""
        self._unit, self._messages = number, self._job.run(unit)

    def next(self) -> tuple[int, Any, bool]:
        """Compute the next message: (number of the unit, message or None, whether there is one)."""
        for message in self._messages:
            return self._unit, message, True
        return self._unit, None, False


def version_problem(here: Mapping[str, str], there: Mapping[str, str]) -> str | None:
    """Name the first library whose version differs, or None.

    >>> version_problem({"av": "18.1"}, {"av": "17.0"})
    'av is 17.0 there and 18.1 here'
    """
    for name, version in here.items():
        if there.get(name) != version:
            return f"{name} is {there.get(name, 'missing')} there and {version} here"
    return None
