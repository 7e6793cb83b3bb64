"""Run img2dataset in a separate process: `python -m impart.data.fetch_worker`, arguments as one JSON line on stdin.

The process is separate because img2dataset replaces signal handlers, prints, and starts workers that would survive a
killed parent. The parent keeps the stdin of this process open; when stdin closes, the whole process group ends.

The module also installs a urllib opener, which img2dataset's workers get because they import this module. The opener

- limits the time and size of a body (img2dataset has no such limit, see its issue 437),
- counts Flickr's placeholder for a removed photo as a failure,
- waits after HTTP status 429 or 5xx, before the next attempt.
"""

from __future__ import annotations

import functools
import io
import json
import os
import signal
import sys
import threading
import time
import types
import urllib.error
import urllib.request
from http.client import HTTPResponse, IncompleteRead

__all__ = ["BoundedHandler", "main"]

LIMITS = "IMPART_FETCH_LIMITS"
"""Environment variable with the arguments of `BoundedHandler` as JSON."""

_CHUNK = 1 << 16


class BoundedHandler(urllib.request.BaseHandler):
    """urllib handler that limits the time and size of every response body.

    Args:
        deadline_s: time limit per body.
        max_bytes: size limit per body.
        pause_s: wait after HTTP status 429 or 5xx.
    """

    handler_order = 900  # before the one that turns an error status into an exception

    def __init__(self, *, deadline_s: float, max_bytes: int, pause_s: float) -> None:
        self.deadline_s = deadline_s
        self.max_bytes = max_bytes
        self.pause_s = pause_s

    def http_response(self, request: urllib.request.Request, response: HTTPResponse) -> HTTPResponse:
        """Check a response and limit its body; urllib calls this for every response."""
        if "photo_unavailable" in request.full_url:
            raise urllib.error.URLError("gone: the site serves a placeholder")
        if response.status == 429 or response.status >= 500:
            time.sleep(self.pause_s)
        elif response.status == 200:
            response.read = functools.partial(self._read, response)  # type: ignore[method-assign]
        return response

    https_response = http_response

    def _read(self, response: HTTPResponse) -> bytes:
        deadline = time.monotonic() + self.deadline_s
        expected = response.length  # None without a Content-Length header
        body = io.BytesIO()
        while (expected is None or body.tell() < expected) and (chunk := response.read1(_CHUNK)):
            body.write(chunk)
            if body.tell() > self.max_bytes:
                raise urllib.error.URLError(f"over {self.max_bytes} bytes")
            if time.monotonic() > deadline:
                raise urllib.error.URLError("timed out")
        if expected is not None and body.tell() < expected:
            raise IncompleteRead(body.getvalue(), expected - body.tell())
        return body.getvalue()


def _prepare() -> None:
    """Install the opener, and block imports that fetching does not use.

    img2dataset imports wandb (logging) and albumentations (resizing), and webdataset imports torch if it is installed.
    The start takes ten seconds per process with these imports, and a tenth of that without them.
    """
    limits = os.environ.get(LIMITS)
    if limits:
        urllib.request.install_opener(urllib.request.build_opener(BoundedHandler(**json.loads(limits))))
        for name in ("wandb", "albumentations"):
            sys.modules.setdefault(name, types.ModuleType(name))
        sys.modules.setdefault("torch", None)  # type: ignore[arg-type]  # `import torch` fails, as if not installed


def _end_with_parent() -> None:
    """Block until stdin closes, then end this process and all processes it started."""
    while os.read(0, _CHUNK):  # not sys.stdin.read: its lock would block the interpreter's shutdown
        pass
    if hasattr(os, "killpg"):
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(1)


def main() -> None:
    """Run img2dataset with the arguments given on stdin."""
    arguments = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from img2dataset import download

    download(**arguments)


_prepare()
if __name__ == "__main__":
    main()
