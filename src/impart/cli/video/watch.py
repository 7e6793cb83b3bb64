"""`impart watch`, `impart pause` and `impart resume`: index what arrives in folders, and let indexing wait."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from impart.cli.options import (
    DEFAULT_INDEX,
    ConfigOption,
    DeviceOption,
    EncoderOption,
    IndexOption,
    NiceOption,
    NoAugmentOption,
    RefsetOption,
    ThreadsOption,
    in_shell,
)
from impart.cli.video.index import open_to_write, show_run
from impart.files import lower_priority

if TYPE_CHECKING:
    from impart.video.index.events import Event
    from impart.video.index.watch.events import WatchEvent

__all__ = ["pause", "resume", "watch"]

INTERVAL_S, POLL_S = 300.0, 30.0


def watch(
    folders: Annotated[
        list[Path], typer.Argument(metavar="FOLDER", help="Index what arrives in these folders, and is in them now.")
    ],
    index_dir: IndexOption = DEFAULT_INDEX,
    encoder: EncoderOption = None,
    refset: RefsetOption = None,
    no_augment: NoAugmentOption = False,
    poll: Annotated[
        bool,
        typer.Option("--poll", help="Scan again and again: for network disks, whose changes the system does not see."),
    ] = False,
    interval: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Scan at least this often.",
            min=1,
            show_default=f"{INTERVAL_S:g}; with --poll {POLL_S:g}",
        ),
    ] = None,
    prune: Annotated[
        bool,
        typer.Option(
            "--prune", help="Remove videos whose files are gone; keep and name those in a folder that may be unmounted."
        ),
    ] = False,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GLOB",
            help="Leave out files and folders with this name, or path below FOLDER; may be given several times.",
        ),
    ] = None,
    no_photos: Annotated[bool, typer.Option("--no-photos", help="Leave out the photos.")] = False,
    nice: NiceOption = False,
    device: DeviceOption = None,
    threads: ThreadsOption = 0,
    config: ConfigOption = None,
) -> None:
    """Index new and changed videos and photos of folders now, and whenever some arrive, until you stop it.

    A file that is still being copied waits until it no longer grows. A folder may be missing, such as on a disk that is
    not connected: it is indexed when it comes. Nothing is removed from the index without --prune.

    Ctrl-C stops after the video in progress; a second one stops at once. 'impart pause' lets it wait.
    """
    from impart.video.index.watch.watcher import WatchSettings
    from impart.video.index.watch.watcher import watch as watch_folders

    if interval is None:
        interval = POLL_S if poll else INTERVAL_S
    settings = WatchSettings(events=not poll, interval_s=interval)
    if nice:
        lower_priority()
    flags = {"encoder.device": device, "encoder.threads": threads or None}
    opened = open_to_write(index_dir, encoder, refset=refset, augment=not no_augment, config=config, flags=flags)
    stop = threading.Event()
    with _stopped_by_signals(stop):
        events = watch_folders(
            opened,
            folders,
            stop=stop,
            settings=settings,
            prune=prune,
            exclude=exclude or (),
            photos=not no_photos,
        )
        try:
            _show(events, index_dir)
        except KeyboardInterrupt:
            print("stopped at once; the next run continues", file=sys.stderr)
        else:
            print("stopped", file=sys.stderr)


def pause(index_dir: IndexOption = DEFAULT_INDEX) -> None:
    """Let everything that indexes into an index wait, until 'impart resume'. Searching goes on."""
    from impart.video.index import pause as marker
    from impart.video.index.manifest import IndexManifest

    IndexManifest.load(index_dir)
    marker.pause(index_dir)
    print(f"{index_dir}: indexing is paused, from the next frames on")
    print(f"next: impart resume -i {in_shell(index_dir)}", file=sys.stderr)


def resume(index_dir: IndexOption = DEFAULT_INDEX) -> None:
    """Let the indexing go on that 'impart pause' has stopped."""
    from impart.video.index import pause as marker
    from impart.video.index.manifest import IndexManifest

    IndexManifest.load(index_dir)
    print(f"{index_dir}: {'indexing goes on' if marker.resume(index_dir) else 'indexing was not paused'}")


@contextmanager
def _stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """Set `stop` at the first Ctrl-C or SIGTERM; raise KeyboardInterrupt at the second."""

    def handle(_number: int, _frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        os.write(2, b"stopping after the video in progress; again stops at once\n")  # print may be at work

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _show(events: Iterator[WatchEvent | Event], index_dir: Path) -> None:
    """Print the events of a watch; those of a run as `impart index` does."""
    from impart.video.index.watch import events as kinds

    waiting: list[WatchEvent] = []
    for event in events:
        if isinstance(event, kinds.Watching | kinds.FileGrows | kinds.IndexBusy | kinds.RunFailed):
            _say(event)
            continue
        run = _one_run(event, events, waiting)
        show_run(run, index_dir, name_next=True, verbose="impart index --verbose")
        while waiting:
            _say(waiting.pop())


def _one_run(first: Event, rest: Iterator[WatchEvent | Event], waiting: list[WatchEvent]) -> Iterator[Event]:
    """Yield the events of one run; an event of the watch that ends it is put into `waiting`."""
    from impart.video.index.events import IndexDone
    from impart.video.index.watch import events as kinds

    yield first
    for event in rest:
        if isinstance(event, kinds.Watching | kinds.FileGrows | kinds.IndexBusy | kinds.RunFailed):
            waiting.append(event)
            return
        yield event
        if isinstance(event, IndexDone):
            return


def _say(event: WatchEvent) -> None:
    """Print one event of the watch to stderr."""
    from impart.video.index.watch import events as kinds

    match event:
        case kinds.Watching():
            if event.folders:
                names = ", ".join(str(folder) for folder in event.folders)
                print(f"watching {names} (Ctrl-C stops after the video in progress)", file=sys.stderr)
            for folder in event.missing:
                print(f"waiting for {folder}: it is not there", file=sys.stderr)
            if event.problem is not None:
                print(f"the system reports no changes ({event.problem}): scanning regularly instead", file=sys.stderr)
        case kinds.FileGrows():
            print(f"waiting for {event.path}: it still grows", file=sys.stderr)
        case kinds.IndexBusy():
            print(f"waiting: {event.reason}", file=sys.stderr)
        case kinds.RunFailed():
            print(f"error: {event.reason}. The next scan tries again", file=sys.stderr)
