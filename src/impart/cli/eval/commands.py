"""`impart eval`: evaluate models, plain or with a reference set, on the same items."""

from __future__ import annotations

import json
import sys
import textwrap
from functools import partial
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from impart.cli.eval.few_shot import few_shot
from impart.cli.eval.options import (
    BatchOption,
    BootstrapOption,
    CacheOption,
    DataArgument,
    DataOption,
    EncodersOption,
    Form,
    FormatOption,
    JsonOption,
    LimitOption,
    NearDuplicateOption,
    NoCacheOption,
    NoReportOption,
    PromptsOption,
    RamsOption,
    RefsetsOption,
    ReportOption,
    SplitOption,
)
from impart.cli.eval.runs import evaluation, open_data, open_models, print_figures, print_tables
from impart.cli.options import DeviceOption, ThreadsOption, index_place
from impart.config import By, DecodeSettings, EvaluateSettings, Features, Fit, FixedPrompts

__all__ = ["app"]

app = typer.Typer(
    help="Evaluate encoders and reference sets: several at once, on the same items, with intervals and a report.",
    no_args_is_help=True,
)

app.command(
    "few-shot",
    epilog="Example: impart eval few-shot caltech101:data/caltech101 --images 1,2,4 --tuned-with none,few",
)(few_shot)

_WIDTH, _INDENT = 100, 6 * " "  # of the list of data sets
_KINDS = {
    "classes": "Images with a class each (zeroshot, probe)",
    "captions": "Images with captions (retrieval)",
    "boxes": "Images with labelled boxes (regions)",
    "videos": "Videos with captions (retrieval)",
    "moments": "Moments in videos (moments)",
}

FpsOption: TypeAlias = Annotated[float, typer.Option("--fps", min=0.01, help="Videos: frames sampled per second.")]
FitOption: TypeAlias = Annotated[
    Fit, typer.Option("--fit", help="Videos: whole frames, squashed to a square, or the encoder's own crop.")
]


@app.command(epilog="Example: impart eval zeroshot --data cifar10:data/cifar10 --encoders mini,mini+vanilla -r my-set")
def zeroshot(
    data: DataArgument = None,
    more_data: DataOption = None,
    split: SplitOption = None,
    prompts: PromptsOption = "ensemble",
    per_class: Annotated[
        int, typer.Option("--per-class", min=0, metavar="N", help="Only N images per class; 0 = all.")
    ] = 0,
    limit: LimitOption = 0,
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
    """Classify images by the names of their classes: top-1, top-5, mean per class, calibration, log-loss."""
    with evaluation("zeroshot", locals()) as (run, options):
        from impart.evaluate.tasks.zeroshot import zeroshot as task

        opened = open_data(data, more_data, kind="classes", split=split, per_class=per_class, limit=limit)
        open_models(run, options)
        for dataset in opened:
            run.measure(dataset.name, [partial(task, dataset=dataset, prompts=prompts)], [dataset.images])


@app.command(
    epilog="Example: impart eval probe --data cifar10:data/cifar10 --encoders mini,hf:openai/clip-vit-base-patch32"
)
def probe(
    data: DataArgument = None,
    more_data: DataOption = None,
    train_split: Annotated[str, typer.Option("--train-split", metavar="NAME", help="Split to train on.")] = "train",
    split: Annotated[str, typer.Option("--split", metavar="NAME", help="Split to measure on.")] = "test",
    val_split: Annotated[
        str | None,
        typer.Option(
            "--val-split", metavar="NAME", help="Split to choose C on. Default: a fifth of the training images."
        ),
    ] = None,
    features: Annotated[
        Features,
        typer.Option(
            "--features", help="What is classified: v (or v'), the retrieval embedding, or both, concatenated."
        ),
    ] = "embedding",
    per_class: Annotated[
        int, typer.Option("--per-class", min=0, metavar="N", help="Train on only N images per class; 0 = all.")
    ] = 0,
    limit: Annotated[int, typer.Option("--limit", min=0, metavar="N", help="Measure only N test images; 0 = all.")] = 0,
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
    """Train a linear classifier on the embeddings of the training images: top-1, top-5, mean per class.

    Logistic regression (scikit-learn, L-BFGS). Its C is chosen on validation images for each encoder separately.
    """
    with evaluation("probe", locals()) as (run, options):
        from impart.evaluate.tasks.probe import linear_probe

        tests = open_data(data, more_data, kind="classes", split=split, limit=limit)
        trains = open_data(data, more_data, kind="classes", split=train_split, per_class=per_class)
        vals = open_data(data, more_data, kind="classes", split=val_split) if val_split else [None] * len(tests)
        open_models(run, options)
        for train, val, test in zip(trains, vals, tests, strict=True):
            task = partial(linear_probe, train=train, test=test, val=val, features=features)
            run.measure(test.name, [task], [test.images])


@app.command(epilog="Example: impart eval regions --data coco:data/coco/instances_val2017.json --scales 1,1.5,2")
def regions(
    data: DataArgument = None,
    more_data: DataOption = None,
    split: SplitOption = None,
    scales: Annotated[
        str, typer.Option("--scales", metavar="X,Y", help="Sizes of the crops: 1 = the box, 1.5 = half as large again.")
    ] = "1,1.5",
    prompts: Annotated[
        FixedPrompts, typer.Option("--prompts", help="Seven prompts averaged, or 'a photo of a {}.' alone.")
    ] = "ensemble",
    limit: LimitOption = 0,
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
    """Classify the content of given boxes (zero-shot ROI classification): box accuracy and AP over the categories."""
    with evaluation("regions", locals()) as (run, options):
        from impart.evaluate.tasks.regions import crops
        from impart.evaluate.tasks.regions import regions as task

        chosen = _numbers(scales, "--scales")
        opened = open_data(data, more_data, kind="boxes", split=split, limit=limit)
        open_models(run, options)
        for dataset in opened:
            cut = [crops(dataset, scale=scale) for scale in chosen]  # a reference may show the content of a box
            measured = partial(task, dataset=dataset, scales=chosen, prompts=prompts)
            run.measure(dataset.name, [measured], [dataset.images, *cut])


@app.command(epilog="Example: impart eval retrieval --data flickr8k:data/flickr8k --query-bank")
def retrieval(
    data: DataArgument = None,
    more_data: DataOption = None,
    split: SplitOption = None,
    limit: LimitOption = 0,
    query_bank: Annotated[
        bool,
        typer.Option(
            "--query-bank", help="Also with query-bank normalisation, which uses all queries: separate figures."
        ),
    ] = False,
    image_queries: Annotated[
        bool,
        typer.Option(
            "--image-queries",
            help="Videos: also search each by its middle frame, which is held out of the video's mean.",
        ),
    ] = False,
    fps: FpsOption = DecodeSettings.fps,
    fit: FitOption = DecodeSettings.fit,
    index: Annotated[
        Path | None,
        typer.Option(
            "--index",
            "-i",
            metavar="DIR",
            parser=index_place,
            help="Search this video index; the data is a csv with the columns file and caption. The index's own "
            "encoder is measured, plain and with the reference set in use, if there is one.",
        ),
    ] = None,
    by: Annotated[
        By, typer.Option("--by", help="With --index: score a video by its mean, its best moment or its best frame.")
    ] = "mean",
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
    """Find the image or video of each caption, and the captions of each: R@1, R@5, R@10, ranks, MRR, nDCG.

    Sets of videos are named with their format, as in --data msrvtt:DIR, or --data video-captions:captions.csv for a csv
    with the columns file and caption. A video is the mean of its frames.
    """
    with evaluation("retrieval", locals()) as (run, options):
        if index is not None:
            if options.encoders or options.refset or options.ram:
                raise typer.BadParameter(
                    "--index has its own encoder and set: leave --encoders, --refset and --ram out"
                )
            tables = [*(data or []), *(more_data or [])]
            if not tables:
                raise typer.BadParameter("name a csv with the columns file and caption: --data captions.csv")
            from impart.evaluate.tasks.index_retrieval import index_retrieval

            for table in tables:
                run.results += index_retrieval(index, Path(table), by=by, split=split)
            return
        from impart.evaluate.datasets.types import VideoSet
        from impart.evaluate.tasks.retrieval import retrieval as image_retrieval
        from impart.evaluate.tasks.video_retrieval import image_to_video, video_retrieval

        decode = DecodeSettings(fps=fps, fit=fit)
        opened = open_data(data, more_data, kind=("captions", "videos"), split=split, limit=limit)
        open_models(run, options)
        for dataset in opened:
            if isinstance(dataset, VideoSet):
                tasks = [partial(video_retrieval, dataset=dataset, frames=decode, query_bank=query_bank)]
                by_image = [partial(image_to_video, dataset=dataset, frames=decode)] if image_queries else []
                run.measure_videos(dataset, [*tasks, *by_image], decode)
            else:
                task = partial(image_retrieval, dataset=dataset, query_bank=query_bank)
                run.measure(dataset.name, [task], [dataset.images])


@app.command()
def datasets(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the data sets of --data, with their files and where these are published."""
    from impart.evaluate.datasets import READERS

    readers = sorted(READERS.values(), key=lambda reader: (reader.kind, reader.name))
    if as_json:
        fields = ("name", "kind", "splits", "files", "home")
        print(json.dumps([{name: getattr(reader, name) for name in fields} for reader in readers], indent=1))
        return
    for kind, title in _KINDS.items():
        print(title)
        for reader in readers:
            if reader.kind == kind:
                splits = f"  (splits: {', '.join(reader.splits)})" if reader.splits else ""
                print(f"  {reader.name}{splits}")
                for line in (", ".join(reader.files), reader.home):
                    print(textwrap.fill(line, _WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT + "  "))
        print()


@app.command(epilog="Example: impart eval moments --data qvhighlights:data/qvhighlights --predictions mine.jsonl")
def moments(
    data: DataArgument = None,
    more_data: DataOption = None,
    split: SplitOption = None,
    predictions: Annotated[
        list[Path] | None,
        typer.Option(
            "--predictions",
            metavar="FILE.jsonl",
            help="Windows that another method predicted, in the format of a QVHighlights submission. Repeatable; each "
            "is compared with the first. Default: the moments that a search finds in the video.",
        ),
    ] = None,
    fps: FpsOption = DecodeSettings.fps,
    fit: FitOption = DecodeSettings.fit,
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
    """Find the moments of a video that a sentence describes: R1@0.3, 0.5 and 0.7, mIoU, mAP, HIT@1."""
    with evaluation("moments", locals()) as (run, options):
        from impart.evaluate.tasks.moments import moment_baseline, score_files

        if predictions and (options.encoders or options.refset or options.ram):
            raise typer.BadParameter("--predictions were made elsewhere: leave --encoders, --refset and --ram out")
        opened = open_data(data, more_data, kind="moments", split=split)
        if not predictions:
            open_models(run, options)
        decode = DecodeSettings(fps=fps, fit=fit)
        for dataset in opened:
            if predictions:
                run.results += score_files(predictions, dataset)
            else:
                run.measure_videos(dataset, [partial(moment_baseline, dataset=dataset, frames=decode)], decode)


@app.command(epilog="Example: impart eval compare reports/monday reports/tuesday")
def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="Folder of a report.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Folder of another report.")],
    bootstrap: Annotated[
        int, typer.Option("--bootstrap", min=0, help="Draws for the intervals; 0 = none.")
    ] = EvaluateSettings.bootstrap,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare report B with report A, figure by figure, on the items that both have.

    Models of the same name are compared; if no name is in both, all of B with the first of A. A difference whose 95%
    interval (paired bootstrap) contains 0 is noise.
    """
    from impart.evaluate.report.compare import compare_all
    from impart.evaluate.report.folder import comparison_content, read_report
    from impart.evaluate.report.tables import difference_list

    comparisons, notes = compare_all(read_report(first).results, read_report(second).results, repeats=bootstrap)
    if as_json:
        content = {"comparisons": comparison_content(comparisons), "notes": notes}
        print(json.dumps(content, ensure_ascii=False, indent=1))
    else:
        table = difference_list(comparisons)
        print_tables([table] if table is not None else [])
    for note in notes:
        print(note, file=sys.stderr)


@app.command(epilog="Example: impart eval table reports/* --format csv > all.csv")
def table(
    reports: Annotated[list[Path], typer.Argument(metavar="REPORT", help="Folders of reports.")],
    figure: Annotated[
        list[str] | None,
        typer.Option("--figure", metavar="NAME", help="Figure to show, such as R@5. Repeatable. Default: the first."),
    ] = None,
    bootstrap: Annotated[
        int, typer.Option("--bootstrap", min=0, help="Draws for the intervals, which the table leaves out; 0 = none.")
    ] = EvaluateSettings.bootstrap,
    form: Annotated[
        Form, typer.Option("--format", help="Print one table, or one csv row or JSON object per figure.")
    ] = "table",
) -> None:
    """Put the results of many reports in one table: a row per report and model, a column per data set."""
    from impart.evaluate.report.compare import intervals
    from impart.evaluate.report.folder import read_report
    from impart.evaluate.report.overview import figure_rows, overview

    unique = len({folder.resolve().name for folder in reports}) == len(reports)
    opened = {folder.resolve().name if unique else str(folder): read_report(folder).results for folder in reports}
    if form == "table":
        print_tables([overview(opened, figures=figure or ())])
        return
    rows = [
        row
        for name, results in opened.items()
        for row in figure_rows(name, results, [intervals(result, repeats=bootstrap) for result in results])
        if not figure or row["figure"] in figure
    ]
    print_figures(rows, form)


def _numbers(text: str, option: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"{option} {text!r}: write numbers with commas between, such as 1,1.5") from error
