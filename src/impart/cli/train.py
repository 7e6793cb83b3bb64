"""`impart train`: parse the options and render the events of a run."""

from __future__ import annotations

import dataclasses
import logging
import os
import shlex
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from impart.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from impart.train.events import TrainEvent

__all__ = ["train"]


def train(
    config: Annotated[
        str | None,
        typer.Argument(metavar="CONFIG", help="A TOML file, or the name of a bundled one (see --list)."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="DIR", help="Folder of the run.")] = None,
    data: Annotated[
        Path, typer.Option("--data", metavar="DIR", help="Folder that relative paths in the config start from.")
    ] = Path(),
    pairs: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH",
            help="Train on these pairs instead of the config's: csv, parquet, folder or WebDataset; may be repeated.",
        ),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=C", help="Change a setting, such as loop.epochs=3; may be repeated."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    show: Annotated[bool, typer.Option("--list", help="List the bundled configs and stop.")] = False,
) -> None:
    """Train a model by a config: RAM, heads or whole towers. A stopped run continues with --resume."""
    from impart.train.config_file import bundled_configs, describe_config, load_config
    from impart.train.settings import PairsFrom

    if show:
        for name in bundled_configs():
            print(name)
            print(textwrap.fill(describe_config(name), 100, initial_indent="    ", subsequent_indent="    "))
        return
    if config is None or out is None:
        raise typer.BadParameter("give a config and --out, such as: impart train ram_mini --data DATA --out runs/ram")
    settings = load_config(config, sets=sets or [])
    if pairs:
        for path in pairs:
            if "*" not in str(path) and not path.exists():
                raise TrainingError(
                    f"--pairs {path} does not exist: give a csv, tsv, parquet or tar file, or a folder of images; "
                    "a relative path starts from the working folder"
                )
        sources = tuple(PairsFrom(path=str(path.resolve())) for path in pairs)
        settings = dataclasses.replace(settings, data=dataclasses.replace(settings.data, pairs=sources, validation=()))
    from impart.train.run import train as run

    logging.captureWarnings(True)
    failed = _render(run(settings, data=data.resolve(), out=out, resume=resume))
    if failed:
        print(f"{failed} items could not be used: {out / 'failures.csv'}", file=sys.stderr)
        raise typer.Exit(3)


def _render(events: Iterable[TrainEvent]) -> int:
    """Show a run on stderr; return the number of items that failed."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from impart.train.events import Finished, Note, Preparing, Resumed, Saved, StepDone, Validated

    console = Console(stderr=True, highlight=False)
    quiet = not console.is_terminal or int(os.environ.get("RANK", "0")) > 0
    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
    )
    failed = 0
    with Progress(*columns, console=console, transient=True, disable=quiet) as progress:
        bars: dict[str, Any] = {}

        def show(what: str, done: int, total: int, note: str) -> None:
            if what not in bars:
                for other in bars.values():
                    progress.update(other, visible=False)
                bars[what] = progress.add_task(what, total=total, note="")
            progress.update(bars[what], completed=done, total=total, note=note)

        for event in events:
            match event:
                case Preparing():
                    note = f"{event.done}/{event.total}" + (f", {event.failed} failed" if event.failed else "")
                    show(event.what, event.done, event.total, note)
                case StepDone():
                    note = f"{event.step}/{event.steps}  loss {event.loss:.3f}  {event.pairs_per_s:,.0f} pairs/s"
                    show("training", event.step, event.steps, f"{note}  {_duration(event.eta_s)} left")
                case Validated() if event.metrics:
                    progress.console.print(f"step {event.step}: {_figures(event.metrics)}", soft_wrap=True)
                case Resumed():
                    progress.console.print(f"continuing after step {event.step} of {event.steps}")
                case Note():
                    progress.console.print(event.message, soft_wrap=True)
                case Saved():
                    pass
                case Finished():
                    failed = event.failed
                    progress.console.print(f"{event.step} steps done in {_duration(event.seconds)}")
                    if event.folder is not None:
                        print(event.folder, flush=True)
                    if event.encoder:
                        following = f"next: impart index VIDEOS --encoder {shlex.quote(event.encoder)}"
                        progress.console.print(following, soft_wrap=True, markup=False)
    return failed


def _figures(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.1f}" for name, value in metrics.items())


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
