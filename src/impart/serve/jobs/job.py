"""One job: its status, progress and events, and the orders to its process."""

from __future__ import annotations

import secrets
import threading
import time
from typing import Any, Literal, TypeAlias

from impart.serve.jobs.messages import event_of
from impart.serve.jobs.process import JobProcess
from impart.serve.jobs.progress.event_log import EventLog
from impart.serve.jobs.progress.exporting import ExportProgress
from impart.serve.jobs.progress.indexing import IndexProgress
from impart.serve.jobs.refusal import JobRefusedError
from impart.serve.jobs.requests import ExportRequest, IndexRequest
from impart.serve.jobs.settings import JobSettings
from impart.serve.schemas.text import path_text

__all__ = ["ENDED", "Job", "JobKind", "Status"]

JobKind: TypeAlias = Literal["index", "export"]
Status: TypeAlias = Literal[
    "queued", "running", "pausing", "paused", "cancelling", "cancelled", "done", "partly_failed", "failed"
]
ENDED: tuple[Status, ...] = ("cancelled", "done", "partly_failed", "failed")


class Job:
    """A job of a `JobQueue`; all threads may use it.

    Attributes:
        id: 16 hex digits.
        log: its events.
        status: where it stands.
    """

    def __init__(self, request: IndexRequest | ExportRequest, settings: JobSettings) -> None:
        self.id = secrets.token_hex(8)
        self.request = request
        self.kind: JobKind = "export" if isinstance(request, ExportRequest) else "index"
        self.log = EventLog(settings.events)
        self.created_at, self.started_at, self.ended_at = time.time(), None, None
        self.status: Status = "queued"
        self._error: dict[str, str] | None = None
        self._lock = threading.RLock()
        self._settings = settings
        self._process: JobProcess | None = None
        self._ended = threading.Event()
        self._reported = ""  # by the process: how it ended
        self._waiting_progress: dict[str, Any] | None = None
        self._progress_at = float("-inf")
        self.progress: IndexProgress | ExportProgress = (
            ExportProgress(request, settings.failures)
            if isinstance(request, ExportRequest)
            else IndexProgress(settings.failures)
        )
        self._set("queued")

    created_at: float
    started_at: float | None
    ended_at: float | None

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    @property
    def pid(self) -> int | None:
        """Number of its process; None where there is none."""
        with self._lock:
            return None if self._process is None else self._process.pid

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until it has ended; return whether it has."""
        return self._ended.wait(timeout_s)

    def view(self) -> dict[str, Any]:
        """Return the job as plain values, see `impart.serve.schemas.jobs.JobOut`."""
        with self._lock:
            progress, of_export = self.progress, self.kind == "export"
            listed = "skipped" if of_export else "failures"
            shown = progress.view(time.monotonic())
            return {
                "id": self.id,
                "kind": self.kind,
                "status": self.status,
                "created_at": self.created_at,
                "started_at": self.started_at,
                "ended_at": self.ended_at,
                "error": self._error,
                "paths": [path_text(path) for path in self.request.paths]
                if isinstance(self.request, IndexRequest)
                else [],
                "index": None if of_export else shown,
                "export": shown if of_export else None,
                "failures": [],
                "failures_count": 0,
                "skipped": [],
                "skipped_count": 0,
                listed: list(progress.failures),
                f"{listed}_count": progress.failures_count,
            }

    def snapshot(self) -> tuple[int, dict[str, Any]]:
        """Return the job as of an event, and the number of that event: the next ones follow it.

        A job that has ended is shown as of the event before the last one, so that `done` follows.
        """
        with self._lock:
            return self.log.last - self._ended.is_set(), self.view()

    def pause(self) -> None:
        """Pause at the next event of the process.

        Raises:
            JobRefusedError: it does not run.
        """
        with self._lock:
            if self.status in ("pausing", "paused"):
                return
            if self.status != "running":
                raise self._refused("paused")
            self._set("pausing")
            self._order("pause")

    def resume(self) -> None:
        """Go on after a pause.

        Raises:
            JobRefusedError: it does not run.
        """
        with self._lock:
            if self.status == "running":
                return
            if self.status not in ("pausing", "paused"):
                raise self._refused("resumed")
            self.progress.resume(time.monotonic())
            self._set("running")
            self._order("resume")

    def cancel(self, *, stop: bool = False) -> None:
        """Stop at the next event of the process; what is committed stays. A job that has ended stays as it is.

        Args:
            stop: let the video in progress be committed first, if it takes no longer than `grace_s`: the server stops.
        """
        with self._lock:
            if self.ended or self.status == "cancelling":
                return
            if self.status == "queued":
                self.end("cancelled")
                return
            if stop:
                self._error = {"code": "server_stopped", "detail": "the server was stopped; start the job again"}
            self._set("cancelling")
            if self.kind == "export":
                self.kill()
                return
            self._order("stop" if stop else "cancel")
            timer = threading.Timer(self._settings.grace_s if stop else self._settings.cancel_s, self.kill)
            timer.daemon = True
            timer.start()

    def kill(self) -> None:
        """End the process at once; the index is as of the last committed video."""
        with self._lock:
            if self._process is not None:
                self._process.kill()

    def start(self) -> bool:
        """Leave the queue; False where the job was cancelled meanwhile."""
        with self._lock:
            if self.status != "queued":
                return False
            self.started_at = time.time()
            self._set("running")
            return True

    def attach(self, process: JobProcess) -> None:
        """Take the process, and give it the orders that came before."""
        with self._lock:
            self._process = process
            if self.status == "pausing":
                process.order("pause")
            elif self.status == "cancelling":
                process.kill()  # it has done nothing yet

    def handle(self, message: dict[str, Any]) -> None:
        """Take a message of the process."""
        now = time.monotonic()
        with self._lock:
            match message.get("type"):
                case "paused" if self.status == "pausing":
                    self.progress.pause(now)
                    self._set("paused")
                case "finished" | "stopped" as how:
                    self._reported = str(how)
                case "error":
                    self._error = {"code": message["code"], "detail": message["detail"]}
                case _:
                    self._take(message, now)

    def detach(self) -> None:
        """Forget the process, which has closed its output, and end the job."""
        with self._lock:
            process, self._process = self._process, None
            if process is None:
                return
            if self._reported == "finished":
                self._error = None
                self.end("partly_failed" if self.progress.failed else "done")
            elif self._reported == "stopped" or self.status == "cancelling":
                self.end("cancelled")
            elif self._error is not None:
                self.end("failed")
            else:
                process.kill()  # it may only have closed its output
                self.fail("process_ended", process.how_it_ended())

    def fail(self, code: str, reason: str) -> None:
        """End the job with an error."""
        remedy = "videos that are done stay in the index; retry the job" if self.kind == "index" else "retry the job"
        with self._lock:
            self._error = {"code": code, "detail": f"{reason}; {remedy}"}
            self.end("failed")

    def end(self, status: Status) -> None:
        """End the job."""
        with self._lock:
            if self.ended:
                return
            self._flush_progress()
            self.progress.pause(time.monotonic())
            self.ended_at = time.time()
            self._set(status)
            self.log.append("done", self.view())
            self._ended.set()

    def _take(self, message: dict[str, Any], now: float) -> None:
        if isinstance(self.progress, ExportProgress):
            made = self.progress.apply(message)
        else:
            event = event_of(message)
            made = [] if event is None else self.progress.apply(event, now)
        for kind, data in made:
            if kind != "progress":
                self.log.append(kind, data)
            elif now - self._progress_at >= self._settings.progress_s:
                self._waiting_progress = None
                self._progress_at = now
                self.log.append("progress", data)
            else:
                self._waiting_progress = data

    def _flush_progress(self) -> None:
        if self._waiting_progress is not None:
            self.log.append("progress", self._waiting_progress)
            self._waiting_progress = None

    def _set(self, status: Status) -> None:
        self._flush_progress()
        self.status = status
        self.log.append("status", {"status": status, "error": self._error})

    def _order(self, order: str) -> None:
        if self._process is not None:
            self._process.order(order)

    def _refused(self, what: str) -> JobRefusedError:
        return JobRefusedError(
            f"the job {self.id} is {self.status}: only a job that runs can be {what}", status=409, code="job_state"
        )
