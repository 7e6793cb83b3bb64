"""One run of an evaluation command: opened by its options, printed and written at the end."""

from __future__ import annotations

import csv
import dataclasses
import json
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from impart.cli.eval.options import EvalOptions, Form
from impart.cli.progress import progress

if TYPE_CHECKING:
    from impart.evaluate.datasets.reader import Kind
    from impart.evaluate.report.tables import Cell, Table
    from impart.evaluate.run import Run

__all__ = ["evaluation", "open_data", "open_models", "print_figures", "print_tables"]

_NOTES_SHOWN = 12
PARTLY = 3
"""Exit code if images or videos could not be read, or not to their end."""


@contextmanager
def evaluation(task: str, parameters: Mapping[str, Any]) -> Iterator[tuple[Run, EvalOptions]]:
    """Open a run for a command, and print and write its results when the block ends.

    Args:
        task: the name of the report's folder begins with it.
        parameters: all parameters of the command: the shared options, and its own for the report.

    Raises:
        DataError: the report's folder or the cache cannot be used.
        typer.Exit: with code 3, images or videos could not be read, or not to their end.
    """
    from impart.evaluate.cache import EmbeddingCache
    from impart.evaluate.run import Run

    options = EvalOptions.of(parameters)
    shared = dataclasses.asdict(options)
    own = {name: value for name, value in parameters.items() if name not in shared and value not in (None, [])}
    _check_folders(options)
    with tempfile.TemporaryDirectory(prefix="impart-") if options.no_cache else nullcontext(options.cache) as folder:
        run = Run(
            EmbeddingCache(folder),
            batch=options.batch,
            near_duplicate=options.near_duplicate,
            bootstrap=options.bootstrap,
            settings={
                "command": shlex.join(["impart", *sys.argv[1:]]),
                "task": task,
                **{name: str(value) if isinstance(value, Path) else value for name, value in own.items()},
                **{name: value for name, value in shared.items() if value not in (None, [], False)},
            },
            show_progress=progress,
        )
        yield run, options
        _print(run, options)
        if not options.no_report:
            folder_of_report = options.out or Path("reports") / f"{task}-{time.strftime('%Y%m%d-%H%M%S')}"
            written = run.write(folder_of_report)
            if written.problem:
                print(written.problem, file=sys.stderr)
            print(f"report: {folder_of_report}", file=sys.stderr)
    if not run.complete:
        raise typer.Exit(PARTLY)


def open_data(
    first: Sequence[str] | None,
    second: Sequence[str] | None,
    *,
    kind: Kind | tuple[Kind, ...],
    split: str | None,
    per_class: int = 0,
    limit: int = 0,
) -> list[Any]:
    """Open the named data sets. Of several kinds, the reader's is taken, else the first.

    Raises:
        ConfigError: two of them have the same name.
        typer.BadParameter: none is named.
    """
    from impart.errors import ConfigError
    from impart.evaluate.datasets import READERS, open_set

    specs = [*(first or []), *(second or [])]
    if not specs:
        raise typer.BadParameter("name a data set: --data cifar10:PATH, or a path ('impart eval datasets' lists all)")
    kinds = (kind,) if isinstance(kind, str) else kind
    opened = []
    for spec in specs:
        reader = READERS.get(spec.partition(":")[0])
        wanted = reader.kind if reader is not None and reader.kind in kinds else kinds[0]
        opened.append(open_set(spec, split=split, kind=wanted, per_class=per_class or None, limit=limit or None))
    names = [dataset.name for dataset in opened]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"two data sets are called {twice!r}: measure each in its own run")
    return opened


def open_models(run: Run, options: EvalOptions) -> None:
    """Open the models that the options name, and record their names in the run's settings."""
    from impart.evaluate.models import default_names
    from impart.evaluate.models import open_models as open_by_names

    refset, ram = options.refset or [], options.ram or []
    names = options.encoders or default_names(refset=refset, ram=ram)
    run.settings["encoders"] = names
    run.models = open_by_names(names, refset=refset, ram=ram, options=options.encoder_options)


def _check_folders(options: EvalOptions) -> None:
    """Refuse folders that cannot be written, before anything is measured."""
    from impart.errors import DataError
    from impart.evaluate.report.folder import is_report

    for path, option in ((options.out, "--out"), (options.cache, "--cache")):
        if path is not None and path.exists() and not path.is_dir():
            raise DataError(f"{option} {path} is a file: give a folder")
    if options.out is not None and not options.no_report and is_report(options.out):
        raise DataError(f"{options.out} contains a report already: give another folder with --out, or delete it")


def _print(run: Run, options: EvalOptions) -> None:
    """Print tables or JSON to stdout, notes to stderr."""
    from impart.evaluate.report.tables import legend

    if options.as_json or options.form == "json":
        print(json.dumps(run.content(), ensure_ascii=False, indent=1))
    elif options.form == "csv":
        from impart.evaluate.report.overview import figure_rows

        print_figures(figure_rows("", run.results, run.summary.bounds), "csv")
    else:
        print_tables([*run.tables, *run.summary.tables])
        if options.bootstrap:
            print(legend(compared=bool(run.summary.comparisons)))
    notes = run.report.all_notes
    for note in notes[:_NOTES_SHOWN]:
        print(note, file=sys.stderr)
    if len(notes) > _NOTES_SHOWN:
        print(f"and {len(notes) - _NOTES_SHOWN} more notes: --json or the report has all", file=sys.stderr)


def print_figures(rows: Sequence[Mapping[str, Any]], form: Form) -> None:
    """Print rows of `impart.evaluate.report.overview.figure_rows` to stdout, as csv or JSON."""
    from impart.evaluate.report.overview import FIELDS

    if form == "json":
        plain = [
            {name: value if value != "" and value == value else None for name, value in row.items()} for row in rows
        ]
        print(json.dumps(plain, ensure_ascii=False, indent=1))
        return
    writer = csv.DictWriter(sys.stdout, FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def print_tables(tables: Sequence[Table]) -> None:
    """Print tables to stdout: the best in bold, differences that may be noise marked `~`."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table as Drawn

    console = Console(file=sys.stdout, highlight=False)
    if not console.is_terminal:
        console.width = 400  # one line per row, for programs that read lines
    for table in tables:
        drawn = Drawn(title=escape(table.title), title_justify="left", title_style="bold", box=None, pad_edge=False)
        for number, name in enumerate(table.columns):
            justify: Literal["left", "right"] = "left" if number < table.words else "right"
            drawn.add_column(escape(name), justify=justify, overflow="fold")
        marked = [any(row[number].noise for row in table.rows) for number in range(len(table.columns))]
        for row in table.rows:
            drawn.add_row(*(_markup(cell, marked=mark) for cell, mark in zip(row, marked, strict=True)))
        console.print(drawn)
        for line in table.below:
            console.print(f"[dim]{escape(line)}[/dim]", soft_wrap=True)
        console.print()


def _markup(cell: Cell, *, marked: bool) -> str:
    """Format a cell for rich; in a column with marks, unmarked cells get blanks of the same width."""
    from rich.markup import escape

    text = f"[bold]{escape(cell.text)}[/bold]" if cell.best else escape(cell.text)
    return text + (" ~" if cell.noise else "  " if marked else "")
