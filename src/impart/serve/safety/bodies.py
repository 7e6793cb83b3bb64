"""Bodies of requests: how long the address is, how large a body, of which type, and how long it may take to arrive."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from impart.serve.problems import Problem, problem_response
from impart.serve.settings import ServeSettings

__all__ = ["MOST_HEAD_BYTES", "BodyLimits"]

_MEGABYTE: Final = 1 << 20
_LONGEST_ADDRESS: Final = 8192  # bytes of the path and the query
MOST_HEAD_BYTES: Final = 32 * 1024
_MOST_JSON_BYTES: Final = _MEGABYTE
_LEAST_RATE: Final = 16_384  # bytes a second in the mean, after the first seconds
_API: Final = "/api/"
_JSON, _FORM = "application/json", "multipart/form-data"


class BodyLimits:
    """Answers 408, 413, 414, 415 or 431 to requests that are too large, of the wrong type, or too slow.

    A form of another site can send neither JSON nor a header of its own, so JSON is taken only with its media type.

    Args:
        app: what is guarded.
        settings: of the server.
    """

    def __init__(self, app: ASGIApp, *, settings: ServeSettings) -> None:
        self._app = app
        self._first_s = settings.body_s
        self._most_form_bytes = settings.request_mb * _MEGABYTE

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or pass it on and count its body."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        most = self._most_form_bytes if kind == _FORM else _MOST_JSON_BYTES
        problem = _head_problem(scope) or _length_problem(headers, most) or _type_problem(scope, headers, kind)
        if problem is not None:
            return await problem_response(problem)(scope, receive, send)
        body = _Body(receive, send, most=most, first_s=self._first_s)
        with contextlib.suppress(BodyProblemError):
            await self._app(scope, body.receive, body.send)
        await body.refuse(scope)
        return None


class BodyProblemError(Exception):
    """Raised to the application that reads a body which is refused."""


class _Body:
    """The body of one request, counted while it arrives.

    An application may turn the error of `receive` into an answer of its own: the problem replaces it.
    """

    def __init__(self, receive: Receive, send: Send, *, most: int, first_s: float) -> None:
        self._receive, self._send = receive, send
        self._most, self._first_s = most, first_s
        self._bytes, self._began = 0, asyncio.get_running_loop().time()
        self._whole = False
        self._problem: Problem | None = None
        self._answered = False

    async def receive(self) -> Message:
        """Receive a part of the body.

        Raises:
            BodyProblemError: it is too large or too slow.
        """
        if self._whole:
            return await self._receive()  # tells when the client has gone, whenever that is
        deadline = self._began + self._first_s + self._bytes / _LEAST_RATE
        try:
            async with asyncio.timeout_at(deadline):
                message = await self._receive()
        except TimeoutError:
            detail = f"the body of the request arrived too slowly ({self._bytes} bytes)"
            self._problem = Problem(408, "slow_request", detail, headers={"Connection": "close"})
            raise BodyProblemError from None
        self._bytes += len(message.get("body", b""))
        self._whole = not message.get("more_body", False)
        if self._bytes > self._most:
            self._problem = _too_large(self._most)
            raise BodyProblemError
        return message

    async def send(self, message: Message) -> None:
        """Send a part of the answer, unless the request is refused."""
        if self._problem is None or self._answered:
            self._answered = True
            await self._send(message)

    async def refuse(self, scope: Scope) -> None:
        """Answer with the problem, where there is one."""
        if self._problem is not None and not self._answered:
            await problem_response(self._problem)(scope, self._receive, self._send)


def _head_problem(scope: Scope) -> Problem | None:
    length = len(scope.get("raw_path") or scope["path"].encode()) + len(scope["query_string"])
    if length > _LONGEST_ADDRESS:
        return Problem(414, "address_too_long", f"the address has {length} bytes: at most {_LONGEST_ADDRESS} are taken")
    length = sum(len(name) + len(value) for name, value in scope["headers"])
    if length > MOST_HEAD_BYTES:
        return Problem(
            431, "headers_too_large", f"the headers have {length} bytes: at most {MOST_HEAD_BYTES} are taken"
        )
    return None


def _type_problem(scope: Scope, headers: Headers, kind: str) -> Problem | None:
    has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    if not has_body or kind in (_JSON, _FORM) or not scope["path"].startswith(_API):
        return None
    return Problem(415, "unsupported_media_type", f"send the body as {_JSON}, or a form with files as {_FORM}")


def _length_problem(headers: Headers, most: int) -> Problem | None:
    length = headers.get("content-length", "0")
    if not length.isascii() or not length.isdigit() or ("content-length" in headers and "transfer-encoding" in headers):
        detail = "the Content-Length of the request is no number, or contradicts its Transfer-Encoding"
        return Problem(400, "bad_content_length", detail, headers={"Connection": "close"})
    return _too_large(most) if len(length) > 18 or int(length) > most else None


def _too_large(most: int) -> Problem:
    return Problem(413, "too_large", f"the body of the request is over the limit of {most / _MEGABYTE:g} MiB")
