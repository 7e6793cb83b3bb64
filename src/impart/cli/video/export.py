"""`impart export`: spans as clips, a reel, a sheet or timelines; and the page and player of `impart search`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from impart.cli.options import DEFAULT_INDEX, IndexOption

if TYPE_CHECKING:
    from impart.cli.output import Answer
    from impart.video.export.clips import Clip
    from impart.video.export.spans import ExportSpan, SpanFailure
    from impart.video.export.timelines import TimelineForm, Written

__all__ = ["OpenOption", "PageOption", "export", "show_hits"]

_PARTLY = 3
PageOption = Annotated[
    Path | None,
    typer.Option(
        "--page",
        help="Also write the hits to this web page: thumbnails, and players that start at the moment.",
        metavar="FILE.html",
    ),
]
OpenOption = Annotated[
    bool, typer.Option("--open", help="Start your player (mpv, VLC, ffplay, QuickTime) at the first hit.")
]


class To(StrEnum):
    """Form of an export."""

    clips = "clips"
    reel = "reel"
    sheet = "sheet"
    otio = "otio"
    edl = "edl"
    fcp7 = "fcp7"
    fcpxml = "fcpxml"
    resolve = "resolve"
    csv = "csv"
    chapters = "chapters"


def export(
    spans: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SPAN]...",
            help="Numbers of the last search (1,3-5), spans (film.mp4@00:12-00:15.5), or .csv and .json files with "
            "path,start_s,end_s. Default: all hits of the last search, or of the last impart names find.",
        ),
    ] = None,
    to: Annotated[
        To,
        typer.Option(
            help="clips: a file per span. reel: one joined clip. sheet: thumbnails (png, jpg, pdf). edl: CMX 3600. "
            "fcp7: XML for Premiere Pro. fcpxml: Final Cut Pro. resolve: timeline markers. otio: OpenTimelineIO. "
            "chapters: ffmetadata, or a copy of the film with chapters where -o ends with .mp4 or .mkv."
        ),
    ] = To.clips,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Write to this folder or file. Default: the folder clips, or a file such as export.edl.",
            metavar="PATH",
        ),
    ] = None,
    index_dir: IndexOption = DEFAULT_INDEX,
    copy: Annotated[
        bool,
        typer.Option(
            "--copy", help="clips: cut at key frames without encoding again; says how far that moved the ends."
        ),
    ] = False,
    handles: Annotated[
        str, typer.Option(help="Add this much on both sides: frames (12f) or seconds (0.5s).", metavar="LENGTH")
    ] = "0f",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
) -> None:
    """Export hits of the last search, or given spans, for an editor or to keep.

    Videos that are gone or have changed since they were indexed are named and left out; the exit code is then 3.

    Example: impart search 'a dog on a skateboard', then: impart export 1,3-5 --to fcp7 -o dogs.xml --handles 12f
    """
    from impart.video.export.spans import parse_handles

    if copy and to is not To.clips:
        raise typer.BadParameter(f"--copy is for --to clips; {to} does not encode, or needs to")
    margin = parse_handles(handles)
    chosen, failures = _spans(spans or [], index_dir)
    target = _target(out, to)
    _report_failures(failures)
    if not chosen:
        raise typer.Exit(1)
    if to is To.clips:
        from impart.video.export.clips import write_clips

        written = write_clips(chosen, target, copy=copy, handles=margin, overwrite=overwrite, on_clip=_print_clip)
    elif to is To.reel:
        from impart.video.export.reel import write_reel

        written = write_reel(chosen, target, handles=margin, overwrite=overwrite)
    elif to is To.sheet:
        from impart.video.export.sheet import write_sheet

        written = write_sheet(chosen, target, overwrite=overwrite)
    else:
        from impart.video.export.timelines import write_timeline

        written = write_timeline(chosen, target, cast("TimelineForm", to.value), handles=margin, overwrite=overwrite)
    _report(written, printed=to is To.clips)
    _report_failures(written.failures)
    if failures or written.failures:
        raise typer.Exit(_PARTLY)


def show_hits(answers: Iterable[Answer], *, page: Path | None, open_first: bool) -> None:
    """Write the page of `search --page`, and start the player of `search --open`."""
    answers = list(answers)
    if page is not None:
        from impart.video.export.page import write_page

        problems = write_page([(answer.title, answer.hits) for answer in answers], page)
        for _, reason in problems:
            print(f"warning: no thumbnail: {reason}", file=sys.stderr)
        print(f"wrote {page}: open it in a browser", file=sys.stderr)
    if open_first:
        from impart.video.export.player import open_at

        hit = next((hit for answer in answers for hit in answer.hits), None)
        if hit is None:
            print("no hit to open", file=sys.stderr)
        else:
            print(open_at(hit.path, hit.start_s, photo=hit.kind == "photo"), file=sys.stderr)


def _spans(given: Sequence[str], index_dir: Path) -> tuple[list[ExportSpan], list[SpanFailure]]:
    from impart.video.export.last_hits import spans_of_last_search
    from impart.video.export.spans import is_selection, parse_selection, parse_span, read_spans

    if not given:
        return spans_of_last_search(index_dir)
    chosen: list[ExportSpan] = []
    failures: list[SpanFailure] = []
    for one in given:
        if is_selection(one):
            found, lost = spans_of_last_search(index_dir, parse_selection(one))
            chosen += found
            failures += lost
        elif one.lower().endswith((".csv", ".json")):
            chosen += read_spans(Path(one))
        else:
            chosen.append(parse_span(one, number=len(chosen) + 1))
    return chosen, failures


def _target(out: Path | None, to: To) -> Path:
    """Find the file or folder to write: in a folder that exists, a file gets its usual name."""
    from impart.video.export.timelines import SUFFIXES

    if to is To.clips:
        return out or Path("clips")
    usual = {To.reel: "reel.mp4", To.sheet: "sheet.png"}.get(to) or f"export{SUFFIXES[to.value]}"
    if out is None:
        return Path(usual)
    return out / usual if out.is_dir() else out


def _print_clip(clip: Clip) -> None:
    print(clip.file)
    print(f"  {clip.start_s:.3f} to {clip.end_s:.3f} s, {clip.codec}", file=sys.stderr)


def _report(written: Written, *, printed: bool) -> None:
    for file in () if printed else written.files:
        print(file)
    for note in written.notes:
        print(f"note: {note}", file=sys.stderr)
    if written.photos:
        kind = "photo" if written.photos == 1 else "photos"
        print(f"left out {written.photos} {kind}: only sheets and pages show photos", file=sys.stderr)
    spans = "span" if written.spans == 1 else "spans"
    print(f"exported {written.spans} {spans}", file=sys.stderr)


def _report_failures(failures: Sequence[SpanFailure]) -> None:
    for failure in failures:
        number = f"hit {failure.span.number}: " if failure.span.number else ""
        print(f"not exported: {number}{failure.reason}", file=sys.stderr)
