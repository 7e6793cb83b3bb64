"""The order of the middlewares, and what each path is to them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from starlette.datastructures import Headers
from starlette.types import Scope

from impart.serve.metrics import Measured
from impart.serve.safety.bodies import BodyLimits
from impart.serve.safety.failures import FailureGuard
from impart.serve.safety.headers import SecurityHeaders
from impart.serve.safety.hosts import HostGuard
from impart.serve.safety.rates import Buckets, RateLimit
from impart.serve.safety.tokens import TokenGuard
from impart.serve.safety.work import Stopping, StreamStop, WorkLimit

if TYPE_CHECKING:
    from fastapi import FastAPI

    from impart.serve.metrics import Metrics
    from impart.serve.settings import ServeSettings

__all__ = ["REFUSALS", "add_safety"]

REFUSALS: Final = (400, 401, 403, 408, 413, 414, 415, 421, 422, 429, 431, 500)
"""Statuses of the problems that any route of the API may have: those of the middlewares, and of a malformed request."""

_GUARDED: Final = ("/api/", "/mcp", "/metrics", "/ready")
"""Beginnings of paths that no page of another site may read."""

_STREAMS: Final = re.compile(r"/api/v1/(?:media|previews)/|/api/v1/exports/[^/]+/file$|.*/events$|/mcp(?:/|$)")
"""Paths whose answers may go on for long while they need little: bounded by the number of connections."""

_JOB_EVENTS: Final = re.compile(r"/api/v1/jobs/[^/]+/events$")

_CHEAP: Final = re.compile(r"/static/|/api/v1/(?:frames|media|images|previews)/|.*\.webp$|/health$")
_CHEAP_COST: Final = 0.1  # a page of hits asks for many thumbnails at once, and a player for many ranges
_MOST_UPLOADS: Final = 4  # forms with images at once: their images are decoded, and large ones need disk and memory
_BURST: Final = 10.0  # seconds of requests that may come at once


def add_safety(app: FastAPI, settings: ServeSettings, metrics: Metrics) -> Stopping:
    """Add all middlewares to an application.

    Returns:
        What ends the streams when the server stops.
    """
    stopping = Stopping()
    buckets = Buckets(per_s=settings.requests_per_s, burst=settings.requests_per_s * _BURST)
    # The last one that is added sees a request first.
    app.add_middleware(StreamStop, stopping=stopping, lasts_s=_lasts_s(settings.jobs.stops_s))
    app.add_middleware(WorkLimit, most=_MOST_UPLOADS, counts=_is_upload)
    app.add_middleware(WorkLimit, most=settings.waiting_searches, counts=_is_work)
    if settings.token is not None:
        app.add_middleware(TokenGuard, token=settings.token, port=settings.port)
    app.add_middleware(BodyLimits, settings=settings)
    app.add_middleware(RateLimit, buckets=buckets, cost=_cost)
    app.add_middleware(HostGuard, settings=settings, guarded=_GUARDED)
    app.add_middleware(FailureGuard)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(Measured, metrics=metrics)
    return stopping


def _is_stream(path: str) -> bool:
    return _STREAMS.match(path) is not None


def _lasts_s(job_s: float) -> Callable[[str], float | None]:
    """Tell how long an answer to a path may go on when the server stops: events of a job until it has ended."""

    def lasts_s(path: str) -> float | None:
        if not _is_stream(path):
            return None
        return job_s if _JOB_EVENTS.match(path) else 0.0

    return lasts_s


def _is_work(scope: Scope) -> bool:
    return str(scope["path"]).startswith("/api/") and not _is_stream(scope["path"])


def _is_upload(scope: Scope) -> bool:
    return Headers(scope=scope).get("content-type", "").lower().startswith("multipart/")


def _cost(path: str) -> float:
    return _CHEAP_COST if _CHEAP.match(path) else 1.0
