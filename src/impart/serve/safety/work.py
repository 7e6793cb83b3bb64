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
        self._first: list[Callable[[], None]] = []
        self.is_set = False

    def first(self, function: Callable[[], None]) -> None:
        """Call a function as soon as the server stops, before those that wait are woken."""
        self._first.append(function)

    def set(self) -> None:
        """Wake all that wait; called in the thread of the event loop."""
        self.is_set = True
        for function in self._first:
            function()
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
        lasts_s: returns how many seconds an answer to a path may go on after that; None = as long as it takes.
    """

    def __init__(self, app: ASGIApp, *, stopping: Stopping, lasts_s: Callable[[str], float | None]) -> None:
        self._app, self._stopping, self._lasts_s = app, stopping, lasts_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        lasts_s = self._lasts_s(scope["path"]) if scope["type"] == "http" else None
        if lasts_s is None:
            await self._app(scope, receive, send)
            return
        open_end = False  # whether the answer has begun, has no length, and has not ended

        async def stopped() -> None:
            await self._stopping.wait()
            await asyncio.sleep(lasts_s)

        async def until_stopped() -> Message:
            received, stop = asyncio.ensure_future(receive()), asyncio.ensure_future(stopped())
            try:
                await asyncio.wait((received, stop), return_when=asyncio.FIRST_COMPLETED)
                return received.result() if received.done() else {"type": "http.disconnect"}
            finally:
                stop.cancel()
                received.cancel()

        async def watched(message: Message) -> None:
            nonlocal open_end
            if message["type"] == "http.response.start":
                open_end = all(name.lower() != b"content-length" for name, _ in message["headers"])
            elif message["type"] == "http.response.body" and not message.get("more_body", False):
                open_end = False
            await send(message)

        await self._app(scope, until_stopped, watched)
        if open_end and self._stopping.is_set:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
