"""`impart duplicates`, and the answer of `impart similar --video`: videos that share content, with aligned spans."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from impart.cli.options import DEFAULT_INDEX, ConfigOption, IndexOption, settings_for
from impart.cli.output import _short as short_path
from impart.cli.output import print_json
from impart.cli.progress import progress

if TYPE_CHECKING:
    from impart.video.copies.spans import AlignedSpan, Copy, Duplicate, DuplicateGroup

__all__ = ["CopyFormat", "duplicates", "print_copies"]

_SPAN = ("start_s", "end_s", "video_start_s", "video_end_s", "speed", "score", "mirrored")
_SHOWN = 5  # spans of one pair in a table


class CopyFormat(StrEnum):
    """Format of the output."""

    table = "table"
    json = "json"
    csv = "csv"


def duplicates(
    index_dir: IndexOption = DEFAULT_INDEX,
    min_score: Annotated[
        float | None,
        typer.Option(
            help="Least score of a span, from 0 to 1. Lower finds copies that were changed more, and more strangers.",
            min=0,
            max=1,
            show_default="0.68",
        ),
    ] = None,
    min_seconds: Annotated[
        float | None, typer.Option(help="Least seconds that two videos share.", min=0, show_default="2")
    ] = None,
    form: Annotated[CopyFormat, typer.Option("--format", "-f", help="Print in this format.")] = CopyFormat.table,
    config: ConfigOption = None,
) -> None:
    """List the indexed videos that share content: copies, other sizes, cut versions, and films with a common part.

    Only the index is read; no file is decoded, changed or deleted. Images alone are compared, not the sound.
    """
    from impart.video.copies.library import DuplicatesKeywords
    from impart.video.index.index import VideoIndex
    from impart.video.index.manifest import IndexManifest

    opened = VideoIndex.open(index_dir, create=False, settings=settings_for(IndexManifest.load(index_dir), config, {}))
    keywords: DuplicatesKeywords = {}
    if min_score is not None:
        keywords["min_score"] = min_score
    if min_seconds is not None:
        keywords["min_length_s"] = min_seconds
    with progress("compare") as show:
        keywords["on_progress"] = show
        groups = opened.duplicates(**keywords)
    if form is CopyFormat.json:
        print_json({"groups": [_group_dict(group) for group in groups]}, indent=2)
    elif form is CopyFormat.csv:
        _print_csv(groups)
    else:
        _print_table(groups)
    if groups:
        exact = sum(pair.exact for group in groups for pair in group.duplicates)
        pairs = sum(len(group.duplicates) for group in groups)
        print(
            f"{len(groups)} group{'s' if len(groups) > 1 else ''}, {pairs} pair{'s' if pairs > 1 else ''}, {exact} of "
            "them exact. Nothing was deleted; where a clip is in the library: impart similar --video CLIP",
            file=sys.stderr,
        )
    else:
        print(f"no two of {len(opened.videos())} videos share content", file=sys.stderr)


def print_copies(clip: Path, found: Sequence[Copy], form: CopyFormat) -> None:
    """Print the videos that contain a clip."""
    if form is CopyFormat.json:
        print_json({"clip": str(clip), "copies": [_copy_dict(copy) for copy in found]}, indent=2)
    elif form is CopyFormat.csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(["clip", "rank", "path", *_SPAN])
        for copy in found:
            for span in copy.spans:
                row = _span_dict(span)
                writer.writerow([clip, copy.rank, copy.path, *(row[name] for name in _SPAN)])
    else:
        _print_copies_table(clip, found)


def _print_copies_table(clip: Path, found: Sequence[Copy]) -> None:
    if not found:
        print(f"no indexed video contains {short_path(clip)}, or a second of it")
        return
    rows = []
    for copy in found:
        for number, span in enumerate(copy.spans[:_SHOWN]):
            name = short_path(copy.path) if number == 0 else ""
            rows.append([str(copy.rank) if number == 0 else "", *_span_cells(span), name])
        rows += [["", "", "", "", "", "", f"... {len(copy.spans) - _SHOWN} more"]] if len(copy.spans) > _SHOWN else []
        rows += [["", "", "", "", "", "", f"also at {short_path(path)}"] for path in copy.also_at]
    _print_rows(["#", "score", "in the clip", "in the video", "speed", "", "video"], rows)


def _print_table(groups: Sequence[DuplicateGroup]) -> None:
    for group in groups:
        print(f"group {group.number}: {len(group.paths)} files")
        rows = []
        for pair in group.duplicates:
            names = f"{short_path(pair.path)} | {short_path(pair.other_path)}"
            if pair.exact:
                rows.append(["exact copy", "", "", "", "", names])
                continue
            for number, span in enumerate(pair.spans[:_SHOWN]):
                rows.append([*_span_cells(span), names if number == 0 else ""])
            if len(pair.spans) > _SHOWN:
                rows.append(["", "", "", "", "", f"... {len(pair.spans) - _SHOWN} more"])
        _print_rows(["score", "in the first", "in the second", "speed", "", "first | second"], rows)


def _print_csv(groups: Sequence[DuplicateGroup]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["group", "path", "other_path", "exact", "share", "other_share", *_SPAN])
    for group in groups:
        for pair in group.duplicates:
            for span in pair.spans:
                row = _span_dict(span)
                shares = round(pair.share, 3), round(pair.other_share, 3)
                writer.writerow(
                    [group.number, pair.path, pair.other_path, pair.exact, *shares, *(row[name] for name in _SPAN)]
                )


def _print_rows(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(file=sys.stdout, highlight=False)
    if not console.is_terminal:
        console.width = 200
    table = Table(box=None, pad_edge=False)
    for name in header:
        table.add_column(name, overflow="fold", justify="right" if name in ("#", "score", "speed") else "left")
    for row in rows:
        table.add_row(*map(escape, row))
    with console.capture() as drawn:
        console.print(table)
    print("\n".join(line.rstrip() for line in drawn.get().splitlines()))


def _span_cells(span: AlignedSpan) -> list[str]:
    from impart.video.search.hits import timecode

    return [
        f"{span.score:.2f}",
        f"{timecode(span.start_s)} - {timecode(span.end_s)}",
        f"{timecode(span.video_start_s)} - {timecode(span.video_end_s)}",
        f"{span.speed:.2f}",
        "mirrored" if span.mirrored else "",
    ]


def _span_dict(span: AlignedSpan) -> dict[str, Any]:
    return {name: round(value, 3) if isinstance(value := getattr(span, name), float) else value for name in _SPAN}


def _copy_dict(copy: Copy) -> dict[str, Any]:
    return {
        "rank": copy.rank,
        "path": str(copy.path),
        "score": round(copy.score, 3),
        "video_s": round(copy.video_s, 3),
        "spans": [_span_dict(span) for span in copy.spans],
        "also_at": [str(path) for path in copy.also_at],
    }


def _group_dict(group: DuplicateGroup) -> dict[str, Any]:
    return {
        "group": group.number,
        "paths": [str(path) for path in group.paths],
        "duplicates": [_pair_dict(pair) for pair in group.duplicates],
    }


def _pair_dict(pair: Duplicate) -> dict[str, Any]:
    return {
        "path": str(pair.path),
        "other_path": str(pair.other_path),
        "exact": pair.exact,
        "share": round(pair.share, 3),
        "other_share": round(pair.other_share, 3),
        "spans": [_span_dict(span) for span in pair.spans],
    }
