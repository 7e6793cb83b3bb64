"""Taught names: teach, list, rename, remove, and find where they are present. A name is in force at once."""

from __future__ import annotations

import bisect
from pathlib import PurePath
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from PIL import Image
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile

from impart.errors import ImpartError
from impart.images import DRAFT_SIDES, load_image
from impart.serve.library.thumbnails import WEBP, webp_file
from impart.serve.problems import Problem, responses
from impart.serve.safety.uploads import check_image
from impart.serve.schemas.names import (
    LONGEST_NAME,
    AddedOut,
    MomentIn,
    NameIn,
    NameOut,
    NameRename,
    NamesOut,
    PresenceOut,
    RemovedOut,
    SpansOut,
    id_of_image,
    id_of_name,
)
from impart.serve.schemas.paging import CursorParam, LimitParam, make_cursor, read_cursor
from impart.serve.schemas.search import HitOut
from impart.serve.service import Service, ServiceDep
from impart.serve.settings import ServeSettings
from impart.video.names.find import presence_bins
from impart.video.names.taught import NameInfo
from impart.video.search.hits import Hit
from impart.video.search.last_search import SavedHit

router = APIRouter(tags=["names"])

NameId = Annotated[str, Path(description="Id of the name, of `/names`.", pattern="^[0-9a-f]{16}$")]
ImageId = Annotated[str, Path(description="Id of the image, of `/names`.", pattern="^[0-9a-f]{16}$")]
Order = Literal["score", "time"]

_LARGEST_PX = 2048  # of an uploaded image that is kept in memory
_LONGEST_SOURCE = 120
_LATE_S = 0.5  # a moment this long behind the end is one of the last frame: players round


def _inlined(model: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON schema of a model without references: those of a hand-written body are not resolved."""
    schema = model.model_json_schema()
    parts = schema.pop("$defs", {})

    def resolved(value: Any) -> Any:
        if isinstance(value, dict):
            if "$ref" in value:
                return resolved(parts[value["$ref"].rpartition("/")[2]])
            return {key: resolved(one) for key, one in value.items()}
        return [resolved(one) for one in value] if isinstance(value, list) else value

    whole: dict[str, Any] = resolved(schema)
    return whole


_FORM = {
    "type": "object",
    "required": ["name", "images"],
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": LONGEST_NAME},
        "images": {
            "type": "array",
            "minItems": 1,
            "description": "At most 20 at once, and 100 MiB in all.",
            "items": {"type": "string", "format": "binary"},
        },
    },
}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": _inlined(NameIn)}, "multipart/form-data": {"schema": _FORM}},
    }
}


@router.get("/names", summary="List the taught names", responses=responses(409, 422, 503))
def names(
    service: ServiceDep,
    check: Annotated[bool, Query(description="Add the check of each name by leave-one-out.")] = False,
) -> NamesOut:
    """List the taught names in alphabetical order, each with its images."""
    if not service.index.exists:
        return NamesOut(names=[])
    videos = service.catalogue().by_path
    return NamesOut(names=[NameOut.of(info, videos) for info in service.index.names.list(check=check)])


@router.get("/names/{name_id}", summary="One name", responses=responses(404, 409, 422, 503))
def name(name_id: NameId, service: ServiceDep) -> NameOut:
    """Return one name with its images and their check by leave-one-out."""
    return NameOut.of(_info(service, name_id, check=True), service.catalogue().by_path)


@router.post(
    "/names",
    summary="Teach a name",
    responses=responses(400, 403, 404, 409, 413, 415, 422, 503),
    openapi_extra=_BODY,
)
async def teach(request: Request, service: ServiceDep) -> AddedOut:
    """Teach a name by moments of indexed videos (JSON) or uploaded images (multipart), or add some to a known one.

    The name is in force at once, also while videos are indexed. Images that cannot be read are listed with reasons.
    """
    service.check_writable()
    if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        async with request.form(max_files=service.settings.upload_images, max_fields=4) as form:
            given = form.get("name")
            uploads = [one for one in form.getlist("images") if isinstance(one, UploadFile)]
            if not isinstance(given, str) or not given or not uploads:
                raise Problem(422, "invalid_request", "a form needs the field `name`, and one or more files `images`")
            most = (service.settings.upload_mb << 20) + 1  # enough to see that one is too large
            files = [(_source(one.filename, i), await one.read(most)) for i, one in enumerate(uploads)]
        return await run_in_threadpool(_teach_images, service, given, files)
    try:
        asked = NameIn.model_validate_json(await request.body())
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False)
        raise RequestValidationError([{**one, "loc": ("body", *one["loc"])} for one in errors]) from error
    return await run_in_threadpool(_teach_moments, service, asked)


@router.patch("/names/{name_id}", summary="Rename a name", responses=responses(400, 403, 404, 409, 422, 503))
def rename(name_id: NameId, body: NameRename, service: ServiceDep) -> NameOut:
    """Give a name another spelling; the answer has its new id."""
    service.check_writable()
    old = _known(service, name_id)
    taken = id_of_name(body.name)
    if taken != name_id and any(id_of_name(one) == taken for one in _taught(service)):
        raise Problem(409, "name_taken", f"{body.name!r} is a name already: remove it first, or add images to it")
    new = service.index.names.rename(old, body.name)
    return NameOut.of(_info(service, id_of_name(new)), service.catalogue().by_path)


@router.delete("/names/{name_id}", summary="Remove a name", responses=responses(403, 404, 409, 422, 503))
def remove(name_id: NameId, service: ServiceDep) -> RemovedOut:
    """Remove a name with all its images."""
    service.check_writable()
    return RemovedOut(removed=service.index.names.remove(_known(service, name_id)))


@router.delete(
    "/names/{name_id}/images/{image_id}",
    summary="Remove one image of a name",
    responses=responses(403, 404, 409, 422, 503),
)
def remove_image(name_id: NameId, image_id: ImageId, service: ServiceDep) -> RemovedOut:
    """Remove one image of a name; with its last image, the name is removed."""
    service.check_writable()
    known = _known(service, name_id)
    return RemovedOut(removed=service.index.names.remove(known, hashes=[_hash(service, known, image_id)]))


@router.get(
    "/names/{name_id}/images/{image_id}.webp",
    summary="Thumbnail of an image of a name",
    responses={**WEBP, **responses(404, 409, 422, 503)},
    response_class=Response,
)
def thumbnail(name_id: NameId, image_id: ImageId, service: ServiceDep, request: Request) -> Response:
    """Return the small copy of an image that the index keeps."""
    file = service.index.names.taught().thumbnail(_hash(service, _known(service, name_id), image_id))
    if file is None:
        raise Problem(404, "no_thumbnail", "only the vectors of this image are known: its file was gone")
    return webp_file(request, file, tag=image_id)


@router.get("/names/{name_id}/spans", summary="Where a name is present", responses=responses(400, 404, 409, 422, 503))
def spans(
    name_id: NameId,
    service: ServiceDep,
    video_id: Annotated[str | None, Query(pattern="^[0-9a-f]{16}$", description="Only in this video.")] = None,
    order: Annotated[Order, Query(description="By presence, highest first, or by path and time.")] = "score",
    limit: LimitParam = 50,
    cursor: CursorParam = None,
) -> SpansOut:
    """List the spans in which a name is present, by its images alone."""
    if video_id is not None:
        service.record(video_id)
    found = service.index.names.find(_known(service, name_id))
    shown = [(hit, HitOut.of(hit)) for hit in found if video_id in (None, hit.video_id)]
    keyed = sorted((_key(hit, out.path, order), number) for number, (hit, out) in enumerate(shown))
    request = (name_id, video_id, order)
    first = 0
    if cursor is not None:
        kinds = (float, str, float) if order == "score" else (str, float)
        first = bisect.bisect_right(keyed, tuple(read_cursor(cursor, request, kinds)), key=lambda one: one[0])
    page = keyed[first : first + limit]
    hits = [shown[number][1].model_copy(update={"rank": first + i}) for i, (_, number) in enumerate(page, 1)]
    more = first + limit < len(keyed)
    return SpansOut(
        hits=hits, total=len(keyed), next_cursor=make_cursor(request, *page[-1][0]) if more and page else None
    )


@router.get(
    "/names/{name_id}/presence", summary="Presence of a name in a video", responses=responses(404, 409, 422, 503)
)
def presence(
    name_id: NameId,
    service: ServiceDep,
    video_id: Annotated[str, Query(pattern="^[0-9a-f]{16}$")],
    bins: Annotated[int, Query(ge=1, le=2000, description="Number of bins.")] = 200,
) -> PresenceOut:
    """Return the presence of a name over the time of one video, from 0 to 1, in bins of equal length."""
    service.record(video_id)
    prepared = service.index.names.prepared()
    known = _known(service, name_id)
    snapshot = prepared.snapshot
    video = snapshot.number_of.get(video_id)
    if video is None or known not in prepared.taught.rows:  # removed, or incomplete
        raise Problem(404, "no_presence", f"video {video_id} cannot be searched now: index it again, or try again")
    own = slice(int(snapshot.offsets[video]), int(snapshot.offsets[video + 1]))
    values, step_s = presence_bins(
        prepared.presence(known)[own], snapshot.start_s[own], snapshot.end_s[own], count=bins
    )
    return PresenceOut(start_s=0.0, step_s=step_s, bins=[round(value, 4) for value in values.tolist()])


def _taught(service: Service) -> tuple[str, ...]:
    return service.index.names.taught().names if service.index.exists else ()


def _known(service: Service, name_id: str) -> str:
    found = next((one for one in _taught(service) if id_of_name(one) == name_id), None)
    if found is None:
        raise Problem(
            404, "name_not_found", f"no name has the id {name_id!r}: list /names, since a renamed one has another"
        )
    return found


def _info(service: Service, name_id: str, *, check: bool = False) -> NameInfo:
    known = _known(service, name_id)
    found = next((info for info in service.index.names.list(check=check) if info.name == known), None)
    if found is None:
        raise Problem(404, "name_not_found", f"the name {known!r} was removed meanwhile")
    return found


def _hash(service: Service, name: str, image_id: str) -> str:
    taught = service.index.names.taught()
    hashes = taught.column(name, "hash") if name in taught.rows else []
    found = next((one for one in hashes if id_of_image(one) == image_id), None)
    if found is None:
        raise Problem(404, "image_not_found", f"{name} has no image {image_id!r}: list /names")
    return found


def _key(hit: Hit, path: str, order: Order) -> tuple[str | float, ...]:
    return (-hit.score, path, hit.start_s) if order == "score" else (path, hit.start_s)


def _teach_moments(service: Service, asked: NameIn) -> AddedOut:
    moments = [_moment(service, number, one) for number, one in enumerate(asked.moments, 1)]
    added = service.index.names.add_moments(asked.name, moments)
    return AddedOut.of(added, service.index.names.list())


def _moment(service: Service, number: int, given: MomentIn) -> SavedHit:
    record = service.record(given.video_id)
    start_s, end_s, best_s = given.span
    if record.kind == "video" and max(start_s, best_s) > record.duration_s + _LATE_S:
        detail = f"{max(start_s, best_s):g} s is outside {record.path.name}: it ends at {record.duration_s:g} s"
        raise Problem(422, "time_outside", detail)
    return SavedHit(
        number=number,
        path=record.path,
        start_s=start_s,
        end_s=end_s,
        best_s=best_s,
        score=0.0,
        video_id=record.video_id,
        kind=record.kind,
        label="",
    )


def _teach_images(service: Service, name: str, files: list[tuple[str, bytes]]) -> AddedOut:
    """Teach uploaded images.

    Args:
        files: (source, content).
    """
    failed, sources, images = [], [], []
    for source, content in files:
        try:
            image = _image(content, service.settings)
        except (ImpartError, Problem) as error:
            failed.append((source, str(error)))
        else:
            sources.append(source)
            images.append(image)
    if not images:
        raise Problem(422, "bad_data", "; ".join(f"{source}: {reason}" for source, reason in failed))
    added = service.index.names.add(name, images, sources=sources)
    return AddedOut.of(added, service.index.names.list(), failed=failed)


def _image(content: bytes, settings: ServeSettings) -> Image.Image:
    """Read an uploaded image, which is checked before pixels are decoded.

    Raises:
        Problem: it is too large, or no image.
        DataError: it is damaged.
    """
    check_image(content, settings)
    image = load_image(content, max_megapixels=settings.upload_megapixels, draft_px=DRAFT_SIDES * _LARGEST_PX)[0]
    image.thumbnail((_LARGEST_PX, _LARGEST_PX))
    return image


def _source(file_name: str | None, number: int) -> str:
    """Name an uploaded image. The prefix keeps it from being taken for a file of the server.

    >>> _source("/home/me/rex.jpg", 0), _source(None, 1)
    ('upload: rex.jpg', 'upload: image 2')
    """
    last = PurePath((file_name or "").replace("\\", "/")).name
    shown = "".join(letter for letter in last if letter.isprintable())[-_LONGEST_SOURCE:]
    return f"upload: {shown or f'image {number + 1}'}"
