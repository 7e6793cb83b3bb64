"""What the commands of `impart eval` share: their common options, one run over all models, what is shown of it."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from impart.cli.options import ThreadsOption
from impart.cli.progress import progress
from impart.config import EvaluateSettings

if TYPE_CHECKING:
    from impart.encoders.base import Encoder, Float32
    from impart.evaluate.cache import EmbeddingCache
    from impart.evaluate.datasets.types import Images
    from impart.evaluate.models import EvaluatedModel
    from impart.evaluate.report.tables import Cell, Table
    from impart.evaluate.result import Result

__all__ = ["EvalOptions", "Run", "print_tables", "with_run"]

_NOTES_SHOWN = 12
PARTLY = 3
"""Exit code where images or videos could not be read, or not to their end."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """The common options, as given; see `_options` for what they mean."""

    encoders: str | None
    refset: list[Path]
    ram: list[Path]
    near_duplicate: float
    cache: Path | None
    no_cache: bool
    batch: int
    threads: int
    bootstrap: int
    out: Path | None
    no_report: bool
    as_json: bool


def _options(
    encoders: Annotated[
        str | None,
        typer.Option(
            "--encoders",
            "--encoder",
            "-e",
            metavar="NAMES",
            help="Who is measured, with commas between: an encoder's id (mini, onnx:DIR, hf:ID, open_clip:MODEL/TAG), "
            "with +vanilla or +paper (blended with --refset, by its tuned or by the paper's settings), +ram (--ram) or "
            "+bundled; +vanilla=SET and +ram=DIR name their own; or the folder of a trained RAM. All are asked the "
            "same, and compared with the first. Default: mini, and +vanilla, +ram where --refset, --ram are given.",
        ),
    ] = None,
    refset: Annotated[
        list[Path] | None,
        typer.Option("--refset", "-r", metavar="DIR", help="Reference set to blend in (see 'impart refset')."),
    ] = None,
    ram: Annotated[
        list[Path] | None, typer.Option("--ram", metavar="DIR", help="Trained RAM for +ram (see 'impart train').")
    ] = None,
    near_duplicate: Annotated[
        float,
        typer.Option(
            "--near-duplicate",
            metavar="COSINE",
            help="References that are this near to a test image are left out, as are equal files; 2 = only those.",
        ),
    ] = EvaluateSettings.near_duplicate,
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache",
            metavar="DIR",
            help="Where embeddings are kept: a run that was stopped goes on, another metric takes seconds.  "
            "Default: IMPART_CACHE, else impart in the user's cache folder.",
        ),
    ] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Keep no embeddings, and use none.")] = False,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Images in one forward pass.")] = EvaluateSettings.batch,
    threads: ThreadsOption = 0,
    bootstrap: Annotated[
        int, typer.Option("--bootstrap", min=0, help="Draws for the 95% intervals; 0 = no intervals.")
    ] = EvaluateSettings.bootstrap,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="Folder of the report. Default: reports/TASK-DATE-TIME."),
    ] = None,
    no_report: Annotated[bool, typer.Option("--no-report", help="Only print.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what report.json holds, in place of tables.")] = False,
) -> EvalOptions:
    return EvalOptions(
        encoders=encoders,
        refset=refset or [],
        ram=ram or [],
        near_duplicate=near_duplicate,
        cache=cache,
        no_cache=no_cache,
        batch=batch,
        threads=threads,
        bootstrap=bootstrap,
        out=out,
        no_report=no_report,
        as_json=as_json,
    )


def with_run(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the common options behind its own; it gets them as a `Run` named `run`, finished afterwards."""
    own = inspect.signature(command, eval_str=True).parameters
    shared = inspect.signature(_options, eval_str=True).parameters

    @functools.wraps(command)
    def whole(**given: Any) -> None:
        options = _options(**{name: given.pop(name) for name in shared})
        settings = {name: value for name, value in given.items() if value not in (None, [], ())}
        run = Run(command.__name__, options, settings)
        command(run=run, **given)
        run.finish()

    parameters = [*(value for name, value in own.items() if name != "run"), *shared.values()]
    keyword = [value.replace(kind=inspect.Parameter.KEYWORD_ONLY) for value in parameters]
    whole.__signature__ = inspect.Signature(keyword)  # type: ignore[attr-defined]
    whole.__annotations__ = {value.name: value.annotation for value in keyword}
    return whole


class Run:
    """One command: its models, its cache, what they measured; shown and written at the end.

    Args:
        task: names the report's folder.
        options: the common ones.
        settings: the command's own, for the report.
    """

    def __init__(self, task: str, options: EvalOptions, settings: dict[str, Any]) -> None:
        self.task, self.options = task, options
        self.settings: dict[str, Any] = {
            "command": shlex.join(["impart", *sys.argv[1:]]),
            "task": task,
            **{name: str(value) if isinstance(value, Path) else value for name, value in settings.items()},
            **{name: value for name, value in dataclasses.asdict(options).items() if value not in (None, [], False)},
        }
        self.results: list[Result] = []
        self.extra: list[Table] = []
        self.more_plots: list[Callable[[Path], Path]] = []
        self.notes: list[str] = []
        self.described: dict[str, dict[str, Any]] = {}
        self._check_places()
        self._started = time.monotonic()
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    def _check_places(self) -> None:
        """Refuse folders that cannot be written before anything is measured.

        Raises:
            DataError: the report's folder holds a report already, or it or the cache is a file.
        """
        from impart.errors import DataError
        from impart.evaluate.report.folder import is_report

        out, cache = self.options.out, self.options.cache
        for path, option in ((out, "--out"), (cache, "--cache")):
            if path is not None and path.exists() and not path.is_dir():
                raise DataError(f"{option} {path} is a file: give a folder")
        if out is not None and not self.options.no_report and is_report(out):
            raise DataError(f"{out} holds a report already: give another folder with --out, or delete it")

    @functools.cached_property
    def cache(self) -> EmbeddingCache:
        """Where embeddings are kept; without a cache, for the time of the run."""
        from impart.evaluate.cache import EmbeddingCache

        if self.options.no_cache:
            self._temporary = tempfile.TemporaryDirectory(prefix="impart-")
            return EmbeddingCache(self._temporary.name)
        return EmbeddingCache(self.options.cache)

    @functools.cached_property
    def models(self) -> list[EvaluatedModel]:
        """Who is measured."""
        from impart.evaluate.models import parse, usual

        options = self.options
        names = options.encoders or usual(refset=options.refset, ram=options.ram)
        self.settings["encoders"] = names
        more = {"threads": options.threads} if options.threads else {}
        return parse(names, refset=options.refset, ram=options.ram, options=more)

    @property
    def common(self) -> dict[str, Any]:
        """Options that every task takes."""
        return {"cache": self.cache, "batch": self.options.batch}

    def cleaned(
        self,
        dataset: str,
        *images: Images,
        retrieval: Callable[[Encoder], tuple[Float32, Sequence[str]]] | None = None,
    ) -> list[EvaluatedModel]:
        """The models, none with references that show an image of the data set.

        Args:
            dataset: its name.
            images: of it, in one part or several.
            retrieval: in place of them, base encoder -> their retrieval embeddings (n, R) and content hashes.
        """
        import numpy as np

        from impart.evaluate.embed import embed_images
        from impart.evaluate.models import without_copies

        def embedded(base: Encoder) -> tuple[Float32, Sequence[str]]:
            with progress(f"{base.traits.id} on {dataset}") as show:
                found = [embed_images(base, part, **self.common, on_progress=show) for part in images]
            return np.concatenate([part.retrieval for part in found]), [one for part in found for one in part.hashes]

        return without_copies(self.models, retrieval or embedded, near=self.options.near_duplicate)

    def measure(self, model: EvaluatedModel, dataset: str, task: Callable[..., Result | Sequence[Result]]) -> None:
        """Run a task, which is given `on_progress`, and keep its results with what became of the reference set."""
        from impart.evaluate.models import describe
        from impart.evaluate.result import Result

        with progress(f"{model.label} on {dataset}") as show:
            found = task(on_progress=show)
        references = model.references
        counts, notes = {}, []
        if references is not None:
            dropped = model.same + model.near
            counts = {"references": len(references), "references dropped": dropped}
            if dropped:
                near = self.options.near_duplicate
                notes = [
                    f"{model.label} on {dataset}: {dropped} references show test images and were left out "
                    f"({model.same} the same file, {model.near} nearly the same, cosine from {near:g})"
                ]
        for result in [found] if isinstance(found, Result) else found:
            self.results.append(
                dataclasses.replace(result, counts={**result.counts, **counts}, notes=(*result.notes, *notes))
            )
        self.described[f"{model.label} {dataset}"] = {"dataset": dataset, **describe(model)}

    def finish(self) -> None:
        """Print the results, write the report, and say what was left out.

        Raises:
            typer.Exit: with code 3, images or videos could not be read, or not to their end.
        """
        from impart.evaluate.report.folder import report_content, summarise, write_report
        from impart.evaluate.report.tables import legend

        summary = summarise(self.results, repeats=self.options.bootstrap)
        seconds = time.monotonic() - self._started
        encoders = list(self.described.values())
        if self.options.as_json:
            content = report_content(
                self.results, self.settings, encoders=encoders, notes=self.notes, seconds=seconds, summary=summary
            )
            print(json.dumps(content, ensure_ascii=False, indent=1))
        else:
            print_tables([*self.extra, *summary.tables])
            if self.options.bootstrap:
                print(legend(compared=bool(summary.comparisons)))
        self._say_notes()
        if not self.options.no_report:
            folder = self.options.out or Path("reports") / f"{self.task}-{time.strftime('%Y%m%d-%H%M%S')}"
            written = write_report(
                folder,
                self.results,
                self.settings,
                encoders=encoders,
                notes=self.notes,
                seconds=seconds,
                summary=summary,
                extra=self.extra,
                more_plots=self.more_plots,
            )
            if written.problem:
                print(written.problem, file=sys.stderr)
            print(f"report: {folder}", file=sys.stderr)
        if self._temporary is not None:
            self._temporary.cleanup()
        bad = ("unreadable", "read in part")
        if any(result.counts.get(name) for result in self.results for name in bad):
            raise typer.Exit(PARTLY)

    def _say_notes(self) -> None:
        notes = list(dict.fromkeys([*self.notes, *(note for result in self.results for note in result.notes)]))
        for note in notes[:_NOTES_SHOWN]:
            print(note, file=sys.stderr)
        if len(notes) > _NOTES_SHOWN:
            print(f"and {len(notes) - _NOTES_SHOWN} more notes: --json or the report has all", file=sys.stderr)


def print_tables(tables: Sequence[Table]) -> None:
    """Tables to stdout: the best in bold, differences that may be noise marked `~`."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table as Drawn

    console = Console(file=sys.stdout, highlight=False)
    if not console.is_terminal:
        console.width = 400  # a row a line, for programs that read lines
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
    """A cell for rich; in a column with marks, room is left where there is none."""
    from rich.markup import escape

    text = f"[bold]{escape(cell.text)}[/bold]" if cell.best else escape(cell.text)
    return text + (" ~" if cell.noise else "  " if marked else "")
