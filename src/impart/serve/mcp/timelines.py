"""Timelines of spans that are named by video id: as text, or as a file in the folder for exports."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from impart.errors import DataError, QueryError
from impart.serve.mcp.library import Library
from impart.serve.mcp.results import TimelineSaved, TimelineText
from impart.serve.schemas.text import path_text
from impart.video.export.spans import ExportSpan, Handles
from impart.video.export.timelines import SUFFIXES, Written, write_timeline

__all__ = ["TextForm", "TimelineSpan", "save_timeline", "timeline_text"]

TextForm = Literal["edl", "fcp7", "fcpxml", "otio", "csv"]


class TimelineSpan(BaseModel):
    """A span of a video, for a timeline."""

    video_id: Annotated[str, Field(description="id of the video")]
    start_s: Annotated[float, Field(ge=0, description="start, in seconds from the start of the video")]
    end_s: Annotated[float, Field(gt=0, description="end, in seconds from the start of the video")]
    label: Annotated[str, Field(max_length=200, description="a text for the editor, such as what the span shows")] = ""


def timeline_text(
    library: Library, spans: Sequence[TimelineSpan], form: TextForm, *, title: str, handles_s: float
) -> TimelineText:
    """Write spans as the text of a timeline; nothing stays on disk.

    Raises:
        QueryError: a span or the title is not valid.
        DataError: no span can be read.
        MissingExtraError: the form `otio` without OpenTimelineIO.
    """
    with tempfile.TemporaryDirectory(prefix="impart-") as folder:
        file = Path(folder) / f"{_checked(title)}{SUFFIXES[form]}"
        written = _write(library, spans, file, form, handles_s=handles_s)
        text = file.read_bytes().decode("utf-8", "replace")
    return TimelineText(form=form, suffix=SUFFIXES[form], text=text, spans=written.spans, notes=_notes(written))


def save_timeline(
    library: Library, spans: Sequence[TimelineSpan], form: TextForm, *, file_name: str, handles_s: float
) -> TimelineSaved:
    """Write spans as a new file in the folder for exports. A file that exists is never replaced.

    Raises:
        QueryError: a span or the name is not valid.
        DataError: no span can be read, or the file exists.
    """
    assert library.exports is not None
    suffix = SUFFIXES[form]
    library.exports.mkdir(parents=True, exist_ok=True)
    file = library.exports / f"{_checked(file_name.removesuffix(suffix))}{suffix}"
    if file.exists():
        raise DataError(f"{file.name} exists in the folder for exports: choose another file_name")
    written = _write(library, spans, file, form, handles_s=handles_s)
    return TimelineSaved(file=path_text(file), form=form, spans=written.spans, notes=_notes(written))


def _write(library: Library, spans: Sequence[TimelineSpan], file: Path, form: TextForm, *, handles_s: float) -> Written:
    exported = []
    for number, span in enumerate(spans, 1):
        record = library.record(span.video_id)
        if span.end_s <= span.start_s and record.kind == "video":
            raise QueryError(f"span {number}: the end {span.end_s:g} s is not after the start {span.start_s:g} s")
        if span.start_s > record.duration_s and record.kind == "video":
            length = f"{record.duration_s:g} s"
            raise QueryError(f"span {number} starts at {span.start_s:g} s, and the video is {length} long")
        exported.append(
            ExportSpan(
                path=record.path,
                start_s=span.start_s,
                end_s=span.end_s,
                label=span.label,
                number=number,
                kind=record.kind,
            )
        )
    return write_timeline(exported, file, form, handles=Handles(time_s=handles_s))


def _notes(written: Written) -> list[str]:
    notes = [f"left out: {path_text(one.span.path)}: {one.reason}" for one in written.failures]
    notes += [f"photos left out: {written.photos}: a timeline has videos only"] if written.photos else []
    return [*notes, *written.notes]


def _checked(name: str) -> str:
    """Check a title or a file name: one name, without a folder.

    Raises:
        QueryError: it is none.
    """
    plain = name.strip()
    wrong = set('/\\:*?"<>|') & set(plain)
    if not plain or plain.startswith(".") or wrong or len(plain) > 100 or not plain.isprintable():
        raise QueryError(f"{name!r} is no file name: give 1 to 100 letters, without / and other signs of paths")
    return plain
