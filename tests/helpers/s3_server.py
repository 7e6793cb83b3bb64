"""A server of object storage (moto) in a process of its own, which can be killed and started again with its content.

Moto keeps objects in memory alone. So each request that changes something is appended to a log before it is carried
out, and a new process carries out the log before it answers. The log must not contain objects above 5 MB, which are
sent in parts.

with S3Server(folder) as server: ...          # server.url, server.kill(), server.start()
"""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

BUCKET = "films"
_DENIED = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


class S3Server:
    """The process of a server with one bucket.

    Args:
        folder: for its log.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/{BUCKET}", method="PUT"), timeout=10).close()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.kill()

    def start(self) -> None:
        """Start the process, and wait until it answers."""
        command = [sys.executable, __file__, str(self.port), str(self.folder)]
        with (self.folder / "errors.txt").open("ab") as errors:
            self._process = subprocess.Popen(command, stdout=errors, stderr=errors)
        until = time.monotonic() + 30
        while time.monotonic() < until:
            try:
                urllib.request.urlopen(f"{self.url}/moto-api/data.json", timeout=10).close()
            except (urllib.error.URLError, OSError):
                time.sleep(0.05)
            else:
                return
        raise AssertionError((self.folder / "errors.txt").read_text(encoding="utf-8"))

    def kill(self) -> None:
        """End the process at once, as a power cut does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def deny(self, denied: bool) -> None:
        """Refuse all requests, or answer them again."""
        (self.folder / "deny").unlink(missing_ok=True)
        if denied:
            (self.folder / "deny").touch()

    def requests(self) -> list[str]:
        """List method and path of the requests so far."""
        return (self.folder / "requests.txt").read_text(encoding="utf-8").splitlines()


class _Logged:
    """A WSGI application whose requests are logged.

    Args:
        app: of moto.
        folder: with `log` and `requests.txt`.
    """

    def __init__(self, app: Any, folder: Path) -> None:
        self._app, self._folder, self._lock = app, folder, threading.Lock()
        self._replay()

    def _replay(self) -> None:
        from io import BytesIO

        if (self._folder / "log").exists():
            with (self._folder / "log").open("rb") as log:
                while log.peek(1):
                    facts, body = pickle.load(log)  # written by this helper alone
                    b"".join(self._app(facts | {"wsgi.input": BytesIO(body), "wsgi.errors": sys.stderr}, _ignore))

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        from io import BytesIO

        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        query = environ.get("QUERY_STRING", "")
        if not path.startswith("/moto-api"):
            with (self._folder / "requests.txt").open("a", encoding="utf-8") as file:
                file.write(f"{method} {path}{'?' if query else ''}{query}\n")
            if (self._folder / "deny").exists():
                start_response("403 Forbidden", [("Content-Type", "application/xml")])
                return [_DENIED]
        if method in {"PUT", "POST", "DELETE"}:
            chunked = environ.get("HTTP_TRANSFER_ENCODING") == "chunked"
            body = environ["wsgi.input"].read(-1 if chunked else int(environ.get("CONTENT_LENGTH") or 0))
            kept = {name: value for name, value in environ.items() if isinstance(value, str | tuple | bool)}
            with self._lock, (self._folder / "log").open("ab") as log:
                pickle.dump((kept, body), log)
            environ["wsgi.input"] = BytesIO(body)
        return self._app(environ, start_response)  # type: ignore[no-any-return]


def _ignore(*_: Any) -> None:
    return None


def _serve(port: int, folder: Path) -> None:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import run_simple

    os.environ["MOTO_PORT"] = str(port)
    run_simple("127.0.0.1", port, _Logged(DomainDispatcherApplication(create_backend_app), folder), threaded=True)


if __name__ == "__main__":
    _serve(int(sys.argv[1]), Path(sys.argv[2]))
