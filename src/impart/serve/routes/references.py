"""Reference sets: list them, put one in force, and tell which pairs are blended into a moment."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from impart.blending.encoder import AugmentedEncoder
from impart.errors import DataError
from impart.images import load_image
from impart.refset.refset import ReferenceSet
from impart.serve.library.reference_sets import NONE, KnownSets, known_sets, pair_file
from impart.serve.library.slow import Progress
from impart.serve.library.thumbnails import WEBP, webp_image
from impart.serve.problems import Problem, responses
from impart.serve.routes.videos import VideoId
from impart.serve.schemas.references import PairOut, ReferencesOut, SwitchIn, WhyOut
from impart.serve.schemas.search import ReasonOut
from impart.serve.service import Service, ServiceDep

router = APIRouter(tags=["references"])

_SWITCH = "references"
_WAIT_S = 10.0  # for a switch, before the answer tells that it goes on
_SWITCHING: dict[int | str, dict[str, Any]] = {
    202: {"model": ReferencesOut, "description": "The switch goes on: ask `/references` until it is done."}
}


@router.get("/references", summary="List the reference sets", responses=responses(422, 500, 503))
def references(service: ServiceDep) -> ReferencesOut:
    """List the reference sets that may be put in force, and say which one is."""
    return _answer(service)


@router.put(
    "/references/current",
    summary="Put a reference set in force",
    responses={**_SWITCHING, **responses(403, 404, 409, 422, 500, 503)},
)
def switch(body: SwitchIn, service: ServiceDep, response: Response) -> ReferencesOut:
    """Put a reference set in force, or none. No video is decoded; searches use it as soon as the answer comes.

    The neighbours of all frames are searched anew. Where this takes longer than ten seconds, the answer is 202 and the
    switch goes on. It needs the write lock of the index: while videos are indexed, the answer is 409.
    """
    service.check_writable()
    known = _known(service)
    if body.id != NONE and body.id not in known.sets:
        raise Problem(404, "reference_set_not_found", f"no reference set has the id {body.id!r}: list /references")
    running = service.slow.newest(_SWITCH)
    if running is not None and not running.finished.is_set():
        raise Problem(409, "switching", "another reference set is being put in force: wait until it is done")
    own_settings = known.sets[body.id].settings if body.id != NONE else ""
    if body.id == known.current and own_settings == known.settings:
        return _answer(service)
    in_force = known.sets.get(known.current)
    if in_force is not None and (in_force.origin == "index" or known.trained) and not body.discard:
        what = "its trained RAM" if known.trained else "it"
        raise Problem(
            409,
            "set_would_be_lost",
            f"{in_force.name!r} is in force, and no place but the index has {what}: start the server with --refset and "
            "its folder, or repeat the request with discard",
        )

    def work(_: Progress) -> None:
        chosen = None if body.id == NONE else ReferenceSet.open(known.sets[body.id].folder)
        service.index.use_references(chosen)
        service.index.searcher.state.refresh()  # searches and reasons are those of this set once it is done

    begun = service.slow.ask(_SWITCH, f"{body.id} {time.monotonic_ns()}", work)
    if not begun.finished.wait(_WAIT_S):
        response.status_code = 202
    elif begun.error is not None:
        raise begun.error
    return _answer(service)


@router.get("/videos/{video_id}/why", summary="Why a moment is found", responses=responses(400, 404, 422, 503))
def why(
    video_id: VideoId,
    service: ServiceDep,
    t: Annotated[float, Query(ge=0, allow_inf_nan=False, description="Seconds from the start of the video.")],
) -> WhyOut:
    """List the reference pairs that are blended into a moment of a video, with their weights."""
    record = service.record(video_id)
    reasons = service.index.why(record.path, t)
    known, in_force = _known(service), _in_force(service)
    pairs = []
    for reason in reasons:
        there = in_force is not None and pair_file(in_force, reason.row, known.sets.get(known.current)) is not None
        pairs.append(PairOut(image=there, **ReasonOut.of(reason).model_dump()))
    name = None if known.current == NONE else known.sets[known.current].name
    augmentation = service.index.manifest.augmentation
    blending = None if augmentation is None else augmentation.name
    return WhyOut(video_id=video_id, at_s=t, references=name, blending=blending, pairs=pairs)


@router.get(
    "/references/pairs/{row}.webp",
    summary="Image of a reference pair",
    responses={**WEBP, **responses(404, 422, 503)},
    response_class=Response,
)
def pair_image(row: Annotated[int, Path(ge=0, le=2**31 - 1)], service: ServiceDep, request: Request) -> Response:
    """Return a small image of a pair of the set in force, where its file still exists with the same content."""
    known, in_force = _known(service), _in_force(service)
    if in_force is None or row >= len(in_force):
        raise Problem(404, "pair_not_found", f"the set in force has no pair {row}")
    file = pair_file(in_force, row, known.sets.get(known.current))
    if file is None:
        raise Problem(404, "no_image", "only the text of this pair is known here: its image is not on this machine")
    digest = in_force.table["hash"][row].as_py()
    try:
        image, found = load_image(file, max_megapixels=service.settings.upload_megapixels)
    except DataError as error:
        raise Problem(404, "no_image", f"the image of this pair cannot be read any more: {error}") from error
    if found != digest:
        raise Problem(404, "no_image", "the file has another content than the image of this pair")
    return webp_image(request, image, tag=digest[:16])


def _known(service: Service) -> KnownSets:
    return known_sets(service.index.path, service.index.manifest, service.settings.refsets)


def _in_force(service: Service) -> ReferenceSet | None:
    encoder = service.index.encoder
    return encoder.references if isinstance(encoder, AugmentedEncoder) else None


def _answer(service: Service) -> ReferencesOut:
    newest = service.slow.newest(_SWITCH)
    to = newest.key.partition(" ")[0] if newest is not None and not newest.finished.is_set() else None
    problem = str(newest.error) if newest is not None and newest.error is not None else None
    return ReferencesOut.of(_known(service), switching_to=to, problem=problem)
