"""Exports: spans as files for editors, players and tables."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from impart.serve.media.files import FileGoneError, answer_file, open_file, tag_of
from impart.serve.problems import Problem, responses
from impart.serve.routes.jobs import JobId, refusals
from impart.serve.routes.media import CONDITIONS, image_of
from impart.serve.schemas.exports import ExportIn
from impart.serve.schemas.jobs import JobOut
from impart.serve.service import ServiceDep

__all__ = ["router"]

router = APIRouter(tags=["exports"])
_FILE_DOCS = {200: image_of("*/*", "The file."), **CONDITIONS, **responses(404, 409, 410, 412, 416, 422)}


@router.post("/exports", summary="Export spans", status_code=202, responses=responses(400, 403, 422, 429, 503))
def export(request: ExportIn, service: ServiceDep) -> JobOut:
    """Start a job that writes spans as clips, a reel, a sheet or a timeline; follow it by `/jobs/{id}/events`.

    Videos that are gone or have changed since they were indexed are left out and named in `skipped`. The file is kept
    for a day at most, and deleted when the server ends.
    """
    service.check_writable()
    with refusals():
        return JobOut(**service.jobs.export(request.request()).view())


@router.get(
    "/exports/{job_id}/file",
    summary="The file of an export",
    response_class=Response,
    responses=_FILE_DOCS,
)
def file(request: Request, job_id: JobId, service: ServiceDep) -> Response:
    """Return the finished file of an export, to be saved."""
    with refusals():
        job = service.jobs.get(job_id)
    view = job.view()
    if view["export"] is None:
        raise Problem(404, "job_not_found", f"the job {job_id} is no export")
    if view["export"]["file"] is None:
        remedy = f"see /jobs/{job_id}" if job.ended else "wait for its end"
        raise Problem(409, "no_file", f"the export {job_id} is {job.status} and has no file: {remedy}")
    found = service.jobs.file_of(job)
    deleted = Problem(410, "file_deleted", f"the file of the export {job_id} was deleted: start it again")
    if found is None:
        raise deleted
    path, name = found
    try:
        opened = open_file(path)
    except FileGoneError as error:
        raise deleted from error
    return answer_file(
        request,
        opened,
        etag=tag_of("export", job_id, opened.size, opened.mtime_ns),
        media_type=view["export"]["file"]["media_type"],
        name=name,
        cache_control="private, no-store",
        save=True,
    )
