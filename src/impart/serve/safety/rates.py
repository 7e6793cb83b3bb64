"""Rates: how many requests one client may send, as token buckets in bounded memory."""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from impart.serve.problems import Problem, problem_response

__all__ = ["MOST_CLIENTS", "Buckets", "RateLimit", "client_of", "too_many"]

MOST_CLIENTS = 4096  # clients that are remembered: a few hundred kilobytes
_IPV6_NETWORK_BITS = 64  # one client has as many addresses as it likes below


class Buckets:
    """One token bucket per client: it fills at a steady rate, and each request takes from it.

    Args:
        per_s: tokens that a bucket gains in a second.
        burst: tokens of a full bucket.
        most: clients that are remembered; the one that was idle longest is forgotten first.
        clock: returns seconds.

    Example:
        >>> buckets = Buckets(per_s=2, burst=1, clock=lambda: 0.0)
        >>> buckets.take("a"), buckets.take("a"), buckets.take("b")
        (0.0, 0.5, 0.0)
    """

    def __init__(
        self, *, per_s: float, burst: float, most: int = MOST_CLIENTS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_s, self._burst, self._most, self._clock = per_s, burst, most, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # client -> tokens, at that time

    def __len__(self) -> int:
        return len(self._left)

    def take(self, client: str, cost: float = 1.0) -> float:
        """Take tokens.

        Returns:
            0, or where there are too few, seconds until there are enough; then none is taken.
        """
        left, now = self._now(client)
        wait_s = max(0.0, cost - left) / self._per_s
        self._left.pop(client, None)
        self._left[client] = (left if wait_s else left - cost, now)
        if len(self._left) > self._most:
            self._left.popitem(last=False)
        return wait_s

    def wait_s(self, client: str, cost: float = 1.0) -> float:
        """Return the seconds until there are enough tokens, and take none."""
        return max(0.0, cost - self._now(client)[0]) / self._per_s

    def _now(self, client: str) -> tuple[float, float]:
        """Return the tokens of a client, and the time."""
        now = self._clock()
        left, at = self._left.get(client, (self._burst, now))
        return min(self._burst, left + (now - at) * self._per_s), now


class RateLimit:
    """Answers 429 with `Retry-After` to a client that sends too many requests.

    Args:
        app: what is guarded.
        buckets: of the clients.
        cost: tokens that a request to a path takes.
    """

    def __init__(self, app: ASGIApp, *, buckets: Buckets, cost: Callable[[str], float]) -> None:
        self._app, self._buckets, self._cost = app, buckets, cost

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 429, or pass the request on."""
        app = self._app
        if scope["type"] == "http" and (wait_s := self._buckets.take(client_of(scope), self._cost(scope["path"]))):
            app = problem_response(too_many("too_many_requests", "too many requests from this client", wait_s))
        await app(scope, receive, send)


def too_many(code: str, detail: str, wait_s: float) -> Problem:
    """Make the problem of a client that must wait."""
    seconds = max(1, math.ceil(wait_s))
    return Problem(429, code, f"{detail}: try again in {seconds} s", headers={"Retry-After": str(seconds)})


def client_of(scope: Scope) -> str:
    """Return the address of the client; of IPv6 its network, since one client has many addresses.

    >>> client_of({"client": ("2001:db8::7:1", 50000)})
    '2001:db8::/64'
    """
    host = str((scope.get("client") or ("", 0))[0])
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host[:100]
    if address.version == 6 and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    if address.version == 6 and not address.is_loopback:
        return str(ipaddress.ip_network((address, _IPV6_NETWORK_BITS), strict=False))
    return str(address)
