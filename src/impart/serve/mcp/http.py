"""The MCP server over HTTP: Host and Origin are checked, and with a token file each request needs its token.

Only this machine is answered by default. Any other address needs a token file.
"""

from __future__ import annotations

import hmac
import json
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any, TypeAlias

from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings

from impart.errors import ConfigError

__all__ = ["HTTP_PATH", "bound_socket", "make_http_app", "read_token", "serve_http"]

HTTP_PATH = "/mcp"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - compared, not bound
_LEAST_TOKEN = 16  # characters
_SHUTDOWN_S = 3

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


def read_token(file: Path | None, *, host: str) -> str | None:
    """Read the token that each request needs.

    Raises:
        ConfigError: the host can be reached from other machines and there is no token file, or it has no good token.
    """
    if file is None:
        if host not in LOOPBACK:
            raise ConfigError(
                f"--host {host} can be reached from other machines: add --token-file FILE, with a file that contains a "
                "token of your own, such as the output of: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
            )
        return None
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the token file {file}: {error}") from error
    if len(token) < _LEAST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(
            f"the token file {file} has no good token: write one line of {_LEAST_TOKEN} or more letters and digits"
        )
    return token


def make_http_app(server: MCPServer[Any], *, host: str, token: str | None) -> App:
    """Make the ASGI application of a server.

    Args:
        host: address that it is bound to; requests that name another host are refused.
        token: that each request needs; None = no token.
    """
    app: App = server.streamable_http_app(streamable_http_path=HTTP_PATH, transport_security=_security(host), host=host)
    return app if token is None else _needs_token(app, token)


def bound_socket(host: str, port: int) -> socket.socket:
    """Bind a socket to an address; port 0 takes a free one.

    Raises:
        ConfigError: the address cannot be used; names the remedy.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host} port {port}: {error.strerror or error}. Choose another --port"
        ) from error
    return bound


def serve_http(app: App, listening: socket.socket) -> None:
    """Answer requests until the process is told to stop."""
    import uvicorn

    config = uvicorn.Config(
        app,  # type: ignore[arg-type]
        log_config=None,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=_SHUTDOWN_S,
    )
    uvicorn.Server(config).run(sockets=[listening])


def _security(host: str) -> TransportSecuritySettings:
    """Allow the names of the bound address as Host, and pages of the same as Origin."""
    if host in _EVERY_ADDRESS:  # it has names that are not known here: the token is what protects it
        return TransportSecuritySettings(enable_dns_rebinding_protection=False)
    names = LOOPBACK if host in LOOPBACK else (host,)
    hosts = [f"[{name}]" if ":" in name else name for name in names]
    allowed = [form for name in hosts for form in (name, f"{name}:*")]
    origins = [f"http://{name}" for name in allowed]
    return TransportSecuritySettings(allowed_hosts=allowed, allowed_origins=origins)


def _needs_token(app: App, token: str) -> App:
    """Refuse requests without the token."""
    expected = f"Bearer {token}".encode("ascii")

    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
            if not hmac.compare_digest(given, expected):
                await _refuse(send)
                return
        await app(scope, receive, send)

    return checked


async def _refuse(send: Send) -> None:
    message = "wrong or missing token: send the header Authorization: Bearer TOKEN, with the token of --token-file"
    body = json.dumps({"error": "invalid_token", "error_description": message}).encode("ascii")
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode("ascii"))]
    await send({"type": "http.response.start", "status": 401, "headers": [*headers, (b"www-authenticate", b"Bearer")]})
    await send({"type": "http.response.body", "body": body})
