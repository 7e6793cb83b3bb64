"""Bounded work in threads: one computation per key at a time, a few at once, a waiting list of limited length.

Several requests for one frame share its decoding. When all of them are gone before it starts, it never starts; one
that runs is told to stop, where its function asks for that. A full list is refused at once, so that a client hears it
while it still waits.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Generic, TypeVar

from starlette.requests import Request

__all__ = ["BusyError", "CancelledWorkError", "Work"]

Result = TypeVar("Result")


class BusyError(Exception):
    """Raised when the waiting list is full.

    Attributes:
        retry_s: whole seconds after which to try again.
    """

    def __init__(self, retry_s: int) -> None:
        super().__init__(f"too many are waiting; try again in {retry_s} s")
        self.retry_s = retry_s


class CancelledWorkError(Exception):
    """Raised by a function that stopped since nobody waits for its result any more, and to a client that is gone."""


class _Job(Generic[Result]):
    def __init__(self) -> None:
        self.future: Future[Result]
        self.waiting = 0
        self.cancelled = threading.Event()


class Work(Generic[Result]):
    """Runs functions in threads.

    Args:
        workers: largest number at the same time.
        most_waiting: largest number beyond these.
        retry_s: see `BusyError`.

    Example:
        >>> work = Work(workers=1, most_waiting=4, retry_s=1)
        >>> asyncio.run(work.result("two", lambda cancelled: 1 + 1))
        2
        >>> work.close()
    """

    def __init__(self, *, workers: int, most_waiting: int, retry_s: int) -> None:
        self._most, self._retry_s = workers + most_waiting, retry_s
        self._workers = workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="media")
        self._jobs: dict[str, _Job[Result]] = {}
        self._lock = threading.RLock()  # a job that is done at once is forgotten while it is entered

    async def result(
        self, key: str, function: Callable[[threading.Event], Result], *, request: Request | None = None
    ) -> Result:
        """Wait for the result of a key; the function is called unless the same key is in work already.

        Args:
            function: called in a thread with an event that is set when nobody waits any more.
            request: of the client that waits; None = it stays to the end.

        Raises:
            BusyError: the waiting list is full.
            CancelledWorkError: the client is gone.
        """
        job = self._join(key, function)
        waiting = asyncio.wrap_future(job.future)
        waiting.add_done_callback(_retrieve)
        gone = None if request is None else asyncio.ensure_future(_gone(request))
        if gone is not None:
            gone.add_done_callback(_retrieve)
        try:
            either: list[asyncio.Future[Any]] = [waiting] if gone is None else [waiting, gone]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                raise CancelledWorkError("the client is gone")
            if waiting.cancelled():
                raise BusyError(self._retry_s)  # the server stops
            return waiting.result()
        finally:
            if gone is not None:
                gone.cancel()
            self._leave(key, job)

    def in_all_threads(self, function: Callable[[], None]) -> None:
        """Call a function in each of the threads, before other work; its errors are ignored."""
        together = threading.Barrier(self._workers)

        def call() -> None:
            with suppress(threading.BrokenBarrierError):
                together.wait(timeout=1)  # so that no thread takes two
            function()

        for _ in range(self._workers):
            self._pool.submit(call)

    def close(self) -> None:
        """Stop the work: nothing more starts, and what runs is told to stop and awaited."""
        with self._lock:
            for job in self._jobs.values():
                job.cancelled.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _join(self, key: str, function: Callable[[threading.Event], Result]) -> _Job[Result]:
        with self._lock:
            job = self._jobs.get(key)
            if job is None:
                if len(self._jobs) >= self._most:
                    raise BusyError(self._retry_s)
                job = _Job()
                job.future = self._pool.submit(function, job.cancelled)
                self._jobs[key] = job
                job.future.add_done_callback(lambda _: self._forget(key, job))
            job.waiting += 1
            return job

    def _leave(self, key: str, job: _Job[Result]) -> None:
        with self._lock:
            job.waiting -= 1
            unwanted = job.waiting == 0 and not job.future.done()
            if unwanted:
                job.cancelled.set()
                if self._jobs.get(key) is job:
                    del self._jobs[key]
        if unwanted:
            job.future.cancel()

    def _forget(self, key: str, job: _Job[Result]) -> None:
        with self._lock:
            if self._jobs.get(key) is job:
                del self._jobs[key]


async def _gone(request: Request) -> None:
    """Wait until the client of a request without a body is gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _retrieve(future: asyncio.Future[Result]) -> None:
    """Take an error that nobody waits for, which asyncio would report."""
    if not future.cancelled():
        future.exception()
