"""`impart index` and `impart stats`: index videos, and print what an index contains."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from impart.cli.options import (
    DEFAULT_INDEX,
    ConfigOption,
    EncoderOption,
    IndexOption,
    NoAugmentOption,
    RefsetOption,
    ThreadsOption,
    check_augmentation,
    load,
    settings_for,
)
from impart.cli.output import settings_in_words
from impart.config import DecodeSettings, Fit

if TYPE_CHECKING:
    from impart.video.index.events import Event, IndexDone
    from impart.video.index.index import VideoIndex

__all__ = ["index", "show_run", "stats"]


def index(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Index these video files, and the videos in these folders.")
    ],
    index_dir: IndexOption = DEFAULT_INDEX,
    encoder: EncoderOption = None,
    refset: RefsetOption = None,
    no_augment: NoAugmentOption = False,
    fps: Annotated[
        float | None, typer.Option(help="Sample this many frames per second.", show_default=f"{DecodeSettings.fps:g}")
    ] = None,
    reuse_threshold: Annotated[
        float | None,
        typer.Option(
            help="Reuse the last embedding for frames that differ from its frame by less than this (mean of 0..255); "
            "0 = encode every sampled frame.",
            show_default=f"{DecodeSettings.reuse_threshold:g}",
        ),
    ] = None,
    fit: Annotated[
        Fit | None,
        typer.Option(
            help="Make a frame square: squash all of it, or let the encoder crop it.",
            show_default=DecodeSettings.fit,
        ),
    ] = None,
    prune: Annotated[bool, typer.Option("--prune", help="Remove videos whose files are gone.")] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try again the files that failed before.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be done.")] = False,
    threads: ThreadsOption = 0,
    config: ConfigOption = None,
) -> None:
    """Index new and changed videos. You may stop it at any moment: the same command continues.

    Exit code 3 means that some files could not be read. They are listed, and tried again only when they change or with
    --retry-failed. All others are in the index.
    """
    flags = {
        "decode.fps": fps,
        "decode.reuse_threshold": reuse_threshold,
        "decode.fit": fit,
        "encoder.threads": threads or None,
    }
    opened = _open(index_dir, encoder, refset=refset, augment=not no_augment, config=config, flags=flags)
    events = opened.add(paths, prune=prune, retry_failed=retry_failed, dry_run=dry_run)
    if show_run(events, index_dir):
        raise typer.Exit(3)


def _open(
    index_dir: Path,
    model_id: str | None,
    *,
    refset: Path | None,
    augment: bool,
    config: Path | None,
    flags: dict[str, Any],
) -> VideoIndex:
    from impart.video.index.index import VideoIndex
    from impart.video.index.manifest import IndexManifest

    manifest = IndexManifest.load(index_dir) if IndexManifest.exists(index_dir) else None
    check_augmentation(manifest, index_dir, refset=refset, no_augment=not augment)
    settings = settings_for(manifest, config, flags)
    encoder = None
    if model_id or refset or (not augment and manifest is None):
        known = manifest.encoder_id if manifest else settings.encoder.model
        threads = settings.encoder.threads
        encoder = load(model_id or known, refset=refset, augment=augment, threads=threads, bundled=manifest is None)
    return VideoIndex.open(index_dir, encoder, settings=settings)


def show_run(events: Iterable[Event], index_dir: Path) -> bool:
    """Print a run's events: a bar on a terminal, failures to stderr, the summary to stdout.

    Returns:
        Whether files or paths could not be indexed completely, in this run or, unchanged, in an earlier one.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from impart.video.index import events as kinds

    console = Console(stderr=True, highlight=False)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )
    failed = False
    with bar:
        task = bar.add_task("searching for videos", total=None)
        for event in events:
            match event:
                case kinds.ScanDone():
                    bar.update(task, total=max(event.bytes_total, 1), description="indexing")
                case kinds.VideoProgress():
                    name = event.path.name if len(event.path.name) <= 32 else event.path.name[:29] + "..."
                    text = f"{event.files_done}/{event.files_total} {name}  {event.speed:.0f} s of video per second"
                    bar.update(task, completed=event.bytes_done, description=text)
                case kinds.PathFailed() | kinds.VideoFailed():
                    failed = True
                    console.print(f"[red]failed[/red]  {_plain(event.path)}: {_plain(event.reason)}", soft_wrap=True)
                case kinds.VideoSkipped():
                    failed = True
                    console.print(
                        f"[yellow]skipped[/yellow] {_plain(event.path)}: failed before ({_plain(event.reason)}); "
                        "--retry-failed tries it again",
                        soft_wrap=True,
                    )
                case kinds.VideoDone(problem=str() as problem):
                    failed = True
                    console.print(f"[yellow]partial[/yellow] {_plain(event.path)}: {_plain(problem)}", soft_wrap=True)
                case kinds.Planned():
                    detail = f"  ({event.detail})" if event.detail else ""
                    print(f"{event.action:7} {event.path}{detail}")
                case kinds.IndexDone():
                    print(_summary(event, index_dir))
                case _:
                    pass
    return failed


def _plain(value: object) -> str:
    from rich.markup import escape

    return escape(str(value))


def _summary(done: IndexDone, index_dir: Path) -> str:
    counts = {
        "added": done.added,
        "updated": done.updated,
        "moved": done.moved,
        "copied": done.copied,
        "removed": done.removed,
        "unchanged": done.unchanged,
        "failed": done.all_failures,
        "read in part": done.partial,
        "skipped (failed before)": done.skipped,
    }
    what = ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "no videos found"
    line = f"{index_dir}: {what}; {done.elapsed_s:.1f} s"
    if done.samples:
        line += (
            f"\n  {done.video_s:.0f} s of video ({done.speed:.0f} s per second), {done.samples} frames sampled, "
            f"{done.encoded} encoded"
        )
    return line


def stats(
    index_dir: IndexOption = DEFAULT_INDEX,
    failures: Annotated[bool, typer.Option("--failures", help="List the files that failed, with reasons.")] = False,
    videos: Annotated[bool, typer.Option("--videos", help="List the indexed videos.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print what an index contains, what failed and which reference set is in force."""
    from impart.video.index.index import VideoIndex

    opened = VideoIndex.open(index_dir, create=False)
    if failures or videos:
        rows: list[dict[str, Any]] = []
        if failures:
            rows += [dataclasses.asdict(record) for record in opened.failures()]
            rows += [{"path": video.path, "reason": video.problem} for video in opened.videos() if video.problem]
        if videos:
            rows += [
                {"path": video.path, "duration_s": video.duration_s, "segments": video.segments, "codec": video.codec}
                for video in opened.videos()
            ]
        for row in rows:
            if as_json:
                print(json.dumps(row, ensure_ascii=False, default=str))
            elif "reason" in row:
                print(f"{row['path']}: {row['reason']}")
            else:
                print(f"{row['path']}: {row['duration_s']:.1f} s, {row['segments']} segments")
        return
    numbers = opened.stats()
    if as_json:
        print(json.dumps(dataclasses.asdict(numbers), ensure_ascii=False, indent=2))
        return
    count = f"{numbers.videos} video{'' if numbers.videos == 1 else 's'}"
    print(f"{index_dir}: {count}, {numbers.video_s:.0f} s, {numbers.size_bytes / 1e6:.1f} MB on disk")
    print(f"  {numbers.samples} frames sampled, {numbers.segments} segments, {numbers.scenes} scenes")
    print(f"  encoder {numbers.encoder_id} ({numbers.encoder_fingerprint[:12]})")
    print(f"  reference set {numbers.references or 'none'}")
    if numbers.blending is not None:
        print(f"  blending {settings_in_words(dataclasses.asdict(numbers.blending))}")
    if numbers.failures or numbers.partial:
        counts = f"{numbers.failures} failed, {numbers.partial} read in part"
        print(f"  {counts} (--failures lists them)", file=sys.stderr)
