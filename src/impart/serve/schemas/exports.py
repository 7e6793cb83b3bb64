"""Exports: spans as clips, a reel, a sheet or timelines."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from impart.errors import QueryError
from impart.serve.jobs.requests import ExportForm, ExportRequest, SpanRequest
from impart.video.export.spans import parse_handles

__all__ = ["ExportFileOut", "ExportIn", "ExportProgressOut", "SkippedOut", "SpanIn"]

MOST_SPANS = 10_000
LONGEST_HANDLES_S = 60.0
LONGEST_S = 1e7


def _handles(text: str) -> str:
    try:
        handles = parse_handles(text)
    except QueryError as error:
        raise ValueError(str(error)) from error
    if handles.time_s > LONGEST_HANDLES_S or handles.frames > LONGEST_HANDLES_S * 60:
        raise ValueError(f"handles have at most {LONGEST_HANDLES_S:g} seconds")
    return text


Seconds = Annotated[float, Field(ge=0, le=LONGEST_S, allow_inf_nan=False)]


class SpanIn(BaseModel):
    """A span of a video of the index; a photo has equal start and end."""

    model_config = ConfigDict(extra="forbid", strict=True)

    video_id: str = Field(pattern="^[0-9a-f]{16}$", examples=["0f3a9c5e7b1d2468"])
    start_s: Seconds = Field(examples=[12.0])
    end_s: Seconds = Field(examples=[15.5])
    label: str = Field("", max_length=300, description="A text for editors and sheets.")

    @model_validator(mode="after")
    def _in_order(self) -> SpanIn:
        if self.end_s < self.start_s:
            raise ValueError(f"the end {self.end_s:g} s is before the start {self.start_s:g} s")
        return self


class ExportIn(BaseModel):
    """A request to export spans, in their order."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [
                {
                    "form": "edl",
                    "spans": [{"video_id": "0f3a9c5e7b1d2468", "start_s": 12.0, "end_s": 15.5, "label": "a dog"}],
                    "handles": "12f",
                    "title": "dogs",
                }
            ]
        },
    )

    form: ExportForm = Field(
        description="`clips`: an MP4 per span. `reel`: one joined MP4. `sheet`: thumbnails as PNG. `edl`: CMX 3600. "
        "`fcp7`: XML for Premiere Pro. `fcpxml`: Final Cut Pro. `otio`: OpenTimelineIO. `csv`: a table. `resolve`: "
        "markers of a timeline. `chapters`: ffmetadata. Several files come as one ZIP archive."
    )
    spans: list[SpanIn] = Field(min_length=1, max_length=MOST_SPANS)
    handles: Annotated[str, AfterValidator(_handles)] = Field(
        "0f", max_length=20, description="More on both sides of each span: `12f` are frames, `0.5s` seconds."
    )
    title: str = Field("", max_length=120, description="Title of the sheet, and name of the file.")

    def request(self) -> ExportRequest:
        """Make the request of a job."""
        spans = tuple(SpanRequest(**span.model_dump()) for span in self.spans)
        return ExportRequest(form=self.form, spans=spans, handles=self.handles, title=self.title)


class ExportFileOut(BaseModel):
    """A finished file, to be fetched from `/exports/{id}/file`."""

    name: str = Field(examples=["dogs.edl"])
    size_bytes: int
    media_type: str = Field(examples=["text/plain"])
    files: int = Field(description="Files in the archive; 1 = it is no archive.")


class SkippedOut(BaseModel):
    """A span that an export left out."""

    number: int = Field(description="Place of the span in the request, from 1.")
    video_id: str
    reason: str


class ExportProgressOut(BaseModel):
    """Progress of an export."""

    form: ExportForm
    spans_done: int
    spans_total: int
    notes: list[str] = Field(description="What a person should know about the files.")
    file: ExportFileOut | None = Field(description="The finished file; null before the end, and where there is none.")
