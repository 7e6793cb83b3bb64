"""Streams of the events of jobs, for any number of readers that come, go and resume."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress

from impart.serve.jobs.job import Job
from impart.serve.jobs.progress.event_log import JobEvent
from impart.serve.jobs.refusal import JobRefusedError

__all__ = ["Streams", "follow"]

_RETRY_S = 5


class Streams:
    """Bounds the streams that are open at once. Used in one thread, that of the event loop.

    Args:
        most: streams.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.open = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Take the place of one stream.

        Raises:
            JobRefusedError: too many are open.
        """
        if self.open >= self._most:
            raise JobRefusedError(
                f"{self.open} streams of events are open: ask for /jobs/{{id}} from time to time, or try again later",
                status=429,
                code="too_many_streams",
                retry_after_s=_RETRY_S,
            )
        self.open += 1
        try:
            yield
        finally:
            self.open -= 1


async def follow(job: Job, last: int | None = None) -> AsyncIterator[JobEvent]:
    """Yield the events of a job until `done`.

    Args:
        last: number of the last event that the reader has; None = it has none.

    Yields:
        The events after it. Where the reader has none, or some are no longer kept, first a `snapshot` of the whole job.
    """
    loop, news = asyncio.get_running_loop(), asyncio.Event()

    def wake() -> None:
        with suppress(RuntimeError):  # the loop is closed: the server ends
            loop.call_soon_threadsafe(news.set)

    with job.log.listen(wake):
        while True:
            news.clear()
            complete = job.wait(0)  # before the log is read: `done` is then in it
            found = None if last is None else job.log.after(last)
            if found is None:
                last, whole = job.snapshot()
                yield JobEvent(last, "snapshot", whole)
                continue
            if not found and complete:  # the reader has all of it, and asks again
                found = [JobEvent(job.log.last, "done", job.view())]
            for event in found:
                yield event
                last = event.number
                if event.kind == "done":
                    return
            if not found:
                await news.wait()
