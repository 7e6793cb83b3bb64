"""A photo site on loopback that serves images and fails in the ways of a real site."""

from __future__ import annotations

import io
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image


def image(seed: int, *, size: tuple[int, int] = (96, 80), form: str = "JPEG") -> bytes:
    """Make an image file with random content; one seed gives the same bytes."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(data, form)
    return data.getvalue()


class _Handler(BaseHTTPRequestHandler):
    server: PhotoServer

    def do_GET(self) -> None:
        kind, _, rest = self.path.strip("/").partition("/")
        name = rest.partition(".")[0]
        seed = int(name) if name.isdigit() else 0
        self.server.asked[self.path] += 1
        with suppress(BrokenPipeError, ConnectionResetError):
            getattr(self, f"_{kind}", self._missing)(seed)

    def _send(self, data: bytes, *, status: int = 200, kind: str = "image/jpeg", length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data) if length is None else length))
        self.end_headers()
        self.wfile.write(data)

    def _ok(self, seed: int) -> None:
        time.sleep(self.server.delay_s)
        self._send(image(seed))

    def _large(self, seed: int) -> None:
        self._send(image(seed, size=(800, 600), form="PNG"), kind="image/png")

    def _same(self, seed: int) -> None:
        self._send(image(0))

    def _flaky(self, seed: int) -> None:
        if self.server.asked[self.path] == 1:
            self._send(b"try again", status=500, kind="text/plain")
        else:
            self._send(image(seed))

    def _missing(self, seed: int) -> None:
        self._send(b"not found", status=404, kind="text/plain")

    def _html(self, seed: int) -> None:
        self._send(b"\n<!DOCTYPE html><html><body>This photo is private</body></html>")

    def _text(self, seed: int) -> None:
        self._send(b"go away")

    def _half(self, seed: int) -> None:
        data = image(seed)
        self._send(data[: len(data) // 2])

    def _cut(self, seed: int) -> None:
        data = image(seed)
        self._send(data[: len(data) // 2], length=len(data))

    def _slow(self, seed: int) -> None:
        self.server.closing.wait(20)
        self._send(image(seed))

    def _endless(self, seed: int) -> None:
        self.send_response(200)
        self.end_headers()
        while not self.server.closing.wait(0.1):
            self.wfile.write(b"\xff\xd8 and on")

    def _gone(self, seed: int) -> None:
        self.send_response(302)
        self.send_header("Location", "/ok/photo_unavailable.png")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Write no log."""


class PhotoServer(ThreadingHTTPServer):
    """HTTP server on loopback; the first folder of a path selects the kind of answer.

    Attributes:
        asked: path to its number of requests.
        delay_s: wait before an image of `/ok/` is served.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: Counter[str] = Counter()
        self.delay_s = 0.0
        self.closing = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def photo_server() -> Iterator[PhotoServer]:
    server = PhotoServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
