"""Files of the index with byte ranges, and previews of those that browsers do not play."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from impart.errors import DataError, DecodeError
from impart.serve.media.files import FileGoneError, answer_file, tag_of
from impart.serve.media.playable import media_type_of
from impart.serve.media.previews import PreviewSpan
from impart.serve.media.sources import content_key, is_changed, open_source
from impart.serve.media.work import BusyError, CancelledWorkError
from impart.serve.problems import Problem, responses
from impart.serve.routes.videos import VideoId
from impart.serve.schemas.text import path_text
from impart.serve.service import ServiceDep
from impart.video.index.store import VideoRecord

__all__ = ["CONDITIONS", "errors_of", "image_of", "router"]

router = APIRouter(tags=["media"])


def image_of(media_type: str, description: str) -> dict[str, Any]:
    """Document an answer of bytes in the OpenAPI document."""
    content = {media_type: {"schema": {"type": "string", "format": "binary"}}}
    return {"description": description, "content": content}


CONDITIONS: dict[int | str, dict[str, Any]] = {
    206: image_of("*/*", "The range asked for; several ranges that do not join are answered with the whole file."),
    304: {"description": "The client has it: its `If-None-Match` or `If-Modified-Since` names the present file."},
}
_FILE_DOCS = {200: image_of("*/*", "The whole file."), **CONDITIONS, **responses(404, 412, 416, 422, 503)}
_PREVIEW_DOCS = {
    200: image_of("video/mp4", "The whole preview; headers `Preview-Start-S`, `Preview-End-S`, `Preview-Cut`."),
    **CONDITIONS,
    **responses(404, 412, 416, 422, 429, 503),
}

Second = Annotated[float, Query(ge=0, le=1e7, allow_inf_nan=False, description="Seconds from the start of the video.")]


@router.head("/media/{video_id}", summary="Headers of a file", responses=_FILE_DOCS, response_class=Response)
@router.get("/media/{video_id}", summary="A file of the index", responses=_FILE_DOCS, response_class=Response)
async def media(request: Request, video_id: VideoId, service: ServiceDep) -> Response:
    """Return the file of a video or photo as it is, or a range of it.

    A file that has changed since it was indexed is served with the header `File-Changed: true` and another tag.
    """
    record = await run_in_threadpool(service.record, video_id)
    with errors_of(record):
        opened = await run_in_threadpool(open_source, record)
    changed = is_changed(record, opened)
    return answer_file(
        request,
        opened,
        etag=tag_of("file", content_key(record, size=opened.size, mtime_ns=opened.mtime_ns)),
        media_type=media_type_of(record),
        name=path_text(Path(record.path.name)),
        cache_control="private, no-cache",
        headers={"file-changed": "true"} if changed else None,
    )


@router.head("/previews/{video_id}", summary="Make a preview", responses=_PREVIEW_DOCS, response_class=Response)
@router.get("/previews/{video_id}", summary="A span as MP4", responses=_PREVIEW_DOCS, response_class=Response)
async def preview(request: Request, video_id: VideoId, service: ServiceDep, start_s: Second, end_s: Second) -> Response:
    """Return a span of a video as an MP4 file that every browser plays; it is made when it is first asked for.

    Time 0 of the file is `start_s`. A span of more than two minutes is cut, which `Preview-Cut: true` tells.
    """
    record = await run_in_threadpool(service.record, video_id)
    if record.kind == "photo":
        raise Problem(422, "no_preview", f"a photo has no preview: use /frames/{video_id}.webp")
    if start_s >= record.duration_s:
        raise Problem(422, "time_outside", f"the video ends at {record.duration_s:.3f} s: ask for an earlier span")
    if end_s <= start_s:
        raise Problem(422, "bad_span", f"the span ends at {end_s:g} s, before it starts: end_s must be above start_s")
    span = PreviewSpan.of(start_s, end_s, duration_s=record.duration_s)
    with errors_of(record):
        opened, tag = await service.media.previews.opened(record, span, request=request)
    return answer_file(
        request,
        opened,
        etag=tag,
        media_type="video/mp4",
        name=f"{path_text(Path(record.path.name))}_{span.start_s:.3f}.mp4",
        cache_control="private, max-age=3600",
        modified_ns=record.mtime_ns,
        headers={
            "preview-start-s": f"{span.start_s:.3f}",
            "preview-end-s": f"{span.end_s:.3f}",
            "preview-cut": "true" if span.cut else "false",
        },
    )


@contextmanager
def errors_of(record: VideoRecord) -> Iterator[None]:
    """Turn the errors of reading a file into problems."""
    name = path_text(record.path)
    try:
        yield
    except FileGoneError as error:
        raise _gone(name, str(error)) from error
    except BusyError as error:
        wait = {"Retry-After": str(error.retry_s)}
        raise Problem(429, "busy", f"the server is busy: {error}", headers=wait) from error
    except CancelledWorkError as error:
        raise Problem(503, "cancelled", "the work was stopped: ask again", headers={"Retry-After": "1"}) from error
    except (DataError, DecodeError) as error:
        if not record.path.exists():
            raise _gone(name, "no such file") from error
        raise Problem(422, "cannot_decode", str(error)) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise Problem(503, "cache_unwritable", f"the server's cache cannot be written: {reason}") from error


def _gone(name: str, reason: str) -> Problem:
    return Problem(404, "file_gone", f"{name}: {reason}; connect its disk, or index its folder again")
