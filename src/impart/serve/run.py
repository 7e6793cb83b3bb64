"""Run the server until it is stopped."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn

from impart.errors import ConfigError
from impart.serve.app import create_app
from impart.serve.settings import ServeSettings

__all__ = ["listen", "run"]

_GRACE_S = 30


def listen(settings: ServeSettings) -> socket.socket:
    """Open the socket of a server, so that a port in use is told at once.

    Raises:
        ConfigError: the port is in use, or the host is no address of this machine.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind((settings.host, settings.port))
    except OSError as error:
        opened.close()
        raise ConfigError(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}; choose another one with "
            "--port (0 = any that is free)"
        ) from error
    return opened


def run(settings: ServeSettings, opened: socket.socket, *, on_ready: Callable[[], None] | None = None) -> None:
    """Serve until SIGINT or SIGTERM; a second one ends at once.

    Args:
        opened: of `listen`.
        on_ready: called when requests are answered.
    """
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=20,
        timeout_graceful_shutdown=_GRACE_S,
        lifespan="on",
    )

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started and on_ready is not None:
                on_ready()

    Server(config).run(sockets=[opened])
