"""`impart data`: make shards of image-text pairs from lists of images on the web."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from impart.cli.options import ListOf
from impart.config import CaptionField

if TYPE_CHECKING:
    from impart.data.yfcc import YfccProgress

__all__ = ["app"]

app = typer.Typer(help="Training data: fetch images with captions and write them as shards.", no_args_is_help=True)

_LINE_EVERY_S = 10.0  # where stderr is not a terminal
_UPDATE_EVERY_S = 0.1


@app.callback()
def _group() -> None:
    """Keep `yfcc` a subcommand although it is the only one."""


@app.command()
def yfcc(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE", help="YFCC-style metadata: csv, tsv (.gz, .bz2) or parquet."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the shards.")],
    reference: Annotated[float, typer.Option(help="Fraction of the photos in the reference split.")] = 0.1,
    caption: Annotated[
        str,
        typer.Option(
            metavar="A,B,...",
            parser=ListOf(get_args(CaptionField)),
            help="Fields joined to a caption: some of title, description, usertags.",
        ),
    ] = "title,description",
    max_words: Annotated[int, typer.Option(min=0, help="Maximum words per caption; 0 = all.")] = 100,
    image_size: Annotated[
        int, typer.Option(min=0, help="Reduce a longer shorter side to this many pixels; 0 = as served.")
    ] = 256,
    min_size: Annotated[int, typer.Option(min=1, help="Leave out images with a shorter side below (pixels).")] = 32,
    shard_size: Annotated[int, typer.Option(min=1, help="Maximum pairs per shard.")] = 10_000,
    retries: Annotated[int, typer.Option(min=0, help="Further attempts per failed image.")] = 2,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds without data until an attempt fails.")] = 10.0,
    threads: Annotated[int, typer.Option(min=1, help="Connections per process.")] = 32,
    processes: Annotated[int, typer.Option(min=1, help="Processes of img2dataset.")] = 1,
    limit: Annotated[int, typer.Option(min=0, help="Rows read per file; 0 = all.")] = 0,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Fetch images again that failed in an earlier run.")
    ] = False,
) -> None:
    """Fetch the images of YFCC-style metadata and write train and reference shards (WebDataset).

    The command may be killed at any time; run it again to resume. Rows without a pair are in DIR/failures.csv.
    """
    from impart.data.fetch import FetchSettings
    from impart.data.shards import ImageSettings
    from impart.data.yfcc import YfccSettings, prepare

    settings = YfccSettings(
        reference=reference,
        caption=tuple(name.strip() for name in caption.split(",") if name.strip()),
        max_words=max_words,
        image=ImageSettings(image_size=image_size, min_size=min_size),
        shard_size=shard_size,
        fetch=FetchSettings(retries=retries, timeout_s=timeout, threads=threads, processes=processes),
        limit=limit,
        retry_failed=retry_failed,
    )
    manifest = _Line().follow(prepare(files, out, settings))
    _print_summary(manifest, out)
    if manifest["failed"]:
        raise typer.Exit(3)


class _Line:
    """Progress on stderr: one line that is updated on a terminal, else a new line every ten seconds."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._last = 0.0

    def follow(self, events: Generator[YfccProgress, None, dict[str, Any]]) -> dict[str, Any]:
        """Show every event, and return the result of the generator."""
        manifest: dict[str, Any] = {}

        def results() -> Generator[YfccProgress, None, None]:
            nonlocal manifest
            manifest = yield from events

        for event in results():
            self._show(event)
        if self._terminal:
            print(file=sys.stderr)
        return manifest

    def _show(self, event: YfccProgress) -> None:
        now = time.monotonic()
        wait_s = _UPDATE_EVERY_S if self._terminal else _LINE_EVERY_S
        if event.phase == "done" or (now - self._last < wait_s and event.phase != "part"):
            return
        self._last = now
        pairs = ", ".join(f"{count:,} {split}" for split, count in event.pairs.items())
        part = f"{event.phase} {event.done:,}/{event.total:,}" if event.total else event.phase
        line = f"{event.file.name}: {event.rows:,} rows; {part}; pairs: {pairs}"
        print(f"\r\x1b[K{line}" if self._terminal else line, end="" if self._terminal else "\n", file=sys.stderr)


def _print_summary(manifest: dict[str, Any], out: Path) -> None:
    counts = manifest["counts"]
    for split, count in counts.items():
        print(f"{out / split}: {count:,} pairs in {len(manifest['shards'][split])} shards")
    for kind in ("dropped", "failed"):
        reasons = manifest[kind]
        if reasons:
            print(f"{kind}: {sum(reasons.values()):,}, listed in {out / 'failures.csv'}", file=sys.stderr)
            for reason, count in list(reasons.items())[:12]:
                print(f"  {count:>9,}  {reason}", file=sys.stderr)
    if manifest["licences"]:
        print("licences: " + ", ".join(f"{name} {count:,}" for name, count in list(manifest["licences"].items())[:12]))
