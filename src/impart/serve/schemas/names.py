"""Taught names: their images, checks, and where they are present."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from impart.errors import QueryError
from impart.files import blake2b_hex
from impart.serve.schemas.search import HitOut
from impart.video.index.store import VideoRecord
from impart.video.names.report import NameReport
from impart.video.names.store import fold
from impart.video.names.taught import Added, NameInfo
from impart.video.search.hits import parse_moment

__all__ = [
    "AddedOut",
    "FailedImageOut",
    "MomentIn",
    "NameIn",
    "NameOut",
    "NameRename",
    "NamesOut",
    "PresenceOut",
    "RemovedOut",
    "SpansOut",
    "id_of_image",
    "id_of_name",
]

LONGEST_NAME = 100
MOST_MOMENTS = 100
NameText = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME, description="The name, as people write it.")]


def id_of_name(name: str) -> str:
    """Compute the id of a name: whatever its letters, it fits into an address. It does not depend on the case.

    >>> id_of_name("Uncle Joe") == id_of_name("uncle  joe"), len(id_of_name("a/b?"))
    (True, 16)
    """
    return blake2b_hex(fold(name), size_bytes=8)


def id_of_image(content_hash: str) -> str:
    """Return the id of an image of a name; it stays when other images are removed."""
    return content_hash[:16]


class MomentIn(BaseModel):
    """A moment of an indexed video, or a span of it: its best frame, and up to two that show something else."""

    model_config = ConfigDict(extra="forbid")

    video_id: str = Field(pattern="^[0-9a-f]{16}$")
    at_s: float | None = Field(None, ge=0, description="The one frame at this time; of a span, its best frame.")
    start_s: float | None = Field(None, ge=0)
    end_s: float | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.start_s is None) != (self.end_s is None):
            raise ValueError("give start_s and end_s together")
        if self.start_s is None and self.at_s is None:
            raise ValueError("give at_s, or start_s and end_s")
        if self.start_s is not None and self.end_s is not None and self.end_s < self.start_s:
            raise ValueError("end_s is before start_s")
        return self

    @property
    def span(self) -> tuple[float, float, float]:
        """Start, end and best time (s); equal for one frame."""
        if self.start_s is None or self.end_s is None:
            at_s = self.at_s or 0.0
            return at_s, at_s, at_s
        return self.start_s, self.end_s, (self.start_s + self.end_s) / 2 if self.at_s is None else self.at_s


class NameIn(BaseModel):
    """A name, and moments of indexed videos that show it."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"name": "Rex", "moments": [{"video_id": "0f3a9c5e7b1d2468", "at_s": 12.5}]},
                {"name": "Rex", "moments": [{"video_id": "0f3a9c5e7b1d2468", "start_s": 10, "end_s": 14}]},
            ]
        },
    )

    name: NameText
    moments: list[MomentIn] = Field(min_length=1, max_length=MOST_MOMENTS)


class NameRename(BaseModel):
    """Another spelling of a name."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"name": "Rex the dog"}]})

    name: NameText


class NameImageOut(BaseModel):
    """An image of a name."""

    image_id: str = Field(description="Stays when other images are removed.", examples=["9f86d081884c7d65"])
    source: str = Field(description="What was given, to be shown: a file, a moment of a video, or an upload.")
    video_id: str | None = Field(description="The indexed video whose moment it is; null = it is none.")
    at_s: float | None = Field(description="The time of that moment.")
    thumbnail: bool = Field(description="Whether `/names/{name_id}/images/{image_id}.webp` shows it.")


class CheckedImageOut(BaseModel):
    """An image of a name, checked by leave-one-out."""

    image_id: str
    source: str
    in_force: bool = Field(description="False = it is unlike the others, and does not count.")
    found: bool = Field(description="Whether the other images find it; false where it is the only one.")


class NameReportOut(BaseModel):
    """The check of a name by leave-one-out: each image is looked for with the others."""

    name: str
    remarks: list[str] = Field(description="Sentences for people, the most important first; none where all is well.")
    images: list[CheckedImageOut]

    @classmethod
    def of(cls, report: NameReport, hashes: Sequence[str]) -> NameReportOut:
        """Make it from a report of the library.

        Args:
            hashes: of the images, in the order of the report.
        """
        rows = zip(hashes, report.sources, report.in_force.tolist(), report.found.tolist(), strict=True)
        images = [
            CheckedImageOut(image_id=id_of_image(one), source=source, in_force=in_force, found=found)
            for one, source, in_force, found in rows
        ]
        return cls(name=report.name, remarks=list(report.remarks), images=images)


class NameOut(BaseModel):
    """A taught name."""

    name_id: str = Field(description="Id of the name; another spelling has another one.", examples=["5d41402abc4b2a76"])
    name: str
    in_force: int = Field(description="How many of its images count: all but those that are unlike the others.")
    images: list[NameImageOut]
    report: NameReportOut | None = Field(description="The check; null where it was not asked for.")

    @classmethod
    def of(cls, info: NameInfo, videos: Mapping[str, VideoRecord]) -> NameOut:
        """Make it from a name of the library.

        Args:
            videos: of the index, by path as a text.
        """
        images = []
        for source, one, thumbnail in zip(info.sources, info.hashes, info.thumbnails, strict=True):
            video, at_s = _moment(source, videos)
            images.append(
                NameImageOut(
                    image_id=id_of_image(one),
                    source=source,
                    video_id=None if video is None else video.video_id,
                    at_s=at_s,
                    thumbnail=thumbnail is not None,
                )
            )
        report = None if info.report is None else NameReportOut.of(info.report, info.hashes)
        return cls(name_id=id_of_name(info.name), name=info.name, in_force=info.in_force, images=images, report=report)


class NamesOut(BaseModel):
    """All taught names, in alphabetical order."""

    names: list[NameOut]


class FailedImageOut(BaseModel):
    """An image that could not be read."""

    source: str
    reason: str


class AddedOut(BaseModel):
    """The result of teaching a name. The name is in force at once."""

    name_id: str
    name: str = Field(description="The name, as it was taught first.")
    added: int = Field(description="Number of new images.")
    known: list[str] = Field(description="Images that the name already had.")
    failed: list[FailedImageOut]
    notes: list[str] = Field(description="What was left out, in words.")
    reports: list[NameReportOut] = Field(description="Which images help, and which are unlike the others.")

    @classmethod
    def of(cls, added: Added, names: Sequence[NameInfo], *, failed: Sequence[tuple[str, str]] = ()) -> AddedOut:
        """Make it from a result of the library, for one name.

        Args:
            names: as they are now.
            failed: (source, reason) of images that the library was not given.
        """
        name = next(iter([*added.added, *(name for name, _ in added.known)]))
        hashes = {info.name: info.hashes for info in names}
        fitting = [one for one in added.reports if len(hashes.get(one.name, ())) == len(one)]  # not changed since
        return cls(
            name_id=id_of_name(name),
            name=name,
            added=added.added.get(name, 0),
            known=[source for _, source in added.known],
            failed=[FailedImageOut(source=source, reason=reason) for source, reason in (*failed, *added.failed)],
            notes=list(added.notes),
            reports=[NameReportOut.of(one, hashes[one.name]) for one in fitting],
        )


class RemovedOut(BaseModel):
    """The result of a removal."""

    removed: int = Field(description="Number of images.")


class SpansOut(BaseModel):
    """One page of the spans in which a name is present."""

    hits: list[HitOut] = Field(description="The score is the mean presence in the span, from 0 to 1.")
    total: int = Field(description="How many spans there are.")
    next_cursor: str | None = Field(description="Gives the next page; null = this is the last one.")


class PresenceOut(BaseModel):
    """Presence of a name over the time of a video."""

    start_s: float
    step_s: float = Field(description="Seconds of each bin.")
    bins: list[float] = Field(description="Highest presence in each bin, from 0 to 1; one half and more is present.")


def _moment(source: str, videos: Mapping[str, VideoRecord]) -> tuple[VideoRecord | None, float | None]:
    """Return the indexed video and the time of a source; None where it is no moment of one."""
    if source in videos:  # a photo
        return videos[source], 0.0
    try:
        path, at_s = parse_moment(source)
    except QueryError:
        return None, None
    video = videos.get(path)
    return (None, None) if video is None else (video, at_s)
