"""Answers with a file: ranges, conditions, and bytes read in pieces beside the event loop.

starlette's FileResponse makes its tag of time and size alone, never answers 304, and refuses several ranges of which
some lie in the file. Here the file is opened first, and all that is told about it is read from the open file: a file
that is replaced meanwhile is served whole as it was.
"""

from __future__ import annotations

import asyncio
import os
import re
import stat
import threading
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from impart.files import blake2b_hex
from impart.serve.media.conditions import ByteSpan, decide, http_date
from impart.serve.problems import Problem, problem_response

__all__ = ["FileGoneError", "OpenFile", "answer_bytes", "answer_file", "open_file", "tag_of"]

CHUNK_BYTES = 256 << 10
_READERS = ThreadPoolExecutor(16, thread_name_prefix="media-read")  # apart from the threads of other requests


class FileGoneError(Exception):
    """Raised when a file is not there, is not a file, or cannot be read; the message is a reason without the path."""


class OpenFile:
    """An open file, read at positions by threads.

    Attributes:
        size: in bytes.
        mtime_ns: time of its last change.
    """

    def __init__(self, file: BinaryIO, *, size: int, mtime_ns: int) -> None:
        self.size, self.mtime_ns = size, mtime_ns
        self._file, self._lock = file, threading.Lock()

    def read_at(self, position: int, length: int) -> bytes:
        """Read some bytes, at most `length`; none at the end of the file, or where it was closed."""
        with self._lock:  # else a number of a closed file, given to another one, could be read
            if self._file.closed:
                return b""
            self._file.seek(position)
            return self._file.read(length)

    def close(self) -> None:
        """Close the file, after a read that is under way."""
        with self._lock:
            self._file.close()


def tag_of(*parts: object) -> str:
    """Make a strong entity tag of what identifies a content.

    >>> tag_of("a", 1)
    '"6faa250148b797a062e1712fa76c6f3c"'
    """
    return f'"{blake2b_hex(" ".join(map(str, parts)))}"'


def open_file(path: Path) -> OpenFile:
    """Open a regular file.

    Raises:
        FileGoneError: it is missing, not a file, or cannot be read.
    """
    try:
        number = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileGoneError("no such file") from error
    except OSError as error:
        raise FileGoneError(error.strerror or str(error)) from error
    status = os.fstat(number)
    if not stat.S_ISREG(status.st_mode):  # a pipe of this name would never end
        os.close(number)
        raise FileGoneError("not a file")
    return OpenFile(os.fdopen(number, "rb", buffering=0), size=status.st_size, mtime_ns=status.st_mtime_ns)


def answer_file(
    request: Request,
    opened: OpenFile,
    *,
    etag: str,
    media_type: str,
    name: str,
    cache_control: str = "no-cache",
    modified_ns: int | None = None,
    save: bool = False,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Answer a GET or HEAD with an open file, or with the span of it that was asked for.

    Args:
        opened: closed by the answer.
        etag: strong tag of its content, with the quotes.
        name: proposed to a person who saves the file.
        cache_control: `no-cache` = may be kept, and is asked for again with the tag.
        modified_ns: time of the last change to tell; None = that of the file.
        save: whether a browser saves it, instead of showing it.
        headers: further ones.
    """
    modified_s = (opened.mtime_ns if modified_ns is None else modified_ns) / 1e9
    shown = {
        "accept-ranges": "bytes",
        "etag": etag,
        "last-modified": http_date(modified_s),
        "cache-control": cache_control,
        **(headers or {}),
    }
    decision = decide(request.method, _joined_values(request), etag=etag, modified_s=modified_s, size=opened.size)
    if decision.status in (304, 412, 416):
        opened.close()
        return _without_content(decision.status, shown, size=opened.size)
    shown["content-disposition"] = f"{'attachment' if save else 'inline'}; {_file_name(name)}"
    span = decision.span or ByteSpan(0, opened.size - 1)
    shown["content-length"] = str(span.length)
    if decision.status == 206:
        shown["content-range"] = f"bytes {span.first}-{span.last}/{opened.size}"
    if request.method == "HEAD":
        opened.close()
        return Response(headers=shown, media_type=media_type)
    return _FileAnswer(opened, span, status_code=decision.status, headers=shown, media_type=media_type)


def answer_bytes(request: Request, content: bytes, *, etag: str, media_type: str, cache_control: str) -> Response:
    """Answer a GET or HEAD with a small content, or with 304 where the client has it."""
    shown = {"etag": etag, "cache-control": cache_control}
    tags = {name: value for name, value in _joined_values(request).items() if name in ("if-none-match", "if-match")}
    decision = decide(request.method, tags, etag=etag, modified_s=0, size=len(content))
    if decision.status != 200:
        return _without_content(decision.status, shown, size=len(content))
    return Response(content, headers=shown, media_type=media_type)


def _file_name(name: str) -> str:
    """Write a name as parameters of a header: in ASCII for programs such as curl, and whole for browsers.

    >>> print(_file_name('Été "1".edl'))
    filename="_t_ _1_.edl"; filename*=UTF-8''%C3%89t%C3%A9%20%221%22.edl
    """
    plain = re.sub(r'[^ -~]|["\\\\%]', "_", name)
    return f"filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='', errors='replace')}"


def _without_content(status: int, headers: dict[str, str], *, size: int) -> Response:
    """Make an answer of 304, 412 or 416."""
    if status == 304:
        return Response(status_code=304, headers=headers)
    if status == 412:
        return problem_response(Problem(412, "changed", "the file is not the one that was asked for", headers=headers))
    headers = {**headers, "content-range": f"bytes */{size}", "cache-control": "no-store"}
    detail = f"the range lies behind the last of {size} bytes"
    return problem_response(Problem(416, "range_not_satisfiable", detail, headers=headers))


def _joined_values(request: Request) -> dict[str, str]:
    """Join the values of each header, as lists are; names in lower case."""
    joined: dict[str, str] = {}
    for name, value in request.headers.items():
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return joined


class _FileAnswer(StreamingResponse):
    """Sends a span of an open file in pieces, and closes it."""

    def __init__(
        self, opened: OpenFile, span: ByteSpan, *, status_code: int, headers: Mapping[str, str], media_type: str
    ) -> None:
        super().__init__(_pieces(opened, span), status_code=status_code, headers=headers, media_type=media_type)
        self._opened = opened

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            _READERS.submit(self._opened.close)


async def _pieces(opened: OpenFile, span: ByteSpan) -> AsyncIterator[bytes]:
    loop, at = asyncio.get_running_loop(), span.first
    while at <= span.last:
        piece = await loop.run_in_executor(_READERS, opened.read_at, at, min(CHUNK_BYTES, span.last + 1 - at))
        if not piece:  # cut short while it is sent: the connection ends before the promised length
            return
        at += len(piece)
        yield piece
