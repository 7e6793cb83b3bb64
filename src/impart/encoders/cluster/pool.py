"""Pool of workers on Ray: gives units to workers, yields their messages, and replaces workers that are lost."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Self

from impart.encoders.cluster.connection import RayEngine, connected, cpus_per_worker
from impart.encoders.cluster.worker import VERSIONED, Greeting, Worker, WorkerJob, version_problem
from impart.errors import ClusterError, ImpartError
from impart.files import library_versions

__all__ = ["PoolAnswer", "Lost", "Pool", "PoolEvent", "Ready", "UnitDone"]

IN_FLIGHT = 2  # messages asked of a worker ahead: it computes one while another travels
START_S = 180.0  # that the first worker may take
WAIT_S = 0.5
MOST_LOST = 3  # times the number of workers, without a finished unit in between


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A worker is ready. `worker` counts from 1."""

    worker: int
    host: str
    pid: int


@dataclass(frozen=True, kw_only=True)
class PoolAnswer:
    """A message of a worker about a unit."""

    worker: int
    host: str
    unit: Any
    message: Any


@dataclass(frozen=True, kw_only=True)
class UnitDone:
    """A worker has sent all messages of a unit."""

    worker: int
    unit: Any


@dataclass(frozen=True, kw_only=True)
class Lost:
    """A worker is gone: its process died, or its machine. `unit` is what it worked on, or None."""

    worker: int
    host: str
    unit: Any


PoolEvent = Ready | PoolAnswer | UnitDone | Lost


@dataclass
class _Member:
    """One worker as the driver knows it."""

    number: int
    actor: Any
    greeting: Greeting | None = None
    unit: Any = None
    unit_number: int = -1
    refs: list[Any] = field(default_factory=list)  # calls without an answer, oldest first

    @property
    def host(self) -> str:
        return self.greeting.host if self.greeting is not None else "a machine that is not known yet"


class Pool:
    """Workers on Ray, each with its own models.

    Use it as a context manager: entering connects to Ray, or starts it.

    Args:
        engine: address and number of workers.
        make: makes the job of a worker with this many CPU threads; it travels to the workers.
    """

    def __init__(self, engine: RayEngine, make: Callable[[int], Callable[[], WorkerJob]]) -> None:
        self._engine = engine
        self._make = make
        self._stack = ExitStack()
        self._ray: Any = None
        self._members: list[_Member] = []
        self._count = self._cpus = self._units = self._lost_in_a_row = 0
        self._last_number = 0

    def __enter__(self) -> Self:
        self._ray = self._stack.enter_context(connected(self._engine))
        try:
            machines = [int(node["Resources"].get("CPU", 0)) for node in self._ray.nodes() if node["Alive"]]
            self._count, self._cpus = cpus_per_worker(machines, self._engine.workers)
            for _ in range(self._count):
                self._hire()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def workers(self) -> int:
        """Number of workers that the pool keeps."""
        return self._count

    def close(self) -> None:
        """End the workers, and the connection."""
        for member in self._members:
            self._dismiss(member)
        self._members = []
        self._stack.close()

    def run(self, next_unit: Callable[[], Any]) -> Iterator[PoolEvent]:
        """Work on units until there are none, and no worker has one.

        Args:
            next_unit: returns a unit for a worker that has none, or None where there is none at present. It is called
                again after each event.

        Yields:
            Events in the order in which they arrive.

        Raises:
            ClusterError: no worker can be started, or they die again and again.
            ImpartError: what a job raises; it ends the run.
        """
        began = time.monotonic()
        while True:
            for member in self._members:
                if member.greeting is not None and member.unit is None:
                    unit = next_unit()
                    if unit is None:
                        break
                    self._give(member, unit)
            started = [member for member in self._members if member.greeting is not None]
            if started and all(member.unit is None for member in started):
                return
            refs = {member.refs[0]: member for member in self._members if member.refs}
            ready, _ = self._ray.wait(list(refs), num_returns=1, timeout=WAIT_S)
            if not ready and not started and time.monotonic() - began > START_S:
                raise ClusterError(
                    f"no worker of {self._cpus} CPUs started within {START_S:g} s: are the CPUs of the cluster in use "
                    "('ray status' tells)?"
                )
            for ref in ready:
                event = self._take(refs[ref])
                if event is not None:
                    yield event

    def _hire(self) -> None:
        """Start a worker; Ray chooses the machine."""
        remote = self._ray.remote(Worker).options(num_cpus=self._cpus, max_restarts=0, max_concurrency=1)
        self._last_number += 1
        member = _Member(self._last_number, remote.remote(self._make(self._cpus)))
        member.refs.append(member.actor.greet.remote())
        self._members.append(member)

    def _dismiss(self, member: _Member) -> None:
        with contextlib.suppress(Exception):  # it is gone, or its machine
            self._ray.kill(member.actor)

    def _give(self, member: _Member, unit: Any) -> None:
        self._units += 1
        member.unit, member.unit_number = unit, self._units
        member.actor.start.remote(self._units, unit)
        while len(member.refs) < IN_FLIGHT:
            member.refs.append(member.actor.next.remote())

    def _take(self, member: _Member) -> PoolEvent | None:
        """Take the oldest answer of a worker."""
        exceptions = self._ray.exceptions
        try:
            answer = self._ray.get(member.refs.pop(0))
        except exceptions.RayTaskError as error:
            raise self._error_of(member, error) from error
        except exceptions.RayError as error:
            return self._replace(member, error)
        if isinstance(answer, Greeting):
            return self._welcome(member, answer)
        number, message, there_is_one = answer
        if number != member.unit_number or member.unit is None:
            if member.unit is not None:  # an answer about the unit before; the worker is at work on this one
                member.refs.append(member.actor.next.remote())
            return None
        if not there_is_one:
            unit, member.unit = member.unit, None
            self._lost_in_a_row = 0
            return UnitDone(worker=member.number, unit=unit)
        member.refs.append(member.actor.next.remote())
        return PoolAnswer(worker=member.number, host=member.host, unit=member.unit, message=message)

    def _welcome(self, member: _Member, greeting: Greeting) -> Ready:
        problem = version_problem(library_versions(VERSIONED), greeting.versions)
        if problem is not None:
            raise ClusterError(
                f"the worker on {greeting.host} does not have the versions of this machine: {problem}. Vectors would "
                "differ: install the same versions on every machine"
            )
        member.greeting = greeting
        return Ready(worker=member.number, host=greeting.host, pid=greeting.pid)

    def _replace(self, member: _Member, error: Exception) -> Lost:
        self._members.remove(member)
        self._dismiss(member)  # also one that is only out of reach: it would go on with its unit
        self._lost_in_a_row += 1
        if "ModuleNotFoundError" in str(error) or self._lost_in_a_row > MOST_LOST * self._count:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            reason = next((line for line in reversed(lines) if "Error" in line), lines[0] if lines else "")
            raise ClusterError(
                f"workers do not stay alive; the last one, on {member.host}: {reason or type(error).__name__}. Is "
                "impart installed on every machine, and is there enough memory?"
            ) from error
        self._hire()
        return Lost(worker=member.number, host=member.host, unit=member.unit)

    def _error_of(self, member: _Member, error: Any) -> Exception:
        """Return the error of a job as it would be raised locally, with the worker's machine."""
        cause = error.cause
        if isinstance(cause, ImpartError):
            return ClusterError(f"worker {member.number} on {member.host}: {cause}")
        return ClusterError(f"worker {member.number} on {member.host} failed: {type(cause).__name__}: {cause}")
