"""Metrics of one server in the form of Prometheus: how long each stage takes, what the index holds, what was refused.

Each `Metrics` has a registry of its own, so that one process may have several applications. The server is one process:
with several, `/metrics` would answer for one of them at random, and gauges of functions export 0 in the library's mode
for several processes.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from impart.errors import ImpartError
from impart.serve.problems import MEDIA_TYPE

if TYPE_CHECKING:
    from impart.video.index.store import VideoRecord

__all__ = ["METRICS_TYPE", "Measured", "Metrics", "Stage"]

METRICS_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
"""Media type of `Metrics.text`."""

Stage: TypeAlias = Literal["decode", "encode", "retrieve", "query", "previews"]

_STAGES: dict[Stage, str] = {
    "decode": "Seconds to decode one frame image that was not cached.",
    "encode": "Seconds to encode the texts of one batch of searches.",
    "retrieve": "Seconds to score and rank the index for one batch of searches.",
    "query": "Seconds of one search, from request to answer.",
    "previews": "Seconds to make one preview that was not cached.",
}
_SEARCH = "/search"  # template of the route whose requests are queries
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})  # a client may invent others
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)  # seconds


class Metrics:
    """Histograms, counters and gauges of one server.

    Example:
        >>> metrics = Metrics()
        >>> with metrics.time("decode"):
        ...     pass
        >>> metrics.observe("query", 0.03)
        >>> "impart_query_seconds_count 1.0" in metrics.text()
        True
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._stages = {
            stage: Histogram(f"impart_{stage}_seconds", text, buckets=_BUCKETS, registry=self._registry)
            for stage, text in _STAGES.items()
        }
        self._http = Histogram(
            "impart_http_request_seconds",
            "Seconds until the answer was sent, by route.",
            ("method", "route", "status"),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._problems = Counter(
            "impart_problems",
            "Requests that were answered with a problem, by its code.",
            ("code",),
            registry=self._registry,
        )

    def observe(self, stage: Stage, seconds: float) -> None:
        """Record how long one stage took."""
        self._stages[stage].observe(seconds)

    @contextmanager
    def time(self, stage: Stage) -> Iterator[None]:
        """Record how long the body of a `with` statement takes, also where it raises."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.observe(stage, time.perf_counter() - began)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Record an answered request.

        Args:
            route: template of the path, such as `/videos/{video_id}`, so that ids make no series of their own.
        """
        self._http.labels(method, route, f"{status // 100}xx").observe(seconds)
        if route == _SEARCH:
            self.observe("query", seconds)

    def problem(self, code: str) -> None:
        """Count a problem by its code."""
        self._problems.labels(code).inc()

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Add a gauge that is read when the metrics are asked for.

        Args:
            name: without the prefix `impart_`, such as `jobs_running`.
            value: must be quick, and safe to call from any thread; NaN is exported where it raises an `ImpartError`.
        """

        def read() -> float:
            try:
                return value()
            except ImpartError:
                return math.nan

        Gauge(f"impart_{name}", text, registry=self._registry).set_function(read)

    def watch(self, records: Callable[[], Mapping[str, VideoRecord]]) -> None:
        """Add gauges of the index.

        Args:
            records: returns the videos and photos by id; cached, since it is called for each gauge.
        """
        self.gauge("index_videos", "Videos and photos of the index.", lambda: len(records()))
        self.gauge(
            "index_hours",
            "Hours of video of the index.",
            lambda: sum(record.duration_s for record in records().values()) / 3600,
        )

    def text(self) -> str:
        """Write all metrics in Prometheus' text format."""
        return generate_latest(self._registry).decode("utf-8")


class Measured:
    """Records every request: a plain ASGI application around another one.

    Args:
        app: what is measured.
        metrics: of the server.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and record its answer."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        began, status, problem = time.perf_counter(), 0, False

        async def watched(message: Message) -> None:
            nonlocal status, problem
            if message["type"] == "http.response.start":
                status = message["status"]
                problem = any(value == MEDIA_TYPE.encode() for _, value in message["headers"])
            elif problem:
                problem = False
                self._metrics.problem(json.loads(message["body"])["code"])
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._metrics.request(method, _route(scope), status, time.perf_counter() - began)


def _route(scope: Scope) -> str:
    """Return the template of the path; one text for all paths that no route has."""
    return str(getattr(scope.get("route"), "path_format", "other"))
