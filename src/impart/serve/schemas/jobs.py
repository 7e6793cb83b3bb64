"""Jobs: indexing and exports, their progress and failures; and the state of the index."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from impart.serve.jobs.job import JobKind, Status
from impart.serve.schemas.exports import ExportProgressOut, SkippedOut
from impart.serve.schemas.text import path_text

__all__ = [
    "FailureOut",
    "FailuresOut",
    "IndexJobRequest",
    "IndexOut",
    "IndexProgressOut",
    "JobErrorOut",
    "JobOut",
    "JobsOut",
    "RecordedFailureOut",
]

MOST_PATHS = 100
FailureKind: TypeAlias = Literal["failed", "partial", "incomplete"]
_NAME = Field(description="Name of the file.", examples=["a_film.mp4"])
_PATH = Field(description="Where the file is, to be shown; no route takes it as an input.")
_EXAMPLE: dict[str, Any] = {
    "id": "4f0c2ab19d3e5678",
    "kind": "index",
    "status": "running",
    "created_at": 1764280000.0,
    "started_at": 1764280000.2,
    "ended_at": None,
    "error": None,
    "paths": [],
    "index": {
        "scanning": False,
        "index_paused": False,
        "files_done": 12,
        "files_total": 80,
        "bytes_done": 734003200,
        "bytes_total": 5368709120,
        "current": {
            "name": "beach.mp4",
            "path": "/films/beach.mp4",
            "number": 13,
            "size_bytes": 83886080,
            "position_s": 41.5,
        },
        "video_s": 2210.0,
        "active_s": 61.0,
        "speed": 36.2,
        "remaining_s": 384.0,
        "counts": {
            "found": 80, "unchanged": 0, "added": 11, "updated": 0, "moved": 0, "copied": 0, "removed": 0, "failed": 1,
            "partial": 0, "skipped": 0, "no_video": 0, "photos": 2, "paths_failed": 0,
        },
    },
    "export": None,
    "failures": [
        {
            "name": "cut.mp4",
            "path": "/films/cut.mp4",
            "kind": "failed",
            "reason": "cannot be opened: moov atom not found",
            "attempts": 1,
        }
    ],
    "failures_count": 1,
    "skipped": [],
    "skipped_count": 0,
}  # fmt: skip


class IndexJobRequest(BaseModel):
    """A request to index folders."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"paths": None}, {"paths": ["/films/new"], "retry_failed": True}]},
    )

    paths: list[Annotated[str, Field(min_length=1, max_length=4096)]] | None = Field(
        None,
        description="Absolute folders inside the roots of the server, see `/index`; null = all roots.",
        min_length=1,
        max_length=MOST_PATHS,
    )
    retry_failed: bool = Field(False, description="Try files again that failed, or were read in part, before.")
    prune: bool = Field(
        False, description="Remove videos whose files are gone; those in a folder that may be unmounted are kept."
    )


class CurrentFileOut(BaseModel):
    """The file that is being indexed."""

    name: str = _NAME
    path: str = _PATH
    number: int = Field(description="From 1 to `files_total`.")
    size_bytes: int
    position_s: float = Field(description="Seconds of it that are encoded.")


class CountsOut(BaseModel):
    """Counts of an indexing job."""

    found: int = Field(description="Videos and photos in the folders.")
    unchanged: int
    added: int
    updated: int
    moved: int
    copied: int
    removed: int
    failed: int
    partial: int = Field(description="Of the files added or updated, those that were read only up to a point.")
    skipped: int = Field(description="Files that failed before and have not changed since.")
    no_video: int = Field(description="Files without a video or photo, such as sound recordings.")
    photos: int = Field(description="Of the files added or updated, those that are photos.")
    paths_failed: int = Field(description="Folders that cannot be read, or below which nothing is removed.")


class IndexProgressOut(BaseModel):
    """Progress of an indexing job."""

    scanning: bool = Field(description="Whether folders are still being walked; counts come after that.")
    index_paused: bool = Field(description="Whether it waits since `impart pause`, until `impart resume`.")
    files_done: int
    files_total: int = Field(description="Files to decode: new and changed ones.")
    bytes_done: int
    bytes_total: int
    current: CurrentFileOut | None
    video_s: float = Field(description="Seconds of video that are indexed.")
    active_s: float = Field(description="Seconds since decoding began, without pauses.")
    speed: float = Field(description="Seconds of video per second.")
    remaining_s: float | None = Field(description="Estimate by bytes; null until the first file is done.")
    counts: CountsOut


class FailureOut(BaseModel):
    """A file or folder that a job could not index completely."""

    name: str = _NAME
    path: str = _PATH
    kind: Literal["failed", "partial", "skipped", "path"] = Field(
        description="`partial`: the part before is indexed. `skipped`: failed before. `path`: a folder."
    )
    reason: str
    attempts: int | None


class JobErrorOut(BaseModel):
    """Why a job failed or was stopped."""

    code: str = Field(
        description="`index_locked`, `process_ended`, `server_stopped`, `missing_extra` or `failed`.",
        examples=["index_locked"],
    )
    detail: str = Field(description="What is wrong and what helps, for people.")


class JobOut(BaseModel):
    """A job. Jobs are in memory: they are gone when the server ends, what they indexed is not."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    id: str = Field(description="Id of the job: 16 hex digits.")
    kind: JobKind
    status: Status = Field(description="The last four are final: `cancelled`, `done`, `partly_failed`, `failed`.")
    created_at: float = Field(description="Unix time (s).")
    started_at: float | None
    ended_at: float | None
    error: JobErrorOut | None
    paths: list[str] = Field(description="Folders that are indexed, to be shown; empty = all roots, or an export.")
    index: IndexProgressOut | None = Field(description="Progress; null for an export.")
    export: ExportProgressOut | None = Field(description="Progress; null for indexing.")
    failures: list[FailureOut] = Field(description="The first failures of indexing.")
    failures_count: int = Field(description="All failures of indexing.")
    skipped: list[SkippedOut] = Field(description="The first spans that an export left out.")
    skipped_count: int


class JobsOut(BaseModel):
    """The jobs of the server."""

    jobs: list[JobOut] = Field(description="The newest first: those that wait or run, and the last finished ones.")


class RecordedFailureOut(BaseModel):
    """A file that the index could not take, or took in part."""

    name: str = _NAME
    path: str = _PATH
    kind: FailureKind = Field(
        description="`incomplete`: its rows are lost; searches leave it out until it is indexed again."
    )
    reason: str
    attempts: int | None
    failed_at: float | None = Field(description="Unix time (s).")

    @classmethod
    def of(
        cls, path: Path, kind: FailureKind, reason: str, *, attempts: int | None = None, failed_at: float | None = None
    ) -> RecordedFailureOut:
        """Make it from a row of the index; the reason may name a file whose name is no text."""
        reason = reason.encode("utf-8", "backslashreplace").decode("utf-8")
        name = path_text(Path(path.name))
        return cls(name=name, path=path_text(path), kind=kind, reason=reason, attempts=attempts, failed_at=failed_at)


class FailuresOut(BaseModel):
    """One page of the files that could not be indexed completely."""

    failures: list[RecordedFailureOut]
    total: int
    next_cursor: str | None = Field(description="Gives the next page; null = this is the last one.")


class IndexOut(BaseModel):
    """The state of the index."""

    name: str = Field(description="Name of its folder.", examples=["library.impart"])
    exists: bool = Field(description="False until the first file is indexed; all counts are then 0.")
    read_only: bool = Field(description="Whether the server refuses indexing, names and exports.")
    roots: list[str] = Field(description="Folders that jobs may index.")
    writer_active: bool = Field(description="Whether a process is writing to the index now, this server's or another.")
    job_id: str | None = Field(description="The indexing job that runs now.")
    paused: bool = Field(False, description="Whether indexing waits since `impart pause`.")
    videos: int = 0
    photos: int = 0
    video_s: float = Field(0.0, description="Seconds of video.")
    scenes: int = 0
    segments: int = 0
    samples: int = Field(0, description="Frames sampled.")
    size_bytes: int = Field(0, description="On disk.")
    partial: int = Field(0, description="Videos that could be read only up to a point.")
    incomplete: int = Field(0, description="Videos whose rows are lost; indexing them again repairs that.")
    failures: int = Field(0, description="Files that could not be indexed.")
    no_video: int = Field(0, description="Files without a video or photo.")
    with_crops: int = Field(0, description="Videos and photos that have crops.")
    encoder_id: str | None = None
    encoder_fingerprint: str | None = None
    references: str | None = Field(None, description="Name of the reference set in force.")
