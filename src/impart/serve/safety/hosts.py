"""Host and origin of requests: a page of another site must not reach this server through the person's browser.

A name of that site may be made to point to 127.0.0.1 (DNS rebinding): the `Host` header then has that name. And any
page may send a form, or name an image of this server: the browser then states `Origin`, or `Sec-Fetch-Site`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from impart.errors import ConfigError
from impart.serve.problems import Problem, problem_response
from impart.serve.settings import EVERY_ADDRESS, LOOPBACK_NAMES, ServeSettings

__all__ = ["HostGuard", "check_names"]

_OWN_SITES = ("same-origin", "none")
_PORTS = {"http": 80, "https": 443}


class HostGuard:
    """Refuses requests to another host name, and requests from pages of another origin.

    The port of a loopback name is not compared: it differs behind a tunnel, and no other site can have such a name. A
    server that listens on every address is also addressed by a number: no name that may be made to point to it.

    Args:
        app: what is guarded.
        settings: of the server.
        guarded: beginnings of paths below which also reading from another origin is refused.
    """

    def __init__(self, app: ASGIApp, *, settings: ServeSettings, guarded: Iterable[str]) -> None:
        self._app = app
        self._guarded = tuple(guarded)
        self._given = frozenset(found[0] for name in settings.hosts if (found := _split(f"//{name}")) is not None)
        self._names = frozenset((*LOOPBACK_NAMES, settings.host, *self._given)) - frozenset(EVERY_ADDRESS)
        self._takes_numbers = settings.host in EVERY_ADDRESS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 421 or 403, or pass the request on."""
        problem = self._problem(scope) if scope["type"] == "http" else None
        await (self._app if problem is None else problem_response(problem))(scope, receive, send)

    def _problem(self, scope: Scope) -> Problem | None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        address = _split(f"//{hosts[0]}") if len(hosts) == 1 else None
        if address is None:
            return Problem(400, "bad_host", "the request must have one Host header, such as 127.0.0.1:8765")
        if address[0] not in self._names and not (self._takes_numbers and _is_number(address[0])):
            shown = address[0][:100]
            detail = f"this server is not {shown!r}: start it with --allow-host {shown} to answer under this name"
            return Problem(421, "foreign_host", detail)
        reads = scope["method"] in ("GET", "HEAD")
        if reads and not scope["path"].startswith(self._guarded):
            return None
        site = headers.get("sec-fetch-site", "none")
        if self._is_foreign(headers.getlist("origin"), address) or site not in _OWN_SITES:
            return Problem(403, "foreign_origin", "the request comes from a page of another site")
        return None

    def _is_foreign(self, origins: list[str], address: tuple[str, int | None]) -> bool:
        """Tell whether a page of another origin sent the request.

        Args:
            origins: values of `Origin`; none where no page sent it.
            address: host name and port of `Host`.
        """
        for origin in origins:
            found = _split(origin)
            if found is None:  # such as "null", of a sandboxed frame
                return True
            scheme = urlsplit(origin).scheme
            port = _PORTS.get(scheme)
            same = found[0] == address[0] and (found[1] or port) == (address[1] or port)
            if not same and found[0] not in self._given:
                return True
        return False


def check_names(names: Iterable[str]) -> None:
    """Check that further names of a server are host names.

    Raises:
        ConfigError: one is not, such as an address with a scheme; no request would have it.
    """
    for name in names:
        if _split(f"//{name}") is None:
            raise ConfigError(
                f"--allow-host {name!r} is no host name: give the name alone, such as films.example (IPv6: [::1])"
            )


def _is_number(name: str) -> bool:
    """Tell whether a host name is an address of one machine, such as `192.168.1.5`."""
    try:
        return not ipaddress.ip_address(name).is_unspecified
    except ValueError:
        return False


def _split(address: str) -> tuple[str, int | None] | None:
    """Return the host name and the port of an address; None where it has none.

    >>> _split("http://[::1]:8765")
    ('::1', 8765)
    """
    try:
        parts = urlsplit(address)
        name, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not name or parts.username is not None or parts.path or parts.query or parts.fragment:
        return None
    return name.rstrip("."), port
