"""Searches by text, image, or a moment of a video; where they light up in videos; and their query images."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from fastapi import Path as InPath
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from impart.serve.problems import Problem, responses
from impart.serve.safety.uploads import read_upload
from impart.serve.schemas.paging import make_cursor, read_cursor
from impart.serve.schemas.search import HeatOut, HeatRequest, HeatsOut, HitOut, SearchOut, SearchRequest
from impart.serve.search.asked import Similar, asked_of, key_of, keywords_of
from impart.serve.search.service import MOST_HITS
from impart.serve.service import Service, ServiceDep

router = APIRouter(tags=["search"])

_REQUEST = {"$ref": "#/components/schemas/SearchRequest"}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": _REQUEST},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "request": {"type": "string", "description": "A SearchRequest as JSON."},
                        "image": {"type": "string", "format": "binary", "description": "The query image."},
                    },
                    "required": ["image"],
                    "additionalProperties": False,
                }
            },
        },
    }
}
_JSON, _FORM = "application/json", "multipart/form-data"


@router.post(
    "/search",
    summary="Search",
    response_model=SearchOut,
    responses=responses(400, 404, 413, 415, 422, 429, 503),
    openapi_extra=_BODY,
)
async def search(http: Request, service: ServiceDep) -> Response:
    """Find moments by a text, an image, both, or a moment of a video; best first.

    With a query image, send a form with the fields `request` (JSON) and `image`. The image is kept for a while: the
    answer names its `image_id`, which further pages and other searches use.
    """
    began = time.perf_counter()
    request = await _read(http, service)
    answer = await _search(request, service, began)
    # Not returned as a model: FastAPI would check and copy each of its hits once more.
    return Response(answer.model_dump_json(), media_type=_JSON)


async def _search(request: SearchRequest, service: Service, began: float) -> SearchOut:
    key = key_of(request)
    offset = 0 if request.cursor is None else read_cursor(request.cursor, key, (int,))[0]
    if not 0 <= offset <= MOST_HITS:
        raise Problem(400, "bad_cursor", f"a search has at most {MOST_HITS} hits: begin without a cursor")
    image = None if request.image_id is None else service.images.file(request.image_id)
    query, keywords = asked_of(request, image), keywords_of(request, folder=_folder(request, service))
    found = await service.searches.find(key, query, keywords, offset=offset, limit=request.limit)
    stop = offset + request.limit
    more = len(found.hits) > stop
    return SearchOut(
        hits=[HitOut.of(hit) for hit in found.hits[offset:stop]],
        next_cursor=make_cursor(key, stop) if more else None,
        strong=found.strong,
        took_ms=round((time.perf_counter() - began) * 1000, 1),
        image_id=request.image_id,
        names=list(found.names),
    )


def _folder(request: SearchRequest, service: Service) -> Path | None:
    """Find the folder that a request names.

    Raises:
        Problem: 404, no indexed file is in it.
    """
    if request.folder is None:
        return None
    folder = service.catalogue().folder(request.folder)
    if folder is None:
        detail = f"no indexed file is in {request.folder!r}: give a value of /folders"
        raise Problem(404, "folder_not_found", detail)
    return folder


@router.post("/search/heat", summary="Where a search lights up", responses=responses(400, 404, 422, 503))
def heats(request: HeatRequest, service: ServiceDep) -> HeatsOut:
    """Find where a search lights up in some videos, such as those of a page of hits. All have one scale, 0 to 1."""
    return HeatsOut(heats=_heats(request, request.video_ids, request.bins, service))


@router.post(
    "/videos/{video_id}/heat", summary="Where a search lights up in a video", responses=responses(400, 404, 422, 503)
)
def heat(
    video_id: Annotated[str, InPath(pattern="^[0-9a-f]{16}$")], request: SearchRequest, service: ServiceDep
) -> HeatOut:
    """Find where a search lights up in one video."""
    found = _heats(request, [video_id], 100, service)
    if not found:
        raise Problem(404, "video_not_found", f"the index has no video {video_id!r}: search again, or list /videos")
    return found[0]


def _heats(request: SearchRequest, video_ids: list[str], bins: int, service: Service) -> list[HeatOut]:
    image = None if request.image_id is None else service.images.file(request.image_id)
    query = asked_of(request, image)
    if not service.index.exists:
        return []
    asked = (query.video_id, query.at_s) if isinstance(query, Similar) else query
    found = service.index.searcher.heat(asked, video_ids, bins=bins, names=request.names)
    return [HeatOut.of(one) for one in found]


@router.get(
    "/images/{image_id}.webp",
    summary="A query image",
    response_class=FileResponse,
    responses={200: {"content": {"image/webp": {}}, "description": "The image"}, **responses(404, 422)},
)
def image(
    image_id: Annotated[
        str, InPath(description="`image_id` of a search.", pattern="^[0-9a-f]{32}$", examples=["0f" * 16])
    ],
    service: ServiceDep,
) -> FileResponse:
    """Show a query image that was uploaded."""
    headers = {"Cache-Control": "private, max-age=86400, immutable"}
    return FileResponse(service.images.shown(image_id), media_type="image/webp", headers=headers)


async def _read(http: Request, service: Service) -> SearchRequest:
    """Read the request from JSON, or from a form with an image.

    Raises:
        RequestValidationError: it is not valid.
        Problem: 413 and 415 of the image, or the body is of another type.
    """
    media_type = http.headers.get("content-type", _JSON).partition(";")[0].strip().lower()
    if media_type == _JSON:
        return _parsed(await http.body())
    if media_type != _FORM:
        raise Problem(415, "unsupported_media_type", f"send JSON, or a form with an image, not {media_type!r}")
    async with http.form(max_files=1, max_fields=1) as form:
        given, upload = form.get("request", "{}"), form.get("image")
        if not isinstance(given, str) or not isinstance(upload, UploadFile) or set(form) - {"request", "image"}:
            raise Problem(422, "invalid_request", "a form has the fields request (JSON) and image (a file)")
        request = _parsed(given.encode("utf-8", "surrogatepass"))
        data = await read_upload(upload, service.settings)
    return request.model_copy(update={"image_id": await run_in_threadpool(service.images.add, data)})


def _parsed(data: bytes) -> SearchRequest:
    try:
        return SearchRequest.model_validate_json(data)
    except ValidationError as error:
        raise RequestValidationError([{**one, "loc": ("body", *one["loc"])} for one in error.errors()]) from error
