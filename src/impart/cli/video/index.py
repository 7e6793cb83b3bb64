"""`impart index` and `impart stats`: index videos and photos, and print what an index contains."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from impart.cli.options import (
    DEFAULT_INDEX,
    AddressOption,
    ConfigOption,
    DeviceOption,
    EncoderOption,
    EngineOption,
    IndexOption,
    NiceOption,
    NoAugmentOption,
    RefsetOption,
    ThreadsOption,
    WorkersOption,
    check_augmentation,
    engine_of,
    in_shell,
    load,
    settings_for,
)
from impart.cli.output import print_json, settings_in_words
from impart.config import DecodeSettings, Fit
from impart.files import lower_priority

if TYPE_CHECKING:
    from impart.video.index.events import Event, IndexDone, WorkerDone, WorkerLost, WorkerReady
    from impart.video.index.index import VideoIndex

__all__ = ["index", "open_to_write", "show_run", "stats"]

MOST_NAMED = 8  # suffixes in the line that counts what was left out
NO_VIDEOS = "no videos or photos found (such as .mp4 or .jpg; {verbose} names the files that were left out)"


def index(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH", help="Index these videos and photos, and those in these folders.")
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
    stream: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Take this video stream of a file, counted from 1; 0 = the best one. Files with fewer: the best one.",
            show_default=f"{DecodeSettings.stream}",
        ),
    ] = None,
    prune: Annotated[
        bool,
        typer.Option(
            "--prune", help="Remove videos whose files are gone; keep and name those in a folder that may be unmounted."
        ),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="With --prune, also remove videos in folders that are missing or empty.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try again the files that failed, or were read in part, before.")
    ] = False,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GLOB",
            help="Leave out files and folders with this name, or path below PATH; may be given several times.",
        ),
    ] = None,
    no_photos: Annotated[
        bool, typer.Option("--no-photos", help="Leave out the photos in folders, such as the images of web pages.")
    ] = False,
    crops: Annotated[
        bool,
        typer.Option(
            "--crops", help="Also encode five parts of each frame: taught names find smaller things; takes much longer."
        ),
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Also name the files and folders that are left out.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be done.")] = False,
    nice: NiceOption = False,
    device: DeviceOption = None,
    threads: ThreadsOption = 0,
    engine: EngineOption = "local",
    address: AddressOption = "",
    workers: WorkersOption = 0,
    config: ConfigOption = None,
) -> None:
    """Index new and changed videos and photos. You may stop it at any moment: the same command continues.

    Photos: JPEG, PNG, WebP, TIFF, HEIC, AVIF and others, and the previews of raw files. Icons below 32 pixels and
    thumbnail folders are left out.

    Exit code 3 means that some files could not be read. They are listed, and tried again only when they change or with
    --retry-failed; after a read error of the disk, in the next run. All others are in the index.
    """
    if force and not prune:
        raise typer.BadParameter("--force needs --prune: it removes videos in folders that are missing or empty")
    engine_used = engine_of(engine, address, workers)
    if nice:
        lower_priority()
    flags = {
        "decode.fps": fps,
        "decode.reuse_threshold": reuse_threshold,
        "decode.fit": fit,
        "decode.stream": stream,
        "encoder.device": device,
        "encoder.threads": threads or None,
    }
    opened = open_to_write(index_dir, encoder, refset=refset, augment=not no_augment, config=config, flags=flags)
    events = opened.add(
        paths,
        prune=prune,
        force=force,
        retry_failed=retry_failed,
        dry_run=dry_run,
        exclude=exclude or (),
        photos=not no_photos,
        name_ignored=verbose,
        engine=engine_used,
    )
    failed = show_run(events, index_dir, name_next=True, dry_run=dry_run)
    if crops and not dry_run and opened.exists:
        failed |= _make_crops(opened, index_dir)
    if failed:
        raise typer.Exit(3)


def _make_crops(opened: VideoIndex, index_dir: Path) -> bool:
    """Make the crops that are missing, and print how many there are. Returns whether some could not be made."""
    from impart.cli.progress import progress
    from impart.video.crops.store import CropStore

    problems = []
    with progress("crops") as show:
        for event in opened.add_crops():
            if event.problem is not None:
                problems.append(f"no crops of {event.path}: {event.problem}")
            if show is not None:
                show(event.done, event.total)
    for problem in problems:
        print(problem, file=sys.stderr)
    numbers, size_bytes = opened.stats(), CropStore(opened.path).size_bytes()
    what = "videos and photos" if numbers.photos else "videos"
    print(f"{index_dir}: crops of {numbers.with_crops} {what}, {size_bytes / 1e6:.1f} MB")
    return bool(problems)


def open_to_write(
    index_dir: Path,
    model_id: str | None,
    *,
    refset: Path | None,
    augment: bool,
    config: Path | None,
    flags: dict[str, Any],
) -> VideoIndex:
    """Open an index for `add`, or a new one, with the encoder and the settings that were asked for."""
    from impart.video.index.index import VideoIndex
    from impart.video.index.manifest import IndexManifest

    manifest = IndexManifest.load(index_dir) if IndexManifest.exists(index_dir) else None
    check_augmentation(manifest, index_dir, refset=refset, no_augment=not augment)
    settings = settings_for(manifest, config, flags)
    encoder = None
    if model_id or refset or (not augment and manifest is None):
        known = manifest.encoder_id if manifest else settings.encoder.model
        options = settings.encoder.options
        encoder = load(model_id or known, refset=refset, augment=augment, options=options, bundled=manifest is None)
    return VideoIndex.open(index_dir, encoder, settings=settings)


def show_run(
    events: Iterable[Event],
    index_dir: Path,
    *,
    name_next: bool = False,
    dry_run: bool = False,
    verbose: str = "--verbose",
    summary: bool = True,
) -> bool:
    """Print a run's events: a bar on a terminal, failures to stderr, the summary to stdout.

    Args:
        events, index_dir: of the run.
        name_next: name the command that follows the first run.
        dry_run: say so where nothing would be done.
        verbose: how to have the files named that were left out.
        summary: print what was done.

    Returns:
        Whether files or paths could not be indexed completely, in this run or, unchanged, in an earlier one.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from impart.video.faces.store import FaceStore
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
    failed, paused, ignored = False, False, ""
    planned = 0
    scanned = None
    with bar:
        task = bar.add_task("searching for videos and photos", total=None)
        for event in events:
            match event:
                case kinds.ScanDone():
                    ignored = _ignored(event.ignored, verbose)
                    scanned = event
                    bar.update(task, total=max(event.bytes_total, 1), description="indexing")
                case kinds.RunPaused():
                    if not paused:
                        place = in_shell(index_dir)
                        console.print(f"paused; go on with: impart resume -i {place}", soft_wrap=True)
                    paused = True
                case kinds.PathIgnored():
                    console.print(f"left out {_plain(event.path)} ({_plain(event.reason)})", soft_wrap=True)
                case kinds.VideoProgress():
                    name = event.path.name if len(event.path.name) <= 32 else event.path.name[:29] + "..."
                    text = f"{event.files_done}/{event.files_total} {name}  {event.speed:.0f} s of video per second"
                    if event.worker:
                        text += f", {event.per_minute:.0f} files per minute  worker {event.worker}"
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
                case kinds.VideoAbsent():
                    console.print(f"no video {_plain(event.path)}: {_plain(event.reason)}", soft_wrap=True)
                case kinds.VideoDone():
                    for note in event.notes:
                        console.print(f"note    {_plain(event.path)}: {_plain(note)}", soft_wrap=True)
                    if event.problem is not None:
                        failed = True
                        problem = _plain(event.problem)
                        console.print(f"[yellow]partial[/yellow] {_plain(event.path)}: {problem}", soft_wrap=True)
                case kinds.WorkerReady() | kinds.WorkerLost() | kinds.WorkerDone():
                    console.print(_of_worker(event), soft_wrap=True)
                case kinds.Planned():
                    planned += 1
                    detail = f"  ({event.detail})" if event.detail else ""
                    print(f"{event.action:7} {event.path}{detail}")
                case kinds.IndexDone() if summary:
                    print(_summary(event, index_dir, verbose))
                    if name_next and event.added and not event.unchanged:
                        place = "" if index_dir == DEFAULT_INDEX else f" -i {in_shell(index_dir)}"
                        print(f'next: impart search "a dog on a skateboard"{place}', file=sys.stderr)
                    if (event.added or event.updated) and FaceStore(index_dir).on:
                        note = "new videos are not searched for faces yet: impart names faces"
                        print(f"note: {note} -i {in_shell(index_dir)}", file=sys.stderr)
                case _:
                    pass
    if dry_run and scanned is not None and not planned:
        nothing = NO_VIDEOS.format(verbose=verbose)
        found = f"{scanned.files} files found, none of them new or changed" if scanned.files else nothing
        print(f"{index_dir}: nothing to do: {found}")
    if ignored:
        print(ignored, file=sys.stderr)
    return failed


def _of_worker(event: WorkerReady | WorkerLost | WorkerDone) -> str:
    """Tell what happened to a worker."""
    from impart.video.index import events as kinds

    name = f"worker {event.worker} on {_plain(event.host)}"
    match event:
        case kinds.WorkerReady():
            return f"{name} is ready"
        case kinds.WorkerLost():
            return f"[yellow]{name} was lost[/yellow]; others get its {_counted(event.files, 'file')}"
        case kinds.WorkerDone():
            return f"{name}: {_counted(event.files, 'file')}, {event.per_minute:.0f} per minute"


def _ignored(counts: Mapping[str, int], verbose: str) -> str:
    """Count in words what a scan left out, the most frequent suffixes first; "" = nothing."""
    if not counts:
        return ""
    named = [f"{count:,} {reason}" for reason, count in list(counts.items())[:MOST_NAMED]]
    rest = sum(counts.values()) - sum(list(counts.values())[:MOST_NAMED])
    named += [f"{rest:,} others"] if rest else []
    return f"left out, no videos or photos: {', '.join(named)} ({verbose} names them)"


def _plain(value: object) -> str:
    from rich.markup import escape

    return escape(str(value))


def _summary(done: IndexDone, index_dir: Path, verbose: str) -> str:
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
        "without a video or photo": done.no_video,
    }
    what = ", ".join(f"{count} {name}" for name, count in counts.items() if count) or NO_VIDEOS.format(verbose=verbose)
    line = f"{index_dir}: {what}; {done.elapsed_s:.1f} s"
    if done.samples:
        videos = done.added + done.updated - done.photos
        line += f"\n  {_counted(videos, 'video')}, {_counted(done.photos, 'photo')}" if done.photos else ""
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
    from impart.video.integrity import ROWS_MISSING

    opened = VideoIndex.open(index_dir, create=False)
    if failures or videos:
        rows: list[dict[str, Any]] = []
        if failures:
            rows += [{"path": video.path, "reason": ROWS_MISSING} for video in opened.incomplete()]
            rows += [dataclasses.asdict(record) for record in opened.failures()]
            rows += [{"path": video.path, "reason": video.problem} for video in opened.videos() if video.problem]
        if videos:
            names = ("path", "kind", "duration_s", "segments", "codec", "recorded_at")
            rows += [{name: getattr(video, name) for name in names} for video in opened.videos()]
        if not rows and not as_json:
            wanted = [name for name, asked in (("failures", failures), ("videos", videos)) if asked]
            print(f"{index_dir}: no {' and no '.join(wanted)}")
        for row in rows:
            if as_json:
                print_json(row)
            elif "reason" in row:
                print(f"{row['path']}: {row['reason']}")
            elif row["kind"] == "photo":
                print(f"{row['path']}: photo")
            else:
                print(f"{row['path']}: {row['duration_s']:.1f} s, {row['segments']} segments")
        return
    numbers = opened.stats()
    if as_json:
        print_json(dataclasses.asdict(numbers), indent=2)
        return
    count = _counted(numbers.videos, "video")
    count += f", {_counted(numbers.photos, 'photo')}" if numbers.photos else ""
    print(f"{index_dir}: {count}, {numbers.video_s:.0f} s, {numbers.size_bytes / 1e6:.1f} MB on disk")
    print(f"  {numbers.samples} frames sampled, {numbers.segments} segments, {numbers.scenes} scenes")
    if numbers.with_crops:
        print(f"  crops of {numbers.with_crops} of {numbers.videos + numbers.photos} videos and photos")
    print(f"  encoder {numbers.encoder_id} ({numbers.encoder_fingerprint[:12]})")
    print(f"  reference set {numbers.references or 'none'}")
    if numbers.blending is not None:
        print(f"  blending {settings_in_words(dataclasses.asdict(numbers.blending))}")
    if numbers.paused:
        print(f"  indexing is paused; go on with: impart resume -i {in_shell(index_dir)}", file=sys.stderr)
    if numbers.incomplete:
        what = f"{numbers.incomplete} lack rows, and searches leave them out"
        print(f"  {what}: impart index PATH... --index {index_dir} indexes them again", file=sys.stderr)
    if numbers.failures or numbers.partial or numbers.no_video:
        counts = f"{numbers.failures} failed, {numbers.partial} read in part"
        counts += f", {numbers.no_video} without a video or photo" if numbers.no_video else ""
        print(f"  {counts} (--failures lists them)", file=sys.stderr)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
