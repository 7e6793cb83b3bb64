"""Videos and photos of the index, their folders and scenes."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query

from impart.serve.problems import responses
from impart.serve.schemas.video import SceneOut, ScenesOut, VideoOut, VideosOut
from impart.serve.service import ServiceDep

router = APIRouter(tags=["videos"])

VideoId = Annotated[str, Path(description="Id of the video or photo.", pattern="^[0-9a-f]{16}$")]


@router.get("/videos", summary="List videos and photos", responses=responses(422, 503))
def videos(
    service: ServiceDep,
    q: Annotated[str | None, Query(description="A part of the file's name.", max_length=200)] = None,
    kind: Literal["video", "photo"] | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
) -> VideosOut:
    """List the videos and photos of the index in the order of their paths."""
    listed = [VideoOut.of(record) for record in service.records().values() if kind in (None, record.kind)]
    if q:
        listed = [video for video in listed if q.casefold() in video.name.casefold()]
    return VideosOut(videos=listed[:limit], total=len(listed), next_cursor=None)


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
