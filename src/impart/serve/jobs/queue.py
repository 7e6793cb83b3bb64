"""Queue of the jobs of one server.

    queue = JobQueue(folder, records=records, exports=cache / "exports", roots=[films])
    job = queue.index()
    job.wait()
    queue.close()

One indexing job and one export run at a time, each in a process of its own; others wait. Jobs are in memory alone: they
are gone when the server ends. What an indexing job has committed stays in the index, and the next one continues.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from impart.errors import ImpartError
from impart.serve.jobs.export_files import ExportFiles
from impart.serve.jobs.job import Job, JobKind
from impart.serve.jobs.process import JobProcess
from impart.serve.jobs.progress.exporting import ExportProgress
from impart.serve.jobs.progress.indexing import IndexProgress
from impart.serve.jobs.refusal import JobRefusedError
from impart.serve.jobs.requests import MEDIA_FORMS, ExportRequest, IndexRequest
from impart.serve.jobs.roots import check_folders, top_folders
from impart.serve.jobs.settings import JobSettings
from impart.video.export.spans import parse_handles
from impart.video.index.store import VideoRecord

__all__ = ["JobQueue"]

_COMMANDS = {kind: (sys.executable, "-P", "-m", f"impart.serve.jobs.children.{kind}") for kind in ("index", "export")}
_USUAL_WAIT_S, _LONGEST_WAIT_S = 10, 600
_FRAMES_PER_S = 25.0  # of handles in frames, before the rate of the film is known


@dataclass
class _Lane:
    """Jobs of one kind: those that wait, the one that runs, and the thread that runs them."""

    waiting: deque[Job]
    running: Job | None = None
    thread: threading.Thread | None = None


class JobQueue:
    """The jobs of one server.

    Args:
        index: folder of the index.
        records: returns the videos of the index by id.
        exports: folder of finished exports.
        roots: folders that indexing jobs may read; none = those of the indexed videos, as they are when a job starts.
        settings: limits.
        commands: start the processes, per kind; tests give others.
        on_indexed: called when a job has indexed, before it ends, so that clients then find what it added.
    """

    def __init__(
        self,
        index: Path,
        *,
        records: Callable[[], Mapping[str, VideoRecord]],
        exports: Path,
        roots: Sequence[Path] = (),
        settings: JobSettings | None = None,
        commands: Mapping[JobKind, Sequence[str]] | None = None,
        on_indexed: Callable[[], None] = lambda: None,
    ) -> None:
        self.settings = settings or JobSettings()
        self.files = ExportFiles(exports, most_mb=self.settings.export_mb, age_s=self.settings.export_age_s)
        self._index, self._records, self._on_indexed = index, records, on_indexed
        self._given_roots = [Path(os.path.abspath(os.path.expanduser(root))) for root in roots]  # noqa: PTH100, PTH111
        self._commands: Mapping[JobKind, Sequence[str]] = {**_COMMANDS, **(commands or {})}  # type: ignore[dict-item]
        self._lanes: dict[JobKind, _Lane] = {"index": _Lane(deque()), "export": _Lane(deque())}
        self._jobs: dict[str, Job] = {}
        self._changed = threading.Condition()
        self._closed_at: float | None = None

    def roots(self) -> list[Path]:
        """Return the folders that indexing jobs may read."""
        return list(self._given_roots) or top_folders(record.path for record in self._records().values())

    def index(self, paths: Sequence[str] | None = None, *, retry_failed: bool = False, prune: bool = False) -> Job:
        """Start a job that indexes folders.

        Args:
            paths: folders inside the roots; None = all roots.
            retry_failed, prune: as of `VideoIndex.add`.

        Raises:
            JobRefusedError: a path is not permitted, or too many jobs wait.
        """
        folders = () if paths is None else check_folders(paths, self.roots())
        return self._submit(IndexRequest(paths=folders, retry_failed=retry_failed, prune=prune))

    def export(self, request: ExportRequest) -> Job:
        """Start a job that exports spans.

        Raises:
            JobRefusedError: there are too many or too long spans, or too many jobs wait.
            QueryError: the handles are not valid.
        """
        most, hours = self.settings.export_spans, self.settings.export_hours
        if len(request.spans) > most:
            raise JobRefusedError(
                f"{len(request.spans)} spans: export at most {most} at once", status=422, code="too_many_spans"
            )
        handles = parse_handles(request.handles)
        margin_s = 2 * (handles.time_s + handles.frames / _FRAMES_PER_S)
        total_s = sum(span.end_s - span.start_s + margin_s for span in request.spans)
        if request.form in MEDIA_FORMS and total_s > hours * 3600:
            raise JobRefusedError(
                f"the spans are {total_s / 3600:.1f} hours long: export at most {hours:g} hours at once as "
                f"{request.form}, or a timeline, which has no such limit",
                status=422,
                code="too_long",
            )
        return self._submit(request)

    def retry(self, job_id: str) -> Job:
        """Start a job with the same request; one that indexes tries the files that failed again.

        Raises:
            JobRefusedError: there is no such job, it has not ended, or too many jobs wait.
        """
        job = self.get(job_id)
        if not job.ended:
            raise JobRefusedError(
                f"the job {job_id} is {job.status}: wait for its end, or cancel it", status=409, code="job_state"
            )
        request = job.request
        return self._submit(replace(request, retry_failed=True) if isinstance(request, IndexRequest) else request)

    def get(self, job_id: str) -> Job:
        """Return a job.

        Raises:
            JobRefusedError: there is none of this id.
        """
        with self._changed:
            job = self._jobs.get(job_id)
        if job is None:
            raise JobRefusedError(
                f"there is no job {job_id!r}: the last {self.settings.kept} are kept until the server ends",
                status=404,
                code="job_not_found",
            )
        return job

    def list(self) -> list[Job]:
        """List the jobs, the newest first."""
        with self._changed:
            return list(reversed(self._jobs.values()))

    def running(self, kind: JobKind) -> Job | None:
        """Return the job of a kind that runs now."""
        return self._lanes[kind].running

    def count_running(self) -> int:
        """Count the jobs that run now."""
        return sum(lane.running is not None for lane in self._lanes.values())

    def file_of(self, job: Job) -> tuple[Path, str] | None:
        """Return the finished file of an export, with its name; None where it was deleted meanwhile."""
        name = job.progress.file_name if isinstance(job.progress, ExportProgress) else None
        file = None if name is None else self.files.folder_of(job.id) / name
        return (file, str(name)) if file is not None and file.is_file() else None

    def begin_close(self) -> None:
        """Refuse new jobs, and ask those that run to stop after the video in progress. Returns at once."""
        with self._changed:
            self._closed_at = self._closed_at or time.monotonic()
            running = [lane.running for lane in self._lanes.values() if lane.running is not None]
            waiting = [job for lane in self._lanes.values() for job in lane.waiting]
            self._changed.notify_all()
        for job in [*waiting, *running]:
            job.cancel(stop=True)

    def close(self, grace_s: float | None = None) -> None:
        """Stop: the video in progress is committed where that takes less than the grace, then all processes end.

        Args:
            grace_s: counted from `begin_close`; None = the setting.
        """
        self.begin_close()
        assert self._closed_at is not None
        deadline = self._closed_at + (self.settings.grace_s if grace_s is None else grace_s)
        for lane in self._lanes.values():
            if lane.thread is not None:
                lane.thread.join(max(0.0, deadline - time.monotonic()))
                if lane.thread.is_alive() and lane.running is not None:
                    lane.running.kill()
                lane.thread.join(5.0)
        self.files.clear()

    def _submit(self, request: IndexRequest | ExportRequest) -> Job:
        if isinstance(request, IndexRequest) and not (request.paths or self.roots()):
            raise JobRefusedError(
                "the index has no videos yet and the server was given no folders: start it with impart serve --root "
                "FOLDER, or run impart index FOLDER",
                status=403,
                code="outside_roots",
            )
        job = Job(request, self.settings)
        lane = self._lanes[job.kind]
        with self._changed:
            if self._closed_at is not None:
                raise JobRefusedError("the server stops", status=503, code="server_stops", retry_after_s=10)
            lane.waiting = deque(one for one in lane.waiting if not one.ended)
            if len(lane.waiting) >= self.settings.waiting:
                raise JobRefusedError(
                    f"{len(lane.waiting)} jobs wait already: try again later",
                    status=429,
                    code="queue_full",
                    retry_after_s=self._wait_s(lane),
                )
            lane.waiting.append(job)
            self._jobs[job.id] = job
            self._forget()
            if lane.thread is None:
                name = f"impart-jobs-{job.kind}"
                lane.thread = threading.Thread(target=self._run_lane, args=(job.kind,), name=name, daemon=True)
                lane.thread.start()
            self._changed.notify_all()
        return job

    def _wait_s(self, lane: _Lane) -> int:
        """Estimate when a place in the queue is free."""
        progress = lane.running.progress if lane.running is not None else None
        remaining_s = progress.view(time.monotonic())["remaining_s"] if isinstance(progress, IndexProgress) else None
        return int(min(max(remaining_s or _USUAL_WAIT_S, 1), _LONGEST_WAIT_S))

    def _forget(self) -> None:
        """Forget the oldest of the finished jobs where too many are kept."""
        ended = [job for job in self._jobs.values() if job.ended]
        for job in ended[: max(0, len(ended) - self.settings.kept)]:
            del self._jobs[job.id]
            self.files.remove(job.id)

    def _run_lane(self, kind: JobKind) -> None:
        lane = self._lanes[kind]
        while True:
            with self._changed:
                self._changed.wait_for(lambda: lane.waiting or self._closed_at is not None)
                if not lane.waiting:
                    return
                job = lane.running = lane.waiting.popleft()
            try:
                if job.start():
                    self._run(job)
            except (ImpartError, OSError) as error:
                job.fail("failed", str(error))
            finally:
                job.end("failed")  # where it has not ended
                with self._changed:
                    lane.running = None
                    self._forget()

    def _run(self, job: Job) -> None:
        """Run the process of a job until its end."""
        threads = self.settings.threads if job.kind == "index" else 0
        command, request = self._commands[job.kind], self._request(job)
        process = JobProcess(command, request, nice=self.settings.nice, threads=threads)
        try:
            job.attach(process)
            for message in process.messages():
                job.handle(message)
            if job.kind == "index" and self._closed_at is None:
                self._on_indexed()
            job.detach()
        finally:
            process.close()
        if job.kind == "export":
            if self.file_of(job) is None:
                self.files.remove(job.id)
            self.files.keep_within_limits()

    def _request(self, job: Job) -> dict[str, Any]:
        """Make the request of the process."""
        if isinstance(job.request, IndexRequest):
            roots = self.roots()
            return {
                "index": self._index,
                "paths": [str(path) for path in job.request.paths or roots],
                "roots": [str(root) for root in roots],
                "retry_failed": job.request.retry_failed,
                "prune": job.request.prune,
                "device": self.settings.device,
                "threads": self.settings.threads,
            }
        records = self._records()
        spans = []
        for number, span in enumerate(job.request.spans, start=1):
            record = records.get(span.video_id)
            file = None
            if record is not None:
                names = ("size_bytes", "mtime_ns", "content_hash")
                file = {"path": str(record.path), "kind": record.kind, **{n: getattr(record, n) for n in names}}
            spans.append(
                {"number": number, "start_s": span.start_s, "end_s": span.end_s, "label": span.label, "file": file}
            )
        return {
            "form": job.request.form,
            "spans": spans,
            "handles": job.request.handles,
            "title": job.request.title,
            "folder": self.files.make_folder(job.id),
        }
