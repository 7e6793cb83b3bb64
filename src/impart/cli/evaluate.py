"""`impart eval`: measure encoders, plain or with a reference set, on the same items."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from impart.cli.runs import Run, with_run

if TYPE_CHECKING:
    from impart.evaluate.sets import ClassSet

__all__ = ["app"]

app = typer.Typer(
    help="Measure encoders and reference sets: several at once, on the same items, with intervals and a report.",
    no_args_is_help=True,
)

DataArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="DATA", help="Data sets, as --data has them.", show_default=False),
]
DataOption = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        "-d",
        metavar="NAME:PATH",
        help="Data set: a format's name and its folder or file ('impart eval datasets' lists them), or a path alone "
        "(a folder with one sub-folder of pictures a class, or a table of captions). Repeatable.",
    ),
]
SplitOption = Annotated[
    str | None, typer.Option("--split", help="Part of the data set. Default: its test part.", metavar="NAME")
]
LimitOption = Annotated[
    int, typer.Option("--limit", min=0, metavar="N", help="Only so many, drawn at random (always the same); 0 = all.")
]
PromptsOption = Annotated[
    str,
    typer.Option(
        "--prompts",
        metavar="ensemble|single|set",
        help="Prompts: seven averaged, 'a photo of a {}.', or those written for the set.",
    ),
]


@app.command(epilog="Example: impart eval zeroshot --data cifar10:data/cifar10 --encoders mini,mini+vanilla -r my-set")
@with_run
def zeroshot(
    run: Run,
    data: DataArgument = None,
    more_data: DataOption = None,
    split: SplitOption = None,
    prompts: PromptsOption = "ensemble",
    per_class: Annotated[
        int, typer.Option("--per-class", min=0, metavar="N", help="Only so many pictures of a class; 0 = all.")
    ] = 0,
    limit: LimitOption = 0,
) -> None:
    """Classify pictures by the names of their classes: top-1, top-5, mean per class, calibration, log-loss."""
    from impart.evaluate.zeroshot import zeroshot as measure

    sets: list[ClassSet] = [
        few(found, per_class=per_class, limit=limit) for found in _open(data, more_data, "classes", split)
    ]
    for dataset in sets:
        for contender in run.cleaned(dataset.name, dataset.pictures):
            run.measure(
                contender,
                dataset.name,
                lambda show, c=contender, d=dataset: measure(  # type: ignore[misc]
                    c.encoder, d, prompts=prompts, label=c.label, on_progress=show, **run.common
                ),
            )


@app.command(epilog="Example: impart eval compare reports/monday reports/tuesday")
def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="Folder of a report.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Folder of another report.")],
    bootstrap: Annotated[int, typer.Option("--bootstrap", min=0, help="Draws for the intervals; 0 = none.")] = 1000,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what changed from report A to report B, figure by figure, on the items that both have.

    Encoders of the same name are compared; where none is in both, all of B with the first of A. A difference whose 95%
    interval (paired bootstrap) contains 0 is noise.
    """
    import sys

    from impart.cli.runs import print_tables
    from impart.evaluate.compare import compare_all
    from impart.evaluate.report import comparison_content, read_report
    from impart.evaluate.tables import difference_list

    comparisons, notes = compare_all(read_report(first).outcomes, read_report(second).outcomes, repeats=bootstrap)
    if as_json:
        content = {"comparisons": comparison_content(comparisons), "notes": notes}
        print(json.dumps(content, ensure_ascii=False, indent=1))
    else:
        table = difference_list(comparisons)
        print_tables([table] if table is not None else [])
    for note in notes:
        print(note, file=sys.stderr)


def few(dataset: ClassSet, *, per_class: int = 0, limit: int = 0) -> ClassSet:
    """Some pictures of a set, drawn at random, always the same; 0 = all."""
    import numpy as np

    rows = np.random.default_rng(0).permutation(len(dataset))
    if per_class:
        labels = dataset.labels[rows]
        rows = np.concatenate([rows[labels == label][:per_class] for label in np.unique(labels)])
    if limit and len(rows) > limit:
        rows = np.random.default_rng(0).permutation(rows)[:limit]
    return dataset if len(rows) == len(dataset) else dataset.subset(np.sort(rows))


def _open(first: Sequence[str] | None, second: Sequence[str] | None, kind: str, split: str | None) -> list[Any]:
    from impart.evaluate.datasets.registry import open_set

    specs = [*(first or []), *(second or [])]
    if not specs:
        raise typer.BadParameter("name a data set: --data cifar10:PATH, or a folder ('impart eval datasets' lists all)")
    return [open_set(spec, split=split, kind=kind) for spec in specs]  # type: ignore[arg-type]
