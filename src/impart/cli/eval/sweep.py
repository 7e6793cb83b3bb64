"""`impart refset sweep`: measure accuracy over size, quality and blending settings of a reference set."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args

import typer

from impart.cli.eval.runs import print_tables
from impart.cli.options import DeviceOption, ListOf, ThreadsOption, encoder_options
from impart.cli.progress import progress
from impart.config import Around, EvaluateSettings, Prompts, SelectionWay, SweepSettings

if TYPE_CHECKING:
    from impart.evaluate.datasets.types import ClassSet
    from impart.evaluate.sweep.folder import SweepFolder
    from impart.evaluate.sweep.plan import Point

__all__ = ["sweep"]

_T = TypeVar("_T")


def _default(name: str) -> str:
    return ",".join(f"{value:g}" if isinstance(value, float) else str(value) for value in getattr(SweepSettings, name))


def _listed(what: str) -> Any:
    return typer.Option(metavar="A,B,...", help=what)


def sweep(
    path: Annotated[Path, typer.Argument(metavar="SET", help="Folder of the reference set.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Folder of the report; a stopped sweep continues there.")
    ],
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            "-d",
            metavar="NAME:PATH",
            help="Classification data set to measure on, repeatable; without one, only leave-one-out on the set.",
        ),
    ] = None,
    sizes: Annotated[str, _listed("Sizes: shares of the set (10%) or numbers of pairs (300).")] = _default("sizes"),
    select: Annotated[
        str,
        typer.Option(
            metavar="A,B,...",
            parser=ListOf(get_args(SelectionWay)),
            help="Ways of selecting the pairs: random, class, cluster, coverage, agreement, dedup.",
        ),
    ] = _default("ways"),
    corrupt: Annotated[str, _listed("Fractions of the captions that are exchanged at random.")] = _default("corrupt"),
    k: Annotated[str, _listed("Numbers of neighbours to blend in.")] = _default("k"),
    w_img: Annotated[str, _listed("Weights of the neighbours' image embeddings.")] = _default("w_img"),
    w_txt: Annotated[str, _listed("Weights of the neighbours' text embeddings.")] = _default("w_txt"),
    tau: Annotated[str, _listed("Temperatures of the neighbours' weights; 0 = uniform mean.")] = _default("tau"),
    seeds: Annotated[int, typer.Option(min=1, help="Random seeds per selection and corruption.")] = SweepSettings.seeds,
    grid: Annotated[
        bool,
        typer.Option("--grid", help="Measure all combinations, not one setting at a time around --around."),
    ] = False,
    around: Annotated[
        Around, typer.Option(help="Blending settings to vary: the set's own, the usual, the paper's.")
    ] = "set",
    choose_by: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Choose the best setting by leave-one-out, or by a data set of this name, which is then tuned on.",
        ),
    ] = "leave-one-out",
    prompts: Annotated[Prompts, typer.Option(help="As in 'impart eval zeroshot'.")] = "ensemble",
    split: Annotated[
        str | None, typer.Option(metavar="NAME", help="Split of the data sets; default: their test split.")
    ] = None,
    near_duplicate: Annotated[
        float,
        typer.Option(
            metavar="COSINE",
            help="Drop references that show a test image, as in 'impart eval'; 2 = only the same file.",
        ),
    ] = EvaluateSettings.near_duplicate,
    cache: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of cached embeddings; default: as in 'impart eval'.")
    ] = None,
    device: DeviceOption = None,
    threads: ThreadsOption = 0,
) -> None:
    """Vary size, selection, captions, K and weights of a reference set: tables, plots and the best setting."""
    from impart.encoders import load_encoder
    from impart.evaluate.cache import EmbeddingCache
    from impart.evaluate.sweep.folder import SweepFolder, best_in_words
    from impart.evaluate.sweep.plan import SweepPlan
    from impart.evaluate.sweep.run import prepare
    from impart.refset.refset import ReferenceSet

    started = time.monotonic()
    plan = SweepPlan(
        sizes=_values("--sizes", sizes, str),
        ways=_values("--select", select, str),
        corrupt=_values("--corrupt", corrupt, float),
        k=_values("--k", k, int),
        w_img=_values("--w-img", w_img, float),
        w_txt=_values("--w-txt", w_txt, float),
        tau=_values("--tau", tau, float),
        seeds=seeds,
        grid=grid,
    )
    references = ReferenceSet.open(path)
    sets = _open(data or [], split)
    choose_by = _chosen(choose_by, sets)
    encoder = load_encoder(references.encoder_id, **encoder_options(threads, device))
    with progress("images") as show:
        prepared = prepare(
            references,
            encoder,
            sets,
            prompts=prompts,
            around=around,
            near=near_duplicate,
            cache=EmbeddingCache(cache),
            on_progress=show,
        )
    settings = {
        "command": shlex.join(["impart", *sys.argv[1:]]),
        "set": str(path),
        "data": data or [],
        "prompts": prompts,
    }
    folder = SweepFolder(out, prepared, plan, settings)
    points = plan.points(len(prepared.references), prepared.settings)
    _measure(folder, points, len(points) * len(prepared.questions))
    tables, best, problem = folder.finish(points, choose_by=choose_by, seconds=time.monotonic() - started)
    print_tables(tables)
    print(best_in_words(best, choose_by))
    for note in [*prepared.notes, *([problem] if problem else [])]:
        print(note, file=sys.stderr)
    print(f"report: {out}", file=sys.stderr)


def _measure(folder: SweepFolder, points: Sequence[Point], total: int) -> None:
    """Measure the points without a row, with a progress bar."""
    with progress("settings") as show:
        steps = folder.measure(points)
        if known := next(steps):
            print(f"{known} of {total} rows were measured before", file=sys.stderr)
        for done in steps:
            if show is not None:
                show(done, total)


def _open(data: list[str], split: str | None) -> list[ClassSet]:
    from impart.evaluate.datasets.registry import open_set
    from impart.evaluate.datasets.types import ClassSet

    found = [open_set(spec, split=split, kind="classes") for spec in data]
    return [one for one in found if isinstance(one, ClassSet)]


def _chosen(name: str, sets: list[ClassSet]) -> str:
    """Complete the name of the data set that the best setting is chosen by."""
    from impart.errors import ConfigError
    from impart.evaluate.sweep.run import LEAVE_ONE_OUT

    names = [one.name for one in sets]
    fitting = [full for full in names if name in (full, full.split("/")[0])]
    if name == LEAVE_ONE_OUT or name in names:
        return name
    if len(fitting) != 1:
        raise ConfigError(f"--choose-by {name}: choose {', '.join([LEAVE_ONE_OUT, *names])}")
    return fitting[0]


def _values(option: str, text: str, kind: Callable[[str], _T]) -> tuple[_T, ...]:
    from impart.errors import ConfigError

    try:
        return tuple(dict.fromkeys(kind(part.strip()) for part in text.split(",") if part.strip()))
    except ValueError as error:
        raise ConfigError(f"{option} {text}: {error}. Separate values by commas") from error
