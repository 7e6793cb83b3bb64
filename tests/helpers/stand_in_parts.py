"""Answers of the API to the tray and the panels that a real server cannot give at the pace of a test.

    parts = Parts(page)
    job = parts.job("index"); job.event("progress", **parts.progress(0.4)); job.end("done")
    parts.why = {"references": "things", "pairs": [...]}
    parts.sent                                     # (method, path below /api/v1, JSON) of all that changes something

Jobs and exports, failures, reference sets and reasons are given within the browser; all else is answered by the server
of the test. Events of a job come in portions: all that `log` has now, and the rest when the browser asks again with
`Last-Event-ID`. They come from a small server, since an answer made within the browser does not see that header.
"""

from __future__ import annotations

import io
import json
import re
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from PIL import Image

from impart.serve.app import API

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

RETRY_MS = 200
LONGEST_S = 20.0  # that an answer waits for the next event
INDEX = {
    "name": "library.impart", "exists": True, "read_only": False, "roots": ["/films"], "writer_active": False,
    "job_id": None, "paused": False, "videos": 7, "photos": 1, "video_s": 4000.0, "scenes": 9, "segments": 40, "samples": 80,  # noqa: E501
    "size_bytes": 12_000_000, "partial": 1, "incomplete": 0, "failures": 2, "no_video": 0, "with_crops": 0,
    "encoder_id": "tiny", "encoder_fingerprint": "00", "references": "things",
}  # fmt: skip
COUNTS = {
    "found": 10, "unchanged": 0, "added": 3, "updated": 0, "moved": 0, "copied": 0, "removed": 0, "failed": 0,
    "partial": 0, "skipped": 0, "no_video": 0, "photos": 0, "paths_failed": 0,
}  # fmt: skip


@dataclass
class StandInJob:
    """A job: what it is now, and its events so far."""

    view: dict[str, Any]
    log: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    asked: list[str | None] = field(default_factory=list)  # `Last-Event-ID` of each request for its events

    def event(self, kind: str, /, **data: Any) -> None:
        """Add an event, and bring the view up to date."""
        if kind == "progress":
            self.view[self.view["kind"]] = data
        elif kind == "status":
            self.view |= data
        elif kind == "failure":
            listed = "skipped" if self.view["kind"] == "export" else "failures"
            self.view[listed] = [*self.view[listed], data]
            self.view[f"{listed}_count"] += 1
        self.log.append((kind, self.view if kind in ("snapshot", "done") else data))

    def end(self, status: str) -> None:
        """End it."""
        self.view |= {"status": status, "ended_at": 1_764_280_100.0}
        self.event("status", status=status, error=self.view["error"])
        self.event("done")


class Parts:
    """Stand-ins of jobs, exports, reference sets and reasons, for one page."""

    def __init__(self, page: Page) -> None:
        self.sent: list[tuple[str, str, Any]] = []
        self.jobs: list[StandInJob] = []
        self.failures: list[dict[str, Any]] = []
        self.why: dict[str, Any] = {"references": None, "pairs": []}
        self.references: dict[str, Any] = {
            "sets": [_set("a", "things", 12), _set("none", "no reference set", 0)],
            "current": "a", "switching_to": None, "problem": None, "left_out": [],
        }  # fmt: skip
        self.refuse_switch = False
        self._events = _serve_events(self)
        page.on("close", lambda _: self._events.shutdown())
        page.route(re.compile(rf"{API}/(index|jobs|exports|failures|references)\b"), self._answer)
        page.route(
            re.compile(rf"{API}/videos/\w+/why"),
            lambda route: reply(route, {"video_id": "0" * 16, "at_s": 0.0, **self.why}),
        )

    def job(self, kind: str, **fields: Any) -> StandInJob:
        """Add a job that waits."""
        view = {
            "id": f"{len(self.jobs) + 1:016x}", "kind": kind, "status": "queued", "created_at": 1_764_280_000.0,
            "started_at": None, "ended_at": None, "error": None, "paths": [], "index": None, "export": None,
            "failures": [], "failures_count": 0, "skipped": [], "skipped_count": 0,
        }  # fmt: skip
        made = StandInJob(view | fields)
        made.event("snapshot")
        self.jobs.append(made)
        return made

    @staticmethod
    def progress(done: float, **fields: Any) -> dict[str, Any]:
        """Make the progress of an indexing job: a part of 1 GB in ten files."""
        current = {"name": "beach.mp4", "path": "/films/beach.mp4", "number": 4, "size_bytes": 10**8, "position_s": 1.0}
        return {
            "scanning": False, "index_paused": False, "files_done": int(10 * done), "files_total": 10, "bytes_done": int(1e9 * done),  # noqa: E501
            "bytes_total": 10**9, "current": current, "video_s": 100.0, "active_s": 10.0, "speed": 10.0,
            "remaining_s": 125.0, "counts": COUNTS,
        } | fields  # fmt: skip

    def _answer(self, route: Route) -> None:
        request = route.request
        path = urlsplit(request.url).path.removeprefix(API)
        first, *rest = path.strip("/").split("/")
        if request.method != "GET":
            text = request.post_data if "json" in request.headers.get("content-type", "") else None
            self.sent.append((request.method, path, json.loads(text) if text else None))
        answers = {"jobs": self._jobs, "exports": self._exports, "references": self._references}
        if first in answers:
            answers[first](route, rest)
        elif first == "index":
            reply(route, INDEX)
        else:
            reply(route, {"failures": self.failures, "total": len(self.failures), "next_cursor": None})

    def _jobs(self, route: Route, rest: list[str]) -> None:
        if rest == ["index"]:
            reply(route, self.job("index").view, 202)
        elif not rest:
            reply(route, {"jobs": [job.view for job in reversed(self.jobs)]})
        elif len(rest) == 1:
            reply(route, self.job_of(rest[0]).view)
        elif rest[1] == "events":
            route.continue_(url=f"http://127.0.0.1:{self._events.server_address[1]}/{rest[0]}")
        else:
            job = self.job_of(rest[0])
            status = {"pause": "paused", "resume": "running", "cancel": "cancelling"}.get(rest[1])
            if status:
                job.event("status", status=status, error=None)
                reply(route, job.view)
            else:
                reply(route, self.job("index").view, 202)

    def job_of(self, job_id: str) -> StandInJob:
        return next(job for job in self.jobs if job.view["id"] == job_id)

    def _exports(self, route: Route, _: list[str]) -> None:
        asked = route.request.post_data_json
        progress = {
            "form": asked["form"],
            "spans_done": 0,
            "spans_total": len(asked["spans"]),
            "notes": [],
            "file": None,
        }
        reply(route, self.job("export", export=progress).view, 202)

    def _references(self, route: Route, rest: list[str]) -> None:
        if rest[:1] == ["pairs"]:
            route.fulfill(body=_webp(), content_type="image/webp")
            return
        if route.request.method == "PUT":
            asked = route.request.post_data_json
            if self.refuse_switch and not asked["discard"]:
                detail = "'things' is in force, and no place but the index has it"
                reply(route, {"status": 409, "code": "set_would_be_lost", "title": "Conflict", "detail": detail}, 409)
                return
            self.references["current"] = asked["id"]
        reply(route, self.references)


def _serve_events(parts: Parts) -> ThreadingHTTPServer:
    class Events(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            job, last = parts.job_of(self.path.strip("/")), self.headers.get("Last-Event-ID")
            job.asked.append(last)
            until = time.monotonic() + LONGEST_S
            while len(job.log) <= int(last or 0) and time.monotonic() < until:
                time.sleep(0.02)
            news = list(enumerate(job.log, 1))[int(last or 0) :]
            events = [f"id: {number}\nevent: {kind}\ndata: {json.dumps(data)}\n\n" for number, (kind, data) in news]
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            with suppress(BrokenPipeError):  # the page was left
                self.wfile.write((f"retry: {RETRY_MS}\n\n" + "".join(events)).encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Events)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def wait_for_time(page: Page, least_s: float, most_s: float = 1e9) -> None:
    """Wait until the player is between two times."""
    page.wait_for_selector(".player video")
    page.wait_for_function(
        "([least, most]) => { const v = document.querySelector('.player video');"
        " return v && v.currentTime >= least && v.currentTime <= most; }",
        arg=[least_s, most_s],
    )


def reply(route: Route, value: Any, status: int = 200) -> None:
    """Answer a request with JSON."""
    route.fulfill(status=status, body=json.dumps(value), content_type="application/json")


def _set(set_id: str, name: str, pairs: int) -> dict[str, Any]:
    return {
        "id": set_id,
        "name": name,
        "pairs": pairs,
        "origin": "index",
        "settings": "3 neighbours",
        "current": set_id == "a",
    }


def _webp() -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(written, "WEBP")
    return written.getvalue()
