"""Frames of videos, and photos, as WebP images."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from impart.serve.media.files import answer_bytes
from impart.serve.media.frames import WIDTHS_PX, width_for
from impart.serve.problems import Problem, responses
from impart.serve.routes.media import errors_of, image_of
from impart.serve.routes.videos import VideoId
from impart.serve.service import ServiceDep

router = APIRouter(tags=["media"])

AFTER_END_S = 1.0
"""A time that far behind the end still gives the last frame: lengths are rounded on their way."""
_FRESH = "private, max-age=3600, stale-while-revalidate=604800"
_KEPT = "private, max-age=31536000, immutable"
_DOCS: dict[int | str, dict[str, Any]] = {
    200: image_of("image/webp", "The image."),
    304: {"description": "The client has it: its `If-None-Match` names the present tag."},
    **responses(404, 412, 422, 429, 503),
}

At = Annotated[float, Query(ge=0, le=1e7, allow_inf_nan=False, description="Seconds from the start of the video.")]
Width = Annotated[
    int,
    Query(
        ge=1,
        le=WIDTHS_PX[-1],
        description=f"Width in pixels: the next of {', '.join(map(str, WIDTHS_PX))}; smaller videos are not enlarged.",
    ),
]
Version = Annotated[
    str | None,
    Query(
        max_length=100,
        description="Any text that changes with the content, such as `indexed_at`: then the image is kept for a year.",
    ),
]


@router.head("/frames/{video_id}.webp", summary="Headers of a frame", responses=_DOCS, response_class=Response)
@router.get("/frames/{video_id}.webp", summary="A frame as an image", responses=_DOCS, response_class=Response)
async def frame(
    request: Request, video_id: VideoId, service: ServiceDep, t: At = 0.0, w: Width = 320, v: Version = None
) -> Response:
    """Return the frame that is shown at a time, or a photo, upright and in SDR."""
    record = await run_in_threadpool(service.record, video_id)
    if record.kind == "video" and t > record.duration_s + AFTER_END_S:
        raise Problem(422, "time_outside", f"the video ends at {record.duration_s:.3f} s: ask for an earlier time")
    width_px, frames = width_for(w), service.media.frames
    key = await run_in_threadpool(frames.key, record, t, width_px=width_px)
    tag, cache_control = frames.tag(key), _FRESH if v is None else _KEPT
    if tag in request.headers.get("if-none-match", ""):
        content = b""  # a 304 needs no image
    else:
        with errors_of(record):
            content = await frames.webp(record, t, width_px=width_px, key=key, request=request)
    return answer_bytes(request, content, etag=tag, media_type="image/webp", cache_control=cache_control)
