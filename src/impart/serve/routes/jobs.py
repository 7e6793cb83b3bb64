"""Indexing jobs, their events, and the state of the index."""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, Header
from fastapi import Path as PathParam
from fastapi.sse import EventSourceResponse, ServerSentEvent

from impart.serve.jobs.job import Job
from impart.serve.jobs.progress.streams import follow
from impart.serve.jobs.refusal import JobRefusedError
from impart.serve.problems import Problem, responses
from impart.serve.schemas.jobs import FailuresOut, IndexJobRequest, IndexOut, JobOut, JobsOut, RecordedFailureOut
from impart.serve.schemas.paging import CursorParam, LimitParam, make_cursor, read_cursor
from impart.serve.schemas.text import path_text
from impart.serve.service import Service, ServiceDep
from impart.video.index.durable.lock import is_locked
from impart.video.index.pause import is_paused
from impart.video.integrity import ROWS_MISSING

__all__ = ["JobId", "refusals", "router"]

router = APIRouter(tags=["jobs"])

JobId = Annotated[str, PathParam(description="Id of the job.", pattern="^[0-9a-f]{16}$")]
_RETRY_MS = 2000
_NUMBER = re.compile("[0-9]{1,15}")


@contextmanager
def refusals() -> Iterator[None]:
    """Turn refusals of the queue into problems.

    Raises:
        Problem: with the status and the code of the refusal.
    """
    try:
        yield
    except JobRefusedError as error:
        headers = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
        raise Problem(error.status, error.code, str(error), headers=headers) from error


@router.post("/jobs/index", summary="Index folders", status_code=202, responses=responses(400, 403, 422, 429, 503))
def index(request: IndexJobRequest, service: ServiceDep) -> JobOut:
    """Start a job that indexes new and changed videos and photos. One runs at a time; others wait.

    Jobs are in memory: after a restart of the server they are gone. The same request then continues where the job was,
    since every finished video is in the index.
    """
    service.check_writable()
    with refusals():
        job = service.jobs.index(request.paths, retry_failed=request.retry_failed, prune=request.prune)
    return JobOut(**job.view())


@router.get("/jobs", summary="List jobs")
def jobs(service: ServiceDep) -> JobsOut:
    """List the jobs that wait or run and the last finished ones, the newest first. A restart forgets them."""
    return JobsOut(jobs=[JobOut(**job.view()) for job in service.jobs.list()])


@router.get("/jobs/{job_id}", summary="One job", responses=responses(404, 422))
def job(job_id: JobId, service: ServiceDep) -> JobOut:
    """Return the status, progress and failures of a job."""
    with refusals():
        return JobOut(**service.jobs.get(job_id).view())


@router.post("/jobs/{job_id}/cancel", summary="Cancel a job", responses=responses(403, 404, 422))
def cancel(job_id: JobId, service: ServiceDep) -> JobOut:
    """Stop a job. The video in progress is lost, all finished ones stay. A job that has ended stays as it is."""
    service.check_writable()
    with refusals():
        found = service.jobs.get(job_id)
        found.cancel()
    return JobOut(**found.view())


@router.post("/jobs/{job_id}/pause", summary="Pause a job", responses=responses(403, 404, 409, 422))
def pause(job_id: JobId, service: ServiceDep) -> JobOut:
    """Pause a job that runs, also within a long file; it keeps the lock of the index."""
    service.check_writable()
    with refusals():
        found = service.jobs.get(job_id)
        found.pause()
    return JobOut(**found.view())


@router.post("/jobs/{job_id}/resume", summary="Resume a job", responses=responses(403, 404, 409, 422))
def resume(job_id: JobId, service: ServiceDep) -> JobOut:
    """Go on with a paused job."""
    service.check_writable()
    with refusals():
        found = service.jobs.get(job_id)
        found.resume()
    return JobOut(**found.view())


@router.post(
    "/jobs/{job_id}/retry",
    summary="Start a job again",
    status_code=202,
    responses=responses(403, 404, 409, 422, 429, 503),
)
def retry(job_id: JobId, service: ServiceDep) -> JobOut:
    """Start another job with the same request; files that failed are tried again."""
    service.check_writable()
    with refusals():
        return JobOut(**service.jobs.retry(job_id).view())


async def _stream(
    job_id: JobId,
    service: ServiceDep,
    last_event_id: Annotated[
        str | None, Header(description="Number of the last event that the client has; browsers send it by themselves.")
    ] = None,
) -> AsyncIterator[tuple[Job, int | None]]:
    """Find the job, and take the place of a stream until the answer has ended."""
    with refusals(), service.streams.one():
        last = int(last_event_id) if last_event_id and _NUMBER.fullmatch(last_event_id) else None
        yield service.jobs.get(job_id), last


@router.get(
    "/jobs/{job_id}/events",
    summary="Follow a job",
    response_class=EventSourceResponse,
    responses=responses(404, 422, 429),
)
async def events(stream: Annotated[tuple[Job, int | None], Depends(_stream)]) -> AsyncIterable[ServerSentEvent]:
    """Stream the events of a job (server-sent events) until its end.

    Each event has a number as its id and JSON as its data: `snapshot` and `done` have the whole job, `progress` its
    `index` or `export`, `status` the `status` and `error`, `video` a file that was added, updated, moved, copied or
    removed, `failure` an entry of `failures` or `skipped`. A client that comes back with `Last-Event-ID` gets the
    events after it, or a `snapshot` where they are no longer kept. The stream ends after `done`: close it then.
    """
    found, last = stream
    async for event in follow(found, last):
        yield ServerSentEvent(data=event.data, event=event.kind, id=str(event.number), retry=_RETRY_MS)


@router.get("/index", summary="State of the index", responses=responses(503))
def state(service: ServiceDep) -> IndexOut:
    """Return counts, the encoder and reference set in force, the roots, and whether a process writes now."""
    running = service.jobs.running("index")
    stats = service.stats()
    known = set(IndexOut.model_fields) & set(vars(stats)) - {"paused"} if stats is not None else set()
    return IndexOut(
        name=path_text(Path(service.index.path.name)),
        exists=stats is not None,
        read_only=service.settings.read_only,
        roots=[path_text(root) for root in service.jobs.roots()],
        writer_active=is_locked(service.index.path),
        paused=is_paused(service.index.path),  # the counts may be those of the last commit
        job_id=None if running is None else running.id,
        **{name: getattr(stats, name) for name in known},
    )


@router.get("/failures", summary="Files that could not be indexed", responses=responses(400, 422, 503))
def failures(
    service: ServiceDep,
    limit: LimitParam = 50,
    cursor: CursorParam = None,
) -> FailuresOut:
    """List the files that could not be indexed completely, with reasons. `retry_failed` of a job tries them again."""
    first = 0 if cursor is None else read_cursor(cursor, "failures", (int,))[0]
    found = _failures(service)
    page = found[first : first + limit]
    more = first + limit < len(found)
    return FailuresOut(
        failures=page, total=len(found), next_cursor=make_cursor("failures", first + limit) if more else None
    )


def _failures(service: Service) -> list[RecordedFailureOut]:
    index = service.index
    found = [
        RecordedFailureOut.of(one.path, "failed", one.reason, attempts=one.attempts, failed_at=one.failed_at)
        for one in index.failures()
        if not one.no_video
    ]
    for one in service.records().values():
        if one.problem:
            found.append(RecordedFailureOut.of(one.path, "partial", one.problem, failed_at=one.indexed_at))
    return found + [RecordedFailureOut.of(one.path, "incomplete", ROWS_MISSING) for one in index.incomplete()]
