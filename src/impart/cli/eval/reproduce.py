"""`impart reproduce`: measure the papers' tables for any encoder and reference set."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from impart.cli.eval.options import (
    BatchOption,
    BootstrapOption,
    CacheOption,
    EncodersOption,
    FormatOption,
    JsonOption,
    NearDuplicateOption,
    NoCacheOption,
    NoReportOption,
    RamsOption,
    RefsetsOption,
    ReportOption,
)
from impart.cli.eval.runs import evaluation
from impart.cli.options import DeviceOption, ThreadsOption
from impart.config import EncoderSettings, EvaluateSettings, Prompts

__all__ = ["app"]

app = typer.Typer(help="Measure the papers' tables for your own encoder and reference set.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    pass


@app.command(
    epilog="Example: impart reproduce table1 --data data --encoder hf:openai/clip-vit-base-patch32 --refset yfcc-1000 "
    "--ram runs/ram-none/model --ram runs/ram-l2/model"
)
def table1(
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
        int, typer.Option("--limit", min=0, metavar="N", help="Only N images per data set, drawn at random; 0 = all.")
    ] = 0,
    encoders: EncodersOption = None,
    refset: RefsetsOption = None,
    ram: RamsOption = None,
    near_duplicate: NearDuplicateOption = EvaluateSettings.near_duplicate,
    cache: CacheOption = None,
    no_cache: NoCacheOption = False,
    batch: BatchOption = EvaluateSettings.batch,
    device: DeviceOption = None,
    threads: ThreadsOption = 0,
    bootstrap: BootstrapOption = EvaluateSettings.bootstrap,
    out: ReportOption = None,
    no_report: NoReportOption = False,
    form: FormatOption = "table",
    as_json: JsonOption = False,
) -> None:
    """Measure CIFAR-10, CIFAR-100 and Caltech-101 for CLIP, RA-CLIP and Vanilla, beside the paper's figures.

    One --encoder takes CLIP's place; --refset is its reference set (default: the bundled one); each --ram is a trained
    RAM, which fills the row of its form. Rows without a trained RAM name the command that trains one.
    """
    with evaluation("table1", locals()) as (run, options):
        from impart.evaluate.table1 import add_tables, open_sets, plan_rows
        from impart.evaluate.tasks.zeroshot import zeroshot

        encoder = encoders or EncoderSettings.model
        if "," in encoder or len(refset or []) > 1:
            raise typer.BadParameter("one --encoder and one --refset make a table: run the command again for another")
        sets, missing = open_sets(data, limit=limit or None)
        rows = plan_rows(encoder, refset=refset[0] if refset else None, rams=ram or (), options=options.encoder_options)
        run.models = [row.model for row in rows if row.model is not None]
        for dataset in sets.values():
            run.measure(dataset.name, [partial(zeroshot, dataset=dataset, prompts=prompts)], [dataset.images])
        run.notes += missing
        add_tables(run, rows, sets, prompts=prompts)
