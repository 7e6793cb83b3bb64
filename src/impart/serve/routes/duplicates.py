"""Videos that share content: computed once per state of the index, in the background."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from impart.serve.library.slow import Progress
from impart.serve.problems import responses
from impart.serve.schemas.duplicates import DuplicateGroupOut, DuplicatesOut
from impart.serve.schemas.paging import CursorParam, LimitParam, make_cursor, read_cursor
from impart.serve.service import ServiceDep

router = APIRouter(tags=["duplicates"])

_NAME = "duplicates"
_WAIT_S = 1.0  # for a small index, before the answer tells that it is computed
_COMPUTING: dict[int | str, dict[str, Any]] = {
    202: {"model": DuplicatesOut, "description": "The groups are computed: ask again."}
}


@router.get("/duplicates", summary="Videos that share content", responses={**_COMPUTING, **responses(400, 422, 503)})
def duplicates(
    service: ServiceDep, response: Response, limit: LimitParam = 50, cursor: CursorParam = None
) -> DuplicatesOut:
    """List the groups of videos that share content, also of other lengths and sizes. Nothing is decoded or deleted.

    A large index takes minutes: until then the answer is 202 with the progress. After the index has changed, the groups
    of before are returned while they are computed again.
    """
    first = 0 if cursor is None else read_cursor(cursor, _NAME, (int,))[0]
    catalogue = service.catalogue(newest=True)

    def work(on_progress: Progress) -> list[DuplicateGroupOut]:
        if not len(catalogue):
            return []
        found = service.index.duplicates(on_progress=on_progress)
        records = {record.path: record for record in catalogue.by_id.values()}
        return [DuplicateGroupOut.of(group, records) for group in found]

    asked = service.slow.ask(_NAME, catalogue.state, work)
    asked.finished.wait(_WAIT_S)
    finished = asked.finished.is_set()
    last = service.slow.last(_NAME)
    if not finished and last is None:
        response.status_code = 202
    groups: list[DuplicateGroupOut] = [] if last is None else last.value
    page = groups[first : first + limit]
    return DuplicatesOut(
        status="computing" if not finished else "ready" if asked.error is None else "failed",
        done=asked.done,
        total_steps=asked.total,
        problem=None if asked.error is None else str(asked.error),
        groups=page,
        total=len(groups),
        next_cursor=make_cursor(_NAME, first + limit) if first + limit < len(groups) else None,
    )
