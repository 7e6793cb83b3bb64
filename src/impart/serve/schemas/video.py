"""Videos and photos of the index, and their scenes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from impart.files import file_state
from impart.serve.media.playable import playable
from impart.serve.schemas.text import path_text
from impart.video.index.store import UNREAD, VideoRecord
from impart.video.scenes.scene import Scene

__all__ = ["FolderOut", "FoldersOut", "SceneOut", "ScenesOut", "VideoOut", "VideosOut"]

FileState: TypeAlias = Literal["same", "changed", "missing"]
VIDEO_ID = Field(description="Id of the video or photo: 16 hex digits.", examples=["0f3a9c5e7b1d2468"])


class VideoOut(BaseModel):
    """A video or photo of the index."""

    model_config = ConfigDict(from_attributes=True)

    video_id: str = VIDEO_ID
    name: str = Field(description="Name of the file.", examples=["a_film_of_six_scenes.mp4"])
    path: str = Field(description="Where the file is, to be shown; no route takes it as an input.")
    kind: Literal["video", "photo"]
    duration_s: float = Field(description="Seconds; 0 for a photo.", examples=[24.0])
    width: int
    height: int
    codec: str = Field(examples=["h264"])
    container: str = Field(examples=["mov,mp4,m4a,3gp,3g2,mj2"])
    fps: float
    scenes: int = Field(description="Number of scenes.")
    size_bytes: int
    recorded_at: float | None = Field(description="Unix time (s) at which it was recorded; null = unknown.")
    indexed_at: float = Field(description="Unix time (s).")
    problem: str | None = Field(description="Why only a part of it could be read; null = it is whole.")
    file: FileState = Field(
        description="`same` as indexed; `changed`: spans may be elsewhere, index it again; `missing` or unreadable."
    )
    playable: Literal["direct", "preview"] = Field(
        description="Whether browsers are expected to play the file; otherwise use `/previews/{video_id}`."
    )
    playable_reason: str | None = Field(description="Why not, in words; null = they are.")

    @classmethod
    def of(cls, record: VideoRecord) -> VideoOut:
        """Make it from the row of the index; the file may be opened once, see `impart.serve.media.playable`."""
        shown = playable(record)
        same = (
            "video_id", "kind", "duration_s", "width", "height", "codec", "container", "fps", "size_bytes",
            "recorded_at", "indexed_at", "problem",
        )  # fmt: skip
        return cls(
            name=path_text(Path(record.path.name)),
            path=path_text(record.path),
            scenes=len(record.scene_starts),
            file=_state_of(record),
            playable=shown.how,
            playable_reason=shown.reason,
            **{name: getattr(record, name) for name in same},
        )


def _state_of(record: VideoRecord) -> FileState:
    state = file_state(record.path)
    if not state:
        return "missing"
    return "changed" if record.mtime_ns != UNREAD and state != f"{record.size_bytes} {record.mtime_ns}" else "same"


class VideosOut(BaseModel):
    """One page of the videos and photos of the index."""

    videos: list[VideoOut]
    total: int = Field(description="How many there are with these filters.")
    next_cursor: str | None = Field(description="Gives the next page; null = this is the last one.")


class FolderOut(BaseModel):
    """A folder of the index."""

    folder: str = Field(description="A value of the filter `folder`.", examples=["/home/me/Videos/trip"])
    videos: int = Field(description="Videos and photos in it and below.")


class FoldersOut(BaseModel):
    """Folders of the index."""

    folders: list[FolderOut]
    total: int = Field(description="How many there are, also beyond `limit`.")


class SceneOut(BaseModel):
    """A scene of a video."""

    number: int = Field(description="From 1, in order of time.")
    start_s: float
    end_s: float
    kind: str = Field(description="How it begins: `cut`, `dissolve` or `fade`.")
    best_s: float = Field(description="Time of the frame that stands for it.")

    @classmethod
    def of(cls, scene: Scene) -> SceneOut:
        """Make it from a scene of the library."""
        names = ("number", "start_s", "end_s", "kind", "best_s")
        return cls(**{name: getattr(scene, name) for name in names})


class ScenesOut(BaseModel):
    """All scenes of one video."""

    video: VideoOut
    scenes: list[SceneOut]
