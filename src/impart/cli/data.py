"""`impart data`: from lists of images on the web to shards of image-text pairs."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from impart.cli.options import ListOf
from impart.config import CaptionField

if TYPE_CHECKING:
    from impart.data.yfcc import YfccProgress

__all__ = ["app"]

app = typer.Typer(help="Training data: fetch images with captions and write them as shards.", no_args_is_help=True)

_EVERY_S = 10.0


@app.callback()
def _group() -> None:
    """Keeps `yfcc` a subcommand while it is the only one."""


@app.command()
def yfcc(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="YFCC-style metadata: csv, tsv (.gz, .bz2) or parquet."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the shards.")],
    reference: Annotated[float, typer.Option(help="Share of the photos that go to the reference split.")] = 0.1,
    caption: Annotated[
        str,
        typer.Option(
            metavar="A,B,...",
            parser=ListOf(get_args(CaptionField)),
            help="Fields that are joined to a caption: some of title, description, usertags.",
        ),
    ] = "title,description",
    max_words: Annotated[int, typer.Option(min=0, help="Words in a caption at most; 0 = all.")] = 100,
    image_size: Annotated[
        int, typer.Option(min=0, help="Shorter side in pixels, where it is longer; 0 = as served.")
    ] = 256,
    min_size: Annotated[int, typer.Option(min=1, help="Images with a shorter side below are left out.")] = 32,
    shard_size: Annotated[int, typer.Option(min=1, help="Pairs in a shard at most.")] = 10_000,
    retries: Annotated[int, typer.Option(min=0, help="Further tries of an image that failed.")] = 2,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds of silence after which a try fails.")] = 10.0,
    threads: Annotated[int, typer.Option(min=1, help="Connections a process.")] = 32,
    processes: Annotated[int, typer.Option(min=1, help="Processes of img2dataset.")] = 1,
    limit: Annotated[int, typer.Option(min=0, help="Rows read of each file; 0 = all.")] = 0,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try what failed in an earlier run again.")
    ] = False,
) -> None:
    """Fetch the images of YFCC-style metadata and write train and reference shards (WebDataset).

    Killed at any moment, the same command goes on where it stopped. What gave no pair is in DIR/failures.csv.
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
    manifest: dict[str, Any] = {}
    show = _Line()
    for event in prepare(files, out, settings):
        show(event)
        manifest = event.manifest
    show.end()
    _print_summary(manifest, out)
    if manifest["failed"]:
        raise typer.Exit(3)


class _Line:
    """Progress on stderr: one line that changes on a terminal, else a line now and then."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._last = 0.0

    def __call__(self, event: YfccProgress) -> None:
        now = time.monotonic()
        if event.phase == "done" or (
            now - self._last < (0.1 if self._terminal else _EVERY_S) and event.phase != "part"
        ):
            return
        self._last = now
        pairs = ", ".join(f"{count:,} {split}" for split, count in event.pairs.items())
        part = f"{event.phase} {event.done:,}/{event.total:,}" if event.total else event.phase
        line = f"{event.file.name}: {event.rows:,} rows; {part}; pairs: {pairs}"
        print(f"\r\x1b[K{line}" if self._terminal else line, end="" if self._terminal else "\n", file=sys.stderr)

    def end(self) -> None:
        if self._terminal:
            print(file=sys.stderr)


def _print_summary(manifest: dict[str, Any], out: Path) -> None:
    counts = manifest["counts"]
    for split, count in counts.items():
        print(f"{out / split}: {count:,} pairs in {len(manifest['shards'][split])} shards")
    for result in ("dropped", "failed"):
        reasons = manifest[result]
        if reasons:
            print(f"{result}: {sum(reasons.values()):,}, listed in {out / 'failures.csv'}", file=sys.stderr)
            for reason, count in list(reasons.items())[:12]:
                print(f"  {count:>9,}  {reason}", file=sys.stderr)
    if manifest["licences"]:
        print("licences: " + ", ".join(f"{name} {count:,}" for name, count in list(manifest["licences"].items())[:12]))
