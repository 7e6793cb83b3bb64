"""Results of the MCP tools: the typed answers, with plain numbers.

A client gets each of them as JSON, with its JSON schema in the list of tools. Times are seconds from the start of the
video, with a timecode beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field

from impart.serve.schemas.text import path_text
from impart.video.index.store import Kind, VideoRecord
from impart.video.names.taught import NameInfo
from impart.video.scenes.scene import Scene
from impart.video.search.hits import Hit, timecode

__all__ = [
    "DuplicateFile",
    "FolderEntry",
    "FoundMoment",
    "FoundMoments",
    "FrameFacts",
    "FurtherSpan",
    "LibraryContents",
    "NameEntry",
    "NameList",
    "NameTaught",
    "SceneEntry",
    "SceneList",
    "TimelineSaved",
    "TimelineText",
    "VideoEntry",
    "VideoList",
]

VideoId = Annotated[str, Field(description="id of the video, for the other tools")]
StartS = Annotated[float, Field(description="start, in seconds from the start of the video")]
EndS = Annotated[float, Field(description="end, in seconds from the start of the video")]
Timecode = Annotated[str, Field(description="start as HH:MM:SS.mmm")]
Name = Annotated[str, Field(description="file name")]
PathText = Annotated[str, Field(description="path, to be shown to people; no tool takes it")]


class FurtherSpan(BaseModel):
    """A further span of the same video."""

    start_s: StartS
    end_s: EndS
    timecode: Timecode
    score: float


class DuplicateFile(BaseModel):
    """Another file that shows the same."""

    name: Name
    path: PathText
    video_id: str | None = None


class FoundMoment(BaseModel):
    """A moment of a video, or a photo."""

    rank: Annotated[int, Field(description="from 1, best first")]
    video_id: VideoId
    name: Name
    path: PathText
    kind: Kind
    start_s: StartS
    end_s: EndS
    timecode: Timecode
    best_s: Annotated[float, Field(description="time of the best frame: give it to get_frame")]
    score: Annotated[float, Field(description="similarity; comparable within one answer only")]
    strong: Annotated[bool, Field(description="whether it is among the good hits; the others may be wrong")]
    video_s: Annotated[float, Field(description="length of the video in seconds; 0 for a photo")]
    scene_start_s: float
    scene_end_s: float
    recorded_at: Annotated[
        str | None, Field(description="when it was recorded, ISO 8601; null = the file says nothing")
    ]
    names: Annotated[list[str], Field(description="taught names that were found in it")]
    steps: Annotated[list[FurtherSpan], Field(description="the parts of a sequence, in the order of time")]
    moments: Annotated[list[FurtherSpan], Field(description="further moments of this video, best first")]
    duplicates: list[DuplicateFile]

    @classmethod
    def of(cls, hit: Hit, ids: Mapping[Path, str]) -> FoundMoment:
        """Convert a hit; `ids` are the video ids by path."""
        others = [*(copy.path for copy in hit.near_copies), *hit.also_at]
        return cls(
            rank=hit.rank,
            video_id=hit.video_id,
            name=path_text(Path(hit.path.name)),
            path=path_text(hit.path),
            kind=hit.kind,
            start_s=_time(hit.start_s),
            end_s=_time(hit.end_s),
            timecode=hit.timecode,
            best_s=_time(hit.best_s),
            score=_score(hit.score),
            strong=bool(hit.strong),
            video_s=_time(hit.video_s),
            scene_start_s=_time(hit.scene_start_s),
            scene_end_s=_time(hit.scene_end_s),
            recorded_at=None if hit.recorded_at is None else _date(hit.recorded_at),
            names=list(hit.names),
            steps=[_span(step.start_s, step.end_s, step.score) for step in hit.steps],
            moments=[_span(moment.start_s, moment.end_s, moment.score) for moment in hit.moments],
            duplicates=[
                DuplicateFile(name=path_text(Path(path.name)), path=path_text(path), video_id=ids.get(path))
                for path in others
            ],
        )


class FoundMoments(BaseModel):
    """Moments, best first."""

    moments: list[FoundMoment]
    strong: Annotated[int, Field(description="how many of these are good hits")]
    next_offset: Annotated[int | None, Field(description="offset of the next moments; null = there are no more")]
    note: Annotated[str, Field(description="what to do next")]


class SceneEntry(BaseModel):
    """A scene of a video."""

    number: Annotated[int, Field(description="from 1, in the order of time")]
    start_s: StartS
    end_s: EndS
    timecode: Timecode
    kind: Annotated[str, Field(description="how it begins: cut, dissolve or fade")]
    best_s: Annotated[float, Field(description="time of its representative frame: give it to get_frame")]

    @classmethod
    def of(cls, scene: Scene) -> SceneEntry:
        return cls(
            number=scene.number,
            start_s=_time(scene.start_s),
            end_s=_time(scene.end_s),
            timecode=timecode(scene.start_s),
            kind=scene.kind,
            best_s=_time(scene.best_s),
        )


class VideoEntry(BaseModel):
    """An indexed video or photo."""

    video_id: VideoId
    name: Name
    path: PathText
    kind: Kind
    video_s: Annotated[float, Field(description="length in seconds; 0 for a photo")]
    width: int
    height: int
    scenes: Annotated[int, Field(description="number of scenes")]
    recorded_at: Annotated[
        str | None, Field(description="when it was recorded, ISO 8601; null = the file says nothing")
    ]
    problem: Annotated[str | None, Field(description="why only a part of it could be read; null = all was read")]

    @classmethod
    def of(cls, record: VideoRecord) -> VideoEntry:
        return cls(
            video_id=record.video_id,
            name=path_text(Path(record.path.name)),
            path=path_text(record.path),
            kind=record.kind,
            video_s=_time(0.0 if record.kind == "photo" else record.duration_s),
            width=int(record.width),
            height=int(record.height),
            scenes=len(record.scene_starts),
            recorded_at=None if record.recorded_at is None else _date(record.recorded_at),
            problem=record.problem,
        )


class SceneList(BaseModel):
    """Scenes of one video, in the order of time."""

    video: VideoEntry
    scenes: list[SceneEntry]
    total: Annotated[int, Field(description="number of scenes of the video")]
    next_offset: Annotated[int | None, Field(description="offset of the next scenes; null = there are no more")]


class VideoList(BaseModel):
    """Indexed videos and photos, sorted by path."""

    videos: list[VideoEntry]
    total: Annotated[int, Field(description="how many fit the filters")]
    next_offset: Annotated[int | None, Field(description="offset of the next ones; null = there are no more")]


class NameEntry(BaseModel):
    """A taught name."""

    name: str
    images: Annotated[int, Field(description="number of images that teach it")]
    in_force: Annotated[int, Field(description="how many of them count: all but those that are unlike the others")]

    @classmethod
    def of(cls, info: NameInfo) -> NameEntry:
        return cls(name=info.name, images=int(info.images), in_force=int(info.in_force))


class NameList(BaseModel):
    """The taught names, in alphabetical order."""

    names: list[NameEntry]


class NameTaught(BaseModel):
    """Result of teaching, renaming or removing a name."""

    name: str
    images: Annotated[int, Field(description="number of images that the name has now; 0 = it is removed")]
    added: int = 0
    failed: Annotated[list[str], Field(description="moments that were not taken, with reasons")] = []
    notes: list[str] = []


class FolderEntry(BaseModel):
    """A folder of the library."""

    folder: Annotated[str, Field(description="for the filter `folder` of the other tools")]
    videos: Annotated[int, Field(description="videos in it and below it")]
    photos: Annotated[int, Field(description="photos in it and below it")]


class LibraryContents(BaseModel):
    """Contents of the library."""

    videos: int
    photos: int
    video_s: Annotated[float, Field(description="seconds of video in all")]
    scenes: int
    failures: Annotated[int, Field(description="files that could not be indexed")]
    encoder: Annotated[str, Field(description="id of the model that searches")]
    names: Annotated[list[str], Field(description="taught names: find_name finds them, search_moments knows them")]
    folders: list[FolderEntry]
    folders_left_out: Annotated[int, Field(description="number of folders that are not listed")]
    may_write: Annotated[bool, Field(description="whether names may be taught and timelines saved")]


class FrameFacts(BaseModel):
    """Facts of the frame that is the image of the answer."""

    video_id: VideoId
    name: Name
    kind: Kind
    at_s: Annotated[float, Field(description="time of the frame, in seconds from the start of the video")]
    timecode: Annotated[str, Field(description="the time as HH:MM:SS.mmm")]
    width: Annotated[int, Field(description="width of the image in pixels")]
    height: Annotated[int, Field(description="height of the image in pixels")]


class TimelineText(BaseModel):
    """A timeline as text."""

    form: str
    suffix: Annotated[str, Field(description="usual suffix of such a file")]
    text: Annotated[str, Field(description="the whole file: save it unchanged, as UTF-8")]
    spans: Annotated[int, Field(description="number of spans in it")]
    notes: Annotated[list[str], Field(description="what was left out, and what an editor should know")]


class TimelineSaved(BaseModel):
    """A timeline that was written to disk."""

    file: Annotated[str, Field(description="path of the file")]
    form: str
    spans: int
    notes: list[str]


def _time(seconds: float) -> float:
    return round(float(seconds), 3)


def _score(score: float) -> float:
    return round(float(score), 6)


def _span(start_s: float, end_s: float, score: float) -> FurtherSpan:
    return FurtherSpan(start_s=_time(start_s), end_s=_time(end_s), timecode=timecode(start_s), score=_score(score))


def _date(time_s: float) -> str:
    return datetime.fromtimestamp(time_s).astimezone().isoformat(timespec="seconds")
