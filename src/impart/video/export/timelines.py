"""Timelines: spans as files for video editors, players and tables.

    write_timeline(spans, Path("cut.edl"), "edl")

Every format is written from the same frame numbers (`editors/events.py`).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from impart.errors import ConfigError, DataError
from impart.files import write_atomic
from impart.video.export.chapters import chapters_of, copy_with_chapters, ffmetadata
from impart.video.export.editors.edl import edl_text, resolve_text
from impart.video.export.editors.events import Event, Timeline, build_timeline, by_film
from impart.video.export.editors.fcp7 import fcp7_text
from impart.video.export.editors.fcpxml import fcpxml_text
from impart.video.export.editors.otio_form import otio_text
from impart.video.export.file_names import check_free, unique_stems
from impart.video.export.source.facts import SourceFacts
from impart.video.export.spans import NO_HANDLES, ExportSpan, Handles, SpanFailure

__all__ = ["SUFFIXES", "TIMELINE_FORMS", "TimelineForm", "Written", "write_timeline"]

TimelineForm = Literal["otio", "edl", "fcp7", "fcpxml", "resolve", "csv", "chapters"]
TIMELINE_FORMS: tuple[str, ...] = get_args(TimelineForm)
SUFFIXES = {
    "otio": ".otio",
    "edl": ".edl",
    "fcp7": ".xml",
    "fcpxml": ".fcpxml",
    "resolve": ".edl",
    "csv": ".csv",
    "chapters": ".ffmetadata",
}
"""Usual suffix of each format."""

COLUMNS = (
    "number", "path", "start_s", "end_s", "in_timecode", "out_timecode", "in_frame", "out_frame", "fps", "score",
    "label",
)  # fmt: skip
_FILMS = (".mp4", ".m4v", ".mov", ".mkv")  # of chapters: a copy of the film
_ONE_FILE: dict[str, Callable[[Timeline], str]] = {
    "otio": otio_text,
    "edl": edl_text,
    "fcp7": fcp7_text,
    "fcpxml": fcpxml_text,
}


@dataclass(frozen=True, kw_only=True)
class Written:
    """Result of an export.

    Attributes:
        files: in order.
        spans: how many spans are in them.
        failures: spans that are not.
        photos: how many photos were left out.
        notes: what a person should know.
    """

    files: tuple[Path, ...]
    spans: int
    failures: tuple[SpanFailure, ...] = ()
    photos: int = 0
    notes: tuple[str, ...] = ()


def write_timeline(
    spans: Sequence[ExportSpan],
    file: Path,
    form: TimelineForm,
    *,
    handles: Handles = NO_HANDLES,
    overwrite: bool = False,
) -> Written:
    """Write spans as a timeline, in their order.

    In and out points are the frame boundaries nearest to the spans' ends, in the time code of each file. A file that is
    gone costs its spans alone.

    Args:
        file: to write. `resolve` and `chapters` write a file per film: with several films, each has the film's name
            added. `chapters` into an .mp4, .mov or .mkv file writes a copy of the one film, with chapters.
        form: the format, see `TIMELINE_FORMS`.
        handles: material to add on both sides.
        overwrite: replace files that exist.

    Raises:
        ConfigError: there is no such format.
        DataError: a file exists, nothing is left to write, or the format cannot hold the spans; names the remedy.
        MissingExtraError: the format `otio` without OpenTimelineIO.

    Example:
        >>> import av, tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> film = Path(folder.name) / "film.mp4"
        >>> with av.open(str(film), "w") as container:
        ...     stream = container.add_stream("mpeg4", rate=25)
        ...     for number in range(50):
        ...         frame = av.VideoFrame(stream.width, stream.height, "yuv420p")
        ...         frame.pts = number
        ...         container.mux(stream.encode(frame))
        ...     container.mux(stream.encode(None))
        >>> span = ExportSpan(path=film, start_s=0.48, end_s=1.2, label="a red wall")
        >>> written = write_timeline([span], film.with_name("cut.edl"), "edl")
        >>> print(written.files[0].read_text(encoding="utf-8").splitlines()[3])
        001  FILM     V     C        00:00:00:12 00:00:01:05 01:00:00:00 01:00:00:18
        >>> folder.cleanup()
    """
    if form not in TIMELINE_FORMS:
        raise ConfigError(f"no timeline format {form!r}: choose one of {', '.join(TIMELINE_FORMS)}")
    timeline = build_timeline(spans, name=file.stem, handles=handles)
    sources = [span.path for span in spans]
    notes = [note for source in timeline.sources for note in _notes(source)]
    if form in _ONE_FILE or form == "csv":
        check_free([file], overwrite=overwrite, sources=sources)
        text = _csv_text(timeline) if form == "csv" else _ONE_FILE[form](timeline)
        write_atomic(file, text.encode("utf-8", "surrogateescape"))  # names of files may be no text
        files = [file]
    else:
        films = by_film(timeline)
        names = _names(file, list(films))
        if form == "chapters" and file.suffix.lower() in _FILMS and len(films) > 1:
            raise DataError(
                f"{file} can have the chapters of one film, and these are of {len(films)}: export one alone"
            )
        check_free(names.values(), overwrite=overwrite, sources=sources)
        for path, events in films.items():
            notes += _write_film(events, names[path], form)
        files = list(names.values())
    return Written(
        files=tuple(files),
        spans=len(timeline.events),
        failures=timeline.failures,
        photos=timeline.photos,
        notes=tuple(notes),
    )


def _write_film(events: Sequence[Event], target: Path, form: str) -> tuple[str, ...]:
    if form == "resolve":
        write_atomic(target, resolve_text(target.stem, events))
    elif target.suffix.lower() in _FILMS:
        return copy_with_chapters(events[0].source, target, chapters_of(events))
    else:
        write_atomic(target, ffmetadata(chapters_of(events)))
    return ()


def _names(file: Path, films: Sequence[Path]) -> dict[Path, Path]:
    if len(films) == 1:
        return {films[0]: file}
    stems = unique_stems(films)
    return {path: file.with_name(f"{file.stem}-{stems[path]}{file.suffix}") for path in films}


def _csv_text(timeline: Timeline) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for event in timeline.events:
        span, source = event.span, event.source
        rate = source.timebase.rate
        writer.writerow(
            [
                span.number or "",
                span.path,
                f"{span.start_s:.6f}",
                f"{span.end_s:.6f}",
                source.timecode_at(event.first),
                source.timecode_at(event.end),
                event.first,
                event.end,
                rate,
                "" if span.score is None else f"{span.score:.6f}",
                span.label,
            ]
        )
    return text.getvalue()


def _notes(source: SourceFacts) -> list[str]:
    if source.steady:
        return []
    return [
        f"{source.path.name}: its frame rate is variable or odd; frames are counted at {source.timebase.rate} per "
        "second, by their times"
    ]
