"""`impart scenes`: list the scenes of video files, or of an index."""

from __future__ import annotations

import csv
import shlex
import sys
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from impart.cli.options import EncoderOption, ThreadsOption, encoder_options, in_shell, index_place
from impart.cli.output import print_json

if TYPE_CHECKING:
    from impart.video.scenes.files import FileScenes

__all__ = ["scenes"]

_PARTLY = 3


class SceneFormat(StrEnum):
    """Format of the list of scenes."""

    table = "table"
    csv = "csv"
    json = "json"
    edl = "edl"
    otio = "otio"


def scenes(
    videos: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[VIDEO]...",
            help="Video files; they need not be indexed. With --index: indexed videos. Default there: all of them.",
        ),
    ] = None,
    index_dir: Annotated[
        Path | None,
        typer.Option(
            "--index",
            "-i",
            help="List the scenes stored in this index; nothing is decoded.",
            metavar="DIR",
            parser=index_place,
        ),
    ] = None,
    form: Annotated[
        SceneFormat,
        typer.Option(
            "--format",
            "-f",
            help="Print a table, csv or json, or write a timeline for an editor: edl (CMX 3600) or otio.",
        ),
    ] = SceneFormat.table,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write the timeline to this file. Default: scenes.edl, scenes.otio."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a timeline that exists.")] = False,
    encoder: EncoderOption = None,
    threads: ThreadsOption = 0,
) -> None:
    """List scenes: cuts to the frame, dissolves and fades, each scene with a representative frame.

    A scene of less than a sampled frame (0.25 s by default) is part of its neighbour. A file that cannot be read is
    named; the exit code is then 3, or 1 where none can be read.

    Example: impart scenes film.mp4 --format edl --out film.edl
    """
    given = list(videos or [])
    timeline = form in (SceneFormat.edl, SceneFormat.otio)
    if index_dir is None and not given:
        raise typer.BadParameter("give video files, or --index DIR for those of an index")
    if index_dir is not None and encoder is not None:
        raise typer.BadParameter("--encoder: the scenes of an index are stored; nothing is encoded")
    if (out is not None or overwrite) and not timeline:
        raise typer.BadParameter(f"--out and --overwrite are for --format edl and otio; {form} is printed")
    found = _of_files(given, encoder, threads) if index_dir is None else _of_index(index_dir, given)
    listed: list[FileScenes] = []
    for item in _reported(found):
        listed.append(item)
        if form is SceneFormat.table:
            _print_table(item)
    read = [item for item in listed if item.scenes]
    if form is SceneFormat.csv:
        _print_csv(read)
    elif form is SceneFormat.json:
        print_json([{"path": str(item.path), "scenes": _rows(item)} for item in read], indent=2)
    elif timeline and read:
        _write_timeline(read, out or Path(f"scenes.{form}"), form, overwrite=overwrite)
    if form is SceneFormat.table and read:
        place = f" --index {in_shell(index_dir)}" if index_dir is not None else ""
        print(f"next: impart scenes {shlex.quote(str(read[0].path))}{place} --format edl", file=sys.stderr)
    if any(item.problem for item in listed):
        raise typer.Exit(_PARTLY if read else 1)


def _of_files(paths: Sequence[Path], encoder: str | None, threads: int) -> Iterator[FileScenes]:
    from impart.cli.options import load
    from impart.config import Settings
    from impart.video.scenes.files import scenes_of_files

    settings = Settings()
    model = load(encoder or settings.encoder.model, refset=None, augment=False, options=encoder_options(threads, None))
    yield from scenes_of_files(paths, model, settings=settings)


def _of_index(index_dir: Path, paths: Sequence[Path]) -> Iterator[FileScenes]:
    from impart.errors import VideoIndexError
    from impart.video.index.index import VideoIndex
    from impart.video.scenes.files import FileScenes

    opened = VideoIndex.open(index_dir, create=False)
    for path in paths or [record.path for record in opened.videos() if record.kind == "video"]:
        try:
            yield FileScenes(path=path, scenes=tuple(opened.scenes(path)))
        except VideoIndexError as error:  # of one video; the others are whole
            yield FileScenes(path=path, scenes=(), problem=str(error))


def _reported(found: Iterator[FileScenes]) -> Iterator[FileScenes]:
    """Name on stderr what could not be read whole."""
    for item in found:
        for note in item.notes:
            print(f"note    {item.path}: {note}", file=sys.stderr)
        if item.problem:
            print(f"{'partial' if item.scenes else 'failed '} {item.path}: {item.problem}", file=sys.stderr)
        yield item


def _rows(item: FileScenes) -> list[dict[str, Any]]:
    return [
        {
            "scene": scene.number,
            "start_s": round(scene.start_s, 3),
            "end_s": round(scene.end_s, 3),
            "kind": scene.kind,
            "best_s": round(scene.best_s, 3),
        }
        for scene in item.scenes
    ]


def _print_csv(read: Sequence[FileScenes]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["path", "scene", "start_s", "end_s", "kind", "best_s"])
    for item in read:
        for row in _rows(item):
            writer.writerow([item.path, *row.values()])


def _print_table(item: FileScenes) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from impart.video.search.hits import timecode

    if not item.scenes:
        return
    console = Console(file=sys.stdout, highlight=False)
    if not console.is_terminal:
        console.width = 160
    count = f"{len(item.scenes)} scene{'' if len(item.scenes) == 1 else 's'}"
    console.print(f"[bold]{escape(str(item.path))}[/bold]: {count}", soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    table.add_column("#", justify="right", style="dim")
    for name in ("start", "end"):
        table.add_column(name, style="cyan", no_wrap=True)
    table.add_column("length", justify="right", no_wrap=True)
    table.add_column("begins with")
    table.add_column("frame", no_wrap=True)
    for scene in item.scenes:
        times = [timecode(time_s) for time_s in (scene.start_s, scene.end_s)]
        length = f"{scene.end_s - scene.start_s:.2f} s"
        table.add_row(str(scene.number), *times, length, scene.kind, timecode(scene.best_s))
    with console.capture() as drawn:
        console.print(table)
    print("\n".join(line.rstrip() for line in drawn.get().splitlines()))


def _write_timeline(read: Sequence[FileScenes], file: Path, form: str, *, overwrite: bool) -> None:
    from impart.video.export.spans import ExportSpan
    from impart.video.export.timelines import write_timeline

    spans = [
        ExportSpan(
            path=item.path,
            start_s=scene.start_s,
            end_s=scene.end_s,
            label=f"scene {scene.number} ({scene.kind})",
            number=scene.number,
            shown_s=scene.best_s,
        )
        for item in read
        for scene in item.scenes
    ]
    written = write_timeline(spans, file, "edl" if form == SceneFormat.edl else "otio", overwrite=overwrite)
    for note in written.notes:
        print(f"note    {note}", file=sys.stderr)
    for failure in written.failures:
        print(f"failed  {failure.span.path}: {failure.reason}", file=sys.stderr)
    print(f"{', '.join(map(str, written.files))}: {written.spans} scenes")
    if written.failures:
        raise typer.Exit(_PARTLY)
