"""Videos and photos of the index, their folders and scenes."""

from __future__ import annotations

import itertools
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query

from impart.serve.library.catalogue import Filters, Key, Sort
from impart.serve.problems import Problem, responses
from impart.serve.schemas.paging import CursorParam, LimitParam, make_cursor, read_cursor
from impart.serve.schemas.video import FolderOut, FoldersOut, SceneOut, ScenesOut, VideoOut, VideosOut
from impart.serve.service import ServiceDep

router = APIRouter(tags=["videos"])

VideoId = Annotated[str, Path(description="Id of the video or photo.", pattern="^[0-9a-f]{16}$")]
Order = Literal["ascending", "descending"]


@router.get("/videos", summary="List videos and photos", responses=responses(400, 404, 422, 503))
def videos(
    service: ServiceDep,
    q: Annotated[str, Query(description="A part of the file's name, whatever its case.", max_length=200)] = "",
    folder: Annotated[str | None, Query(description="A value of `/folders`: in or below it.", max_length=4096)] = None,
    kind: Literal["video", "photo"] | None = None,
    sort: Annotated[
        Sort,
        Query(description="By path, date of recording (else of the last change), length, or time of indexing."),
    ] = "path",
    order: Annotated[Order | None, Query(description="Default: `ascending` by path, else `descending`.")] = None,
    limit: LimitParam = 50,
    cursor: CursorParam = None,
) -> VideosOut:
    """List the videos and photos of the index, a page at a time.

    A cursor stays valid while videos are added and removed: no entry comes twice, and none that stays is left out.
    """
    catalogue = service.catalogue()
    request = (q, folder, kind, sort, order)
    after: Key | None = None
    if cursor is not None:
        value, video_id = read_cursor(cursor, request, (str if sort == "path" else float, str))
        after = value, video_id
    place = None
    if folder is not None:
        place = catalogue.folder(folder)
        if place is None:
            raise Problem(404, "folder_not_found", f"no indexed file is in {folder!r}: give a value of /folders")
    descending = order == "descending" if order is not None else sort != "path"
    wanted = Filters(q=q.casefold(), folder=place, kind=kind)
    listed = catalogue.listed(sort, wanted, descending=descending, after=after)
    found = list(itertools.islice(listed, limit + 1))
    page = found[:limit]
    return VideosOut(
        videos=[VideoOut.of(record) for _, record in page],
        total=catalogue.count(wanted),
        next_cursor=make_cursor(request, *page[-1][0]) if len(found) > limit else None,
    )


@router.get("/videos/{video_id}", summary="One video or photo", responses=responses(404, 422, 503))
def video(video_id: VideoId, service: ServiceDep) -> VideoOut:
    """Return what the index knows about one video or photo."""
    return VideoOut.of(service.record(video_id))


@router.get("/videos/{video_id}/scenes", summary="Scenes of a video", responses=responses(404, 422, 503))
def scenes(video_id: VideoId, service: ServiceDep) -> ScenesOut:
    """List the scenes of a video; its file is not needed."""
    record = service.record(video_id)
    return ScenesOut(
        video=VideoOut.of(record), scenes=[SceneOut.of(scene) for scene in service.index.scenes(record.path)]
    )


@router.get("/folders", summary="Folders of the index", responses=responses(422, 503))
def folders(
    service: ServiceDep,
    q: Annotated[str, Query(description="A part of the folder's path, whatever its case.", max_length=200)] = "",
    limit: Annotated[int, Query(ge=1, le=1000, description="Most folders.")] = 200,
) -> FoldersOut:
    """List the folders of the indexed files in the order of their paths, from the deepest one that contains all."""
    wanted = q.casefold()
    found = [(folder, count) for folder, count in service.catalogue().folders.items() if wanted in folder.casefold()]
    return FoldersOut(
        folders=[FolderOut(folder=folder, videos=count) for folder, count in found[:limit]], total=len(found)
    )
