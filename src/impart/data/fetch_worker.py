"""img2dataset in a process of its own: `python -m impart.data.fetch_worker`, its arguments as one JSON line on stdin.

A process of its own, because img2dataset takes over signal handlers, prints, and starts worker processes that would
outlive a killed parent. Here they do not: the parent holds our stdin open, and when it closes, whoever closed it, the
whole group ends.

It also mends what img2dataset leaves open, by the one door urllib offers to all who use it (an installed opener, which
img2dataset's workers get because they import this module): a body without end (its issue 437) meets a deadline and a
size limit, Flickr's image that says a photo is gone counts as gone, and a server that answers 429 or 5xx is left
alone for a moment before the next try.
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
"""Environment variable: seconds and bytes a body may take, and seconds to wait after a server's error, as JSON."""

_CHUNK = 1 << 16


class BoundedHandler(urllib.request.BaseHandler):
    """Bounds the body of every answer.

    Args:
        deadline_s: from the answer's head to the end of its body.
        max_bytes: of the body.
        pause_s: after a 429 or 5xx.
    """

    handler_order = 900  # before the one that turns an error status into an exception

    def __init__(self, *, deadline_s: float, max_bytes: int, pause_s: float) -> None:
        self.deadline_s = deadline_s
        self.max_bytes = max_bytes
        self.pause_s = pause_s

    def http_response(self, request: urllib.request.Request, response: HTTPResponse) -> HTTPResponse:
        """Called by urllib for every answer."""
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
        expected = response.length  # None where the server does not say
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
    """In every process of img2dataset: bound the answers, and skip what plain fetching imports and never uses.

    img2dataset imports wandb (for a log we do not ask for) and albumentations (for resizing, which we do ourselves),
    webdataset imports torch where there is one: ten seconds a process, and a tenth without them.
    """
    limits = os.environ.get(LIMITS)
    if limits:
        urllib.request.install_opener(urllib.request.build_opener(BoundedHandler(**json.loads(limits))))
        for name in ("wandb", "albumentations"):
            sys.modules.setdefault(name, types.ModuleType(name))
        sys.modules.setdefault("torch", None)  # type: ignore[arg-type]  # an import of it fails, as if there were none


def _end_with_parent() -> None:
    """Block until stdin closes, then end this process and all it started."""
    while os.read(0, _CHUNK):  # sys.stdin's lock, held here, would upset the interpreter's end
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
