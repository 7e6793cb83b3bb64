"""Connections: HTTP/1.1 of uvicorn, with bounds on how many there are and how long a request may take to arrive.

uvicorn bounds only the pause between two requests: a client that never finishes the headers of a request, or the body
of one that was refused, would keep its connection.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from impart.serve.problems import MEDIA_TYPE

__all__ = ["GuardedProtocol", "guarded"]


class GuardedProtocol(H11Protocol):
    """One connection. `guarded` makes a subclass with the bounds of a server."""

    most: int
    head_s: float
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection, or refuse it where there are too many."""
        if len(self.connections) >= self.most:
            transport.write(_raw(503, "Service Unavailable", "too_many_connections", "too many connections are open"))
            transport.close()
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        super().connection_lost(exc)
        self._stop_watching()

    def data_received(self, data: bytes) -> None:
        """Read a part of a request."""
        if self.transport.is_closing():
            return
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._watch()

    def send_400_response(self, msg: str) -> None:
        """Answer a request that is no HTTP, or has too large headers, with a problem."""
        self.transport.write(_raw(400, "Bad Request", "bad_request", msg))
        self.transport.close()

    def _watch(self) -> None:
        """Start the time of a request that is incomplete; stop it while one is answered or none has begun."""
        answering = self.cycle is not None and not self.cycle.response_complete
        idle = self.cycle is not None and self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]
        if answering or idle or self.transport.is_closing():
            self._stop_watching()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self.head_s, self._too_slow)

    def _stop_watching(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        if self.conn.our_state is h11.IDLE and self.conn.trailing_data[0]:  # browsers open connections ahead of need
            detail = f"the headers of the request did not arrive within {self.head_s:g} s"
            self.transport.write(_raw(408, "Request Timeout", "slow_request", detail))
        self.transport.close()


def guarded(*, most: int, head_s: float) -> type[GuardedProtocol]:
    """Make the protocol of a server.

    Args:
        most: connections at once.
        head_s: seconds in which the headers of a request must arrive, or the rest of a body that nobody reads.
    """
    return type("Guarded", (GuardedProtocol,), {"most": most, "head_s": head_s})


def _raw(status: int, title: str, code: str, detail: str) -> bytes:
    """Write a whole answer with a problem, for a connection that is then closed."""
    body: dict[str, Any] = {"type": "about:blank", "title": title, "status": status, "code": code, "detail": detail}
    text = json.dumps(body).encode()
    head = (
        f"HTTP/1.1 {status} {title}\r\nContent-Type: {MEDIA_TYPE}\r\nContent-Length: {len(text)}\r\n"
        "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + text
