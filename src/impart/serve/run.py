"""Run the server until it is stopped.

The server is one process. Several would load the model and the index several times, and jobs, metrics and limits of one
would not be those of the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import math
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final

import uvicorn
from fastapi import FastAPI
from starlette.datastructures import State

from impart.errors import ConfigError, VideoIndexError
from impart.serve.app import create_app
from impart.serve.safety.bodies import MOST_HEAD_BYTES
from impart.serve.safety.connections import guarded
from impart.serve.safety.hosts import check_names
from impart.serve.settings import ServeSettings
from impart.video.index.manifest import IndexManifest

__all__ = ["SignalledServer", "check_start", "listen", "run", "server_of"]

_GRACE_S: Final = 10  # for requests that are being answered where no job runs
_UNREAD_S: Final = 2
_KEEP_ALIVE_S: Final = 20
_SEVERAL_PROCESSES: Final = "PROMETHEUS_MULTIPROC_DIR"
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def check_start(settings: ServeSettings) -> None:
    """Check what would make the server useless or its metrics wrong.

    Raises:
        VideoIndexError: there is neither an index nor a folder that the page may index.
        ConfigError: the environment asks for metrics of several processes; a folder of reference sets is missing; a
            further name of the server is none.
    """
    if os.environ.get(_SEVERAL_PROCESSES):
        raise ConfigError(
            f"{_SEVERAL_PROCESSES} is set: it is for servers of several processes, and mixes the metrics with those of "
            "earlier runs. impart serve is one process: unset it"
        )
    if not IndexManifest.exists(settings.index) and (settings.read_only or not settings.roots):
        remedy = "" if settings.read_only else ", or let the page make it from a folder with impart serve --root FOLDER"
        raise VideoIndexError(f"there is no index at {settings.index}: make one with impart index FOLDER{remedy}")
    if (missing := next((folder for folder in settings.refsets if not folder.expanduser().is_dir()), None)) is not None:
        raise ConfigError(f"there is no folder {missing}: --refset takes a reference set, or a folder of them")
    check_names(settings.hosts)


def listen(settings: ServeSettings) -> socket.socket:
    """Open the socket of a server, so that a port in use is told at once.

    Raises:
        ConfigError: the port is in use, or the host is no address of this machine.
    """
    where = f"{settings.host}:{settings.port}"
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {where}: {error.strerror or error}; give an address with --host"
        ) from error
    family, _, protocol, _, address = found[0]
    # Without the number of TCP, asyncio leaves small packets waiting: 40 ms per answer.
    opened = socket.socket(family, socket.SOCK_STREAM, protocol)
    if os.name == "posix":  # on Windows, this lets two servers have one port
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind(address)
        opened.listen(socket.SOMAXCONN)
    except OSError as error:
        opened.close()
        remedy = "choose another one with --port (0 = any that is free)"
        if error.errno == errno.EADDRNOTAVAIL:
            remedy = "give an address of this machine with --host (0.0.0.0 = all of them)"
        raise ConfigError(f"cannot listen on {where}: {error.strerror or error}; {remedy}") from error
    return opened


def run(settings: ServeSettings, opened: socket.socket, *, on_ready: Callable[[], None] | None = None) -> None:
    """Serve until SIGINT or SIGTERM: requests are finished, streams end, and a job commits the video it is at.

    A second signal ends the process at once, with the exit code 128 + the signal.

    Args:
        opened: of `listen`.
        on_ready: called when requests are answered.
    """
    server_of(create_app(settings), settings, on_ready=on_ready).run(sockets=[opened])


def server_of(app: FastAPI, settings: ServeSettings, *, on_ready: Callable[[], None] | None = None) -> uvicorn.Server:
    """Make the server of an application, with the bounds of the settings.

    Args:
        app: of `create_app`.
        on_ready: see `run`.
    """
    config = uvicorn.Config(
        app,
        http=guarded(most=settings.connections, head_s=settings.body_s),
        ws="none",
        workers=1,  # whatever WEB_CONCURRENCY says
        loop="asyncio",
        lifespan="on",
        log_config=None,  # that of uvicorn needs a standard output
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.hosts),
        h11_max_incomplete_event_size=MOST_HEAD_BYTES,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_GRACE_S,
    )
    return _Server(config, app.state, settings.jobs.stops_s, on_ready=on_ready)


class SignalledServer(uvicorn.Server):
    """A server that stops at a signal with exit code 0, and at a second one at once."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at a signal. uvicorn raises the signal again at its end, so that the process would not end with 0."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signature of handlers
        if self.should_exit:
            os._exit(128 + sig)
        self.should_exit = True


class _Server(SignalledServer):
    """A server that ends streams when it stops; those of a job once they have told its end."""

    def __init__(
        self, config: uvicorn.Config, state: State, jobs_stop_s: float, *, on_ready: Callable[[], None] | None
    ) -> None:
        super().__init__(config)
        self._state, self._jobs_stop_s, self._on_ready = state, jobs_stop_s, on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and self._on_ready is not None:
            with contextlib.suppress(OSError):  # nobody reads what it prints
                self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._state.service.jobs.count_running():
            self.config.timeout_graceful_shutdown = math.ceil(self._jobs_stop_s) + _UNREAD_S
        self._state.stopping.set()
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # downloads that are cut now are no errors
        unread = asyncio.ensure_future(self._close_unread())
        await super().shutdown(sockets)
        unread.cancel()

    async def _close_unread(self) -> None:
        """Close connections whose client does not read the end of a stream that was ended."""
        while True:
            await asyncio.sleep(_UNREAD_S)
            for connection in list(self.server_state.connections):
                if connection.transport.is_closing():
                    connection.transport.abort()
