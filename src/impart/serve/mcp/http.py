"""The MCP server over HTTP: Host and Origin are checked, and with a token file each request needs its token.

Only this machine is answered by default. Any other address needs a token file.
"""

from __future__ import annotations

import hmac
import json
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings

from impart.serve.settings import LOOPBACK_NAMES, ServeSettings

__all__ = ["HTTP_PATH", "make_http_app", "serve_http"]

HTTP_PATH = "/mcp"
_EVERY_ADDRESS = ("0.0.0.0", "::")
_SHUTDOWN_S = 3

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


def make_http_app(server: MCPServer[Any], settings: ServeSettings) -> App:
    """Make the ASGI application of a server.

    Args:
        settings: its host, further names of it, and its token. Requests that name another host are refused.
    """
    app: App = server.streamable_http_app(
        streamable_http_path=HTTP_PATH, transport_security=_security(settings), host=settings.host
    )
    return app if settings.token is None else _needs_token(app, settings.token)


def serve_http(app: App, listening: socket.socket) -> None:
    """Answer requests until the process is told to stop, by SIGINT or SIGTERM."""
    import uvicorn

    from impart.serve.run import SignalledServer

    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=_SHUTDOWN_S,
    )
    SignalledServer(config).run(sockets=[listening])


def _security(settings: ServeSettings) -> TransportSecuritySettings:
    """Allow the names of the bound address as Host, and pages of the same as Origin."""
    if settings.host in _EVERY_ADDRESS and not settings.hosts:  # its names are not known here: the token protects it
        return TransportSecuritySettings(enable_dns_rebinding_protection=False)
    names = {*(LOOPBACK_NAMES if settings.is_local else (settings.host,)), *settings.hosts}
    hosts = [f"[{name}]" if ":" in name else name for name in sorted(names)]
    allowed = [form for name in hosts for form in (name, f"{name}:*")]
    origins = [f"{scheme}://{name}" for name in allowed for scheme in ("http", "https")]
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
