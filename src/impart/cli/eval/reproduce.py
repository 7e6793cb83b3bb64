"""`impart reproduce`: the papers' tables with one command, for any encoder and reference set."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from impart.cli.eval.runs import Run, with_run
from impart.config import EncoderSettings, Prompts

__all__ = ["app"]

app = typer.Typer(help="Measure the papers' tables for your own encoder and reference set.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    pass


@app.command(
    epilog="Example: impart reproduce table1 --data data --encoder hf:openai/clip-vit-base-patch32 --refset yfcc-1000 "
    "--ram runs/ram-none/model --ram runs/ram-l2/model"
)
@with_run
def table1(
    run: Run,
    data: Annotated[
        Path,
        typer.Option(
            "--data",
            "-d",
            metavar="DIR",
            help="Folder with cifar10, cifar100 and caltech101: archives as published, or class folders.",
        ),
    ] = Path("data"),
    prompts: Annotated[Prompts, typer.Option("--prompts", help="As for 'impart eval zeroshot'.")] = "ensemble",
    limit: Annotated[
        int, typer.Option("--limit", min=0, metavar="N", help="Only so many images of a set, drawn; 0 = all.")
    ] = 0,
) -> None:
    """CIFAR-10, CIFAR-100 and Caltech-101 for CLIP, RA-CLIP and Vanilla, with the paper's figures beside ours.

    One --encoder takes CLIP's place; --refset is its reference set (default: the bundled one); each --ram is a trained
    RAM, which goes to the row of its form. Rows without a trained RAM say how to train one.
    """
    from impart.evaluate.report.folder import summarise
    from impart.evaluate.report.plots import bars
    from impart.evaluate.table1 import SETS, figures_table, open_sets, plan, settings_table
    from impart.evaluate.tasks.zeroshot import zeroshot

    options = run.options
    encoder = options.encoders or EncoderSettings.model
    if "," in encoder or len(options.refset) > 1:
        raise typer.BadParameter("one --encoder and one --refset make a table: run the command again for another")
    sets, missing = open_sets(data, limit=limit or None)
    more = {"threads": options.threads} if options.threads else {}
    refset = options.refset[0] if options.refset else None
    rows = plan(encoder, refset=refset, rams=options.ram, options=more)
    run.models = [row.model for row in rows if row.model is not None]
    for dataset in sets.values():
        for model in run.cleaned(dataset.name, dataset.images):
            task = partial(zeroshot, model.encoder, dataset, prompts=prompts, label=model.label, **run.common)
            run.measure(model, dataset.name, task)
    run.notes += missing
    summary = summarise(run.results, repeats=options.bootstrap)
    titles = {dataset.name: title for title, dataset in sets.items()}
    run.extra = [
        figures_table(rows, run.results, titles, summary.bounds),
        settings_table(rows, sets, prompts=prompts),
    ]
    values = {
        row.name: [
            next(
                (
                    one.figures["top-1"]
                    for one in run.results
                    if (one.encoder, titles[one.dataset]) == (row.name, title)
                ),
                float("nan"),
            )
            for title in SETS
        ]
        for row in rows
        if row.model is not None
    }
    run.more_plots.append(lambda folder: bars(folder / "table1.png", list(SETS), values, title="Zero-shot top-1"))
