"""Videos of the index that share content."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from impart.serve.schemas.text import path_text
from impart.video.copies.spans import AlignedSpan, Duplicate, DuplicateGroup
from impart.video.index.store import VideoRecord

__all__ = ["DuplicateGroupOut", "DuplicateOut", "DuplicatesOut"]


class AlignedSpanOut(BaseModel):
    """A span of one video that shows what a span of the other shows."""

    start_s: float = Field(description="In the first video.")
    end_s: float
    other_start_s: float = Field(description="In the other video.")
    other_end_s: float
    speed: float = Field(description="Seconds of the other video per second of the first one.")
    score: float = Field(description="From 0, as similar as unrelated frames, to 1, equal.")

    @classmethod
    def of(cls, span: AlignedSpan) -> AlignedSpanOut:
        """Make it from a span of the library."""
        return cls(
            start_s=span.start_s,
            end_s=span.end_s,
            other_start_s=span.video_start_s,
            other_end_s=span.video_end_s,
            speed=span.speed,
            score=span.score,
        )


class DuplicateVideoOut(BaseModel):
    """A video of a group."""

    video_id: str
    name: str
    path: str = Field(description="To be shown; no route takes it as an input.")
    kind: Literal["video", "photo"]
    duration_s: float
    size_bytes: int


class DuplicateOut(BaseModel):
    """Two videos that share content; the first one is the longer."""

    video_id: str
    other_video_id: str
    exact: bool = Field(description="Whether the files have the same content, byte by byte.")
    share: float = Field(description="Part of the first video that the other one shows, from 0 to 1.")
    other_share: float
    score: float
    spans: list[AlignedSpanOut] = Field(description="In order of time.")


class DuplicateGroupOut(BaseModel):
    """Videos that are connected by duplicates."""

    number: int = Field(description="From 1.")
    videos: list[DuplicateVideoOut]
    pairs: list[DuplicateOut] = Field(description="With the largest share first.")

    @classmethod
    def of(cls, group: DuplicateGroup, records: Mapping[Path, VideoRecord]) -> DuplicateGroupOut:
        """Make it from a group of the library; a video that was removed meanwhile is left out.

        Args:
            records: of the index, by path.
        """
        known = [records[path] for path in group.paths if path in records]
        pairs = [pair for pair in group.duplicates if pair.path in records and pair.other_path in records]
        return cls(
            number=group.number,
            videos=[_video(record) for record in known],
            pairs=[_pair(pair, records) for pair in pairs],
        )


class DuplicatesOut(BaseModel):
    """One page of the groups of videos that share content."""

    status: Literal["computing", "ready", "failed"] = Field(
        description="`computing`: ask again; groups of an earlier state of the index may be there already."
    )
    done: int = Field(description="Steps done while computing.")
    total_steps: int = Field(description="All steps; 0 before the first is done.")
    problem: str | None = Field(description="With `failed`: why.")
    groups: list[DuplicateGroupOut]
    total: int = Field(description="Number of groups.")
    next_cursor: str | None = Field(description="Gives the next page; null = this is the last one.")


def _video(record: VideoRecord) -> DuplicateVideoOut:
    return DuplicateVideoOut(
        video_id=record.video_id,
        name=path_text(Path(record.path.name)),
        path=path_text(record.path),
        kind=record.kind,
        duration_s=record.duration_s,
        size_bytes=record.size_bytes,
    )


def _pair(pair: Duplicate, records: Mapping[Path, VideoRecord]) -> DuplicateOut:
    return DuplicateOut(
        video_id=records[pair.path].video_id,
        other_video_id=records[pair.other_path].video_id,
        exact=pair.exact,
        share=pair.share,
        other_share=pair.other_share,
        score=pair.score,
        spans=[AlignedSpanOut.of(span) for span in pair.spans],
    )
