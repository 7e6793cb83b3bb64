"""Work: how many requests are answered at once. More are refused with 429, so that no queue grows without end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from impart.serve.problems import problem_response
from impart.serve.safety.rates import too_many

__all__ = ["Stopping", "StreamStop", "WorkLimit"]

_BUSY_S = 1.0  # a client that was refused tries again after this time


class WorkLimit:
    """Answers 429 with `Retry-After` while as many requests are being answered as are allowed.

    Args:
        app: what is guarded.
        most: requests at once.
        counts: tells whether a request is counted.
    """

    def __init__(self, app: ASGIApp, *, most: int, counts: Callable[[Scope], bool]) -> None:
        self._app, self._most, self._counts = app, most, counts
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 429, or pass the request on."""
        if scope["type"] != "http" or not self._counts(scope):
            await self._app(scope, receive, send)
        elif self._running >= self._most:
            problem = too_many("busy", f"the server is already answering {self._running} such requests", _BUSY_S)
            await problem_response(problem)(scope, receive, send)
        else:
            self._running += 1
            try:
                await self._app(scope, receive, send)
            finally:
                self._running -= 1


class Stopping:
    """Tells streams that the server stops."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Event] = set()
        self.is_set = False

    def set(self) -> None:
        """Wake all that wait; called in the thread of the event loop."""
        self.is_set = True
        for event in self._waiting:
            event.set()

    async def wait(self) -> None:
        """Wait until the server stops."""
        event = asyncio.Event()
        if self.is_set:
            return
        self._waiting.add(event)
        try:
            await event.wait()
        finally:
            self._waiting.discard(event)


class StreamStop:
    """Ends streams when the server stops: to their application, the client seems to have gone.

    Without it, an open page would keep the server alive with its stream of events.

    Args:
        app: what is guarded.
        stopping: set when the server stops.
        streams: tells whether answers to a path may go on without end.
    """

    def __init__(self, app: ASGIApp, *, stopping: Stopping, streams: Callable[[str], bool]) -> None:
        self._app, self._stopping, self._streams = app, stopping, streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""

        async def until_stopped() -> Message:
            received = asyncio.ensure_future(receive())
            stopped = asyncio.ensure_future(self._stopping.wait())
            try:
                await asyncio.wait((received, stopped), return_when=asyncio.FIRST_COMPLETED)
                return received.result() if received.done() else {"type": "http.disconnect"}
            finally:
                stopped.cancel()
                received.cancel()

        streams = scope["type"] == "http" and self._streams(scope["path"])
        await self._app(scope, until_stopped if streams else receive, send)
