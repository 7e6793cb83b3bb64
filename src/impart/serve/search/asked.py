"""A search of the API as query and options of the library."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from impart.errors import QueryError
from impart.serve.schemas.search import SearchRequest
from impart.video.search.query import Query, SearchKeywords

__all__ = ["Similar", "asked_of", "key_of", "keywords_of"]


@dataclass(frozen=True)
class Similar:
    """A moment of an indexed video, to search for more like it.

    Attributes:
        video_id, at_s: of the moment.
    """

    video_id: str
    at_s: float


def key_of(request: SearchRequest) -> str:
    """Name a search: equal for all its pages, different for any other one."""
    return request.model_dump_json(exclude={"limit", "cursor"}, exclude_defaults=True)


def asked_of(request: SearchRequest, image: Path | None) -> Query | Similar:
    """Make the query of a request.

    Args:
        image: file of its query image.

    Raises:
        QueryError: it is empty, or has parts that do not go together.
    """
    if request.similar is not None:
        if request.text or image is not None or request.not_text or request.then:
            raise QueryError("a search for more like a moment has no text and no image: leave them out")
        return Similar(request.similar.video_id, request.similar.at_s)
    then = Query(text=request.then) if request.then else None
    return Query(text=request.text, image=image, not_text=tuple(request.not_text), then=then, within_s=request.within_s)


def keywords_of(request: SearchRequest, *, folder: Path | None) -> SearchKeywords:
    """Make the options of a request, without those of its page.

    Args:
        folder: that the request names; None = all.
    """
    return SearchKeywords(
        group=request.group,
        by=request.by,
        folder=folder,
        kind=request.kind,
        since=request.since,
        until=request.until,
        min_length=request.min_length_s,
        max_length=request.max_length_s,
        min_score=request.min_score,
        names=request.names,
        why=request.why,
    )
