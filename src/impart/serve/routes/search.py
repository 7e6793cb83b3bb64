"""Searches by text, image, or a moment of a video."""

from __future__ import annotations

import time

from fastapi import APIRouter

from impart.serve.problems import responses
from impart.serve.schemas.search import HitOut, SearchOut, SearchRequest
from impart.serve.service import Service, ServiceDep
from impart.video.search.hits import Hit
from impart.video.search.query import Query

router = APIRouter(tags=["search"])


@router.post("/search", summary="Search", responses=responses(400, 404, 422, 429, 503))
def search(request: SearchRequest, service: ServiceDep) -> SearchOut:
    """Find moments by a text, an image, both, or a moment of a video; best first."""
    began = time.perf_counter()
    hits = _search(request, service)
    return SearchOut(
        hits=[HitOut.of(hit) for hit in hits],
        next_cursor=None,
        strong=sum(hit.strong for hit in hits),
        took_ms=(time.perf_counter() - began) * 1000,
    )


def _search(request: SearchRequest, service: Service) -> list[Hit]:
    if request.similar is not None:
        path = service.record(request.similar.video_id).path
        return service.index.similar(path, request.similar.at_s, top=request.limit, group=request.group)
    then = Query(text=request.then) if request.then else None
    query = Query(text=request.text, not_text=request.not_text, then=then, within_s=request.within_s)
    return service.index.search_many(
        [query],
        top=request.limit,
        group=request.group,
        by=request.by,
        folder=request.folder,
        kind=request.kind,
        since=request.since,
        until=request.until,
        min_length=request.min_length_s,
        max_length=request.max_length_s,
        min_score=request.min_score,
        names=request.names,
        why=request.why,
    )[0]
