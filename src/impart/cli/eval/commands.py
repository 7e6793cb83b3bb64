"""`impart eval`: measure encoders, plain or with a reference set, on the same items."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from impart.cli.eval.runs import Run, with_run
from impart.config import By, DecodeSettings, EvaluateSettings, Features, Fit, FixedPrompts, Prompts

if TYPE_CHECKING:
    from impart.evaluate.datasets.reader import Kind

__all__ = ["app"]

app = typer.Typer(
    help="Measure encoders and reference sets: several at once, on the same items, with intervals and a report.",
    no_args_is_help=True,
)

_KINDS = {
    "classes": "Images with a class each (zeroshot, probe)",
    "captions": "Images with captions (retrieval)",
    "boxes": "Images with labelled boxes (regions)",
    "videos": "Videos with captions (retrieval)",
    "moments": "Moments in videos (moments)",
}

DataArgument = Annotated[
    list[str] | None, typer.Argument(metavar="DATA", help="Data sets, as --data has them.", show_default=False)
]
DataOption = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        "-d",
        metavar="NAME:PATH",
        help="Data set: its name and its folder or file ('impart eval datasets' lists the names and the files), or a "
        "path alone (a folder with one sub-folder of images a class, or a csv). Repeatable.",
    ),
]
SplitOption = Annotated[
    str | None,
    typer.Option("--split", help="Part of the data set. Default: the one that papers report.", metavar="NAME"),
]
LimitOption = Annotated[
    int, typer.Option("--limit", min=0, metavar="N", help="Only so many images, drawn, always the same; 0 = all.")
]
FpsOption = Annotated[float, typer.Option("--fps", min=0.01, help="Videos: frames looked at a second.")]
FitOption = Annotated[Fit, typer.Option("--fit", help="Videos: whole frames, squeezed, or the encoder's own crop.")]
PromptsOption = Annotated[
    Prompts,
    typer.Option(
        "--prompts",
        help="Seven prompts averaged, 'a photo of a {}.' alone, or those written for the set.",
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
        int, typer.Option("--per-class", min=0, metavar="N", help="Only so many images of a class; 0 = all.")
    ] = 0,
    limit: LimitOption = 0,
) -> None:
    """Classify images by the names of their classes: top-1, top-5, mean per class, calibration, log-loss."""
    from impart.evaluate.tasks.zeroshot import zeroshot as measure

    for dataset in _open(data, more_data, kind="classes", split=split, per_class=per_class, limit=limit):
        for model in run.cleaned(dataset.name, dataset.images):
            task = partial(measure, model.encoder, dataset, prompts=prompts, label=model.label, **run.common)
            run.measure(model, dataset.name, task)


@app.command(
    epilog="Example: impart eval probe --data cifar10:data/cifar10 --encoders mini,hf:openai/clip-vit-base-patch32"
)
@with_run
def probe(
    run: Run,
    data: DataArgument = None,
    more_data: DataOption = None,
    train_split: Annotated[str, typer.Option("--train-split", metavar="NAME", help="Part to learn from.")] = "train",
    split: Annotated[str, typer.Option("--split", metavar="NAME", help="Part to measure on.")] = "test",
    val_split: Annotated[
        str | None,
        typer.Option(
            "--val-split", metavar="NAME", help="Part that C is chosen on. Default: a fifth of the training images."
        ),
    ] = None,
    features: Annotated[
        Features,
        typer.Option(
            "--features", help="What is classified: v (or v'), the retrieval embedding, or one after the other."
        ),
    ] = "embedding",
    per_class: Annotated[
        int,
        typer.Option("--per-class", min=0, metavar="N", help="Learn from only so many images of a class; 0 = all."),
    ] = 0,
    limit: Annotated[
        int, typer.Option("--limit", min=0, metavar="N", help="Measure only so many test images; 0 = all.")
    ] = 0,
) -> None:
    """Train a linear classifier on the embeddings of the training images: top-1, top-5, mean per class.

    Logistic regression (scikit-learn, L-BFGS); its C is chosen on validation images for every encoder by itself.
    """
    from impart.evaluate.tasks.probe import linear_probe

    tests = _open(data, more_data, kind="classes", split=split, limit=limit)
    trains = _open(data, more_data, kind="classes", split=train_split, per_class=per_class)
    vals = _open(data, more_data, kind="classes", split=val_split) if val_split else [None] * len(tests)
    for train, val, test in zip(trains, vals, tests, strict=True):
        for model in run.cleaned(test.name, test.images):
            task = partial(
                linear_probe,
                model.encoder,
                train,
                test,
                val=val,
                features=features,
                label=model.label,
                **run.common,
            )
            run.measure(model, test.name, task)


@app.command(epilog="Example: impart eval regions --data coco:data/coco/instances_val2017.json --scales 1,1.5,2")
@with_run
def regions(
    run: Run,
    data: DataArgument = None,
    more_data: DataOption = None,
    split: SplitOption = None,
    scales: Annotated[
        str, typer.Option("--scales", metavar="X,Y", help="How much is cut out: 1 = the box, 1.5 = half as much again.")
    ] = "1,1.5",
    prompts: Annotated[
        FixedPrompts, typer.Option("--prompts", help="Seven prompts averaged, or 'a photo of a {}.' alone.")
    ] = "ensemble",
    limit: LimitOption = 0,
) -> None:
    """Name what is in given boxes (zero-shot ROI classification): box accuracy and AP over the categories."""
    from impart.evaluate.tasks.regions import crops
    from impart.evaluate.tasks.regions import regions as measure

    chosen = _numbers(scales, "--scales")
    for dataset in _open(data, more_data, kind="boxes", split=split, limit=limit):
        cut = [crops(dataset, scale=scale) for scale in chosen]  # a reference may show what is in a box
        for model in run.cleaned(dataset.name, dataset.images, *cut):
            task = partial(
                measure,
                model.encoder,
                dataset,
                scales=chosen,
                prompts=prompts,
                label=model.label,
                **run.common,
            )
            run.measure(model, dataset.name, task)


@app.command(epilog="Example: impart eval retrieval --data flickr8k:data/flickr8k --query-bank")
@with_run
def retrieval(
    run: Run,
    data: DataArgument = None,
    more_data: DataOption = None,
    split: SplitOption = None,
    limit: LimitOption = 0,
    query_bank: Annotated[
        bool,
        typer.Option(
            "--query-bank", help="Also with query-bank normalisation, which sees all queries: figures of their own."
        ),
    ] = False,
    image_queries: Annotated[
        bool,
        typer.Option(
            "--image-queries",
            help="Videos: also find each by its middle frame, which is held out of the video's mean.",
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
            help="Search this video index: the data is a csv with the columns file and caption. Its own encoder is "
            "measured, and its reference set beside it where one is in force.",
        ),
    ] = None,
    by: Annotated[
        By, typer.Option("--by", help="With --index: a video counts by its mean or its best moment.")
    ] = "mean",
) -> None:
    """Find each caption's image or video, and each one's captions: R@1, R@5, R@10, ranks, MRR, nDCG, both ways.

    Sets of videos are named with their format, as in --data msrvtt:DIR, or --data video-captions:captions.csv for a csv
    with the columns file and caption. A video is the mean of its frames.
    """
    if index is not None:
        _search_index(run, index, [*(data or []), *(more_data or [])], by=by, split=split)
        return
    from impart.cli.eval.videos import find_videos
    from impart.evaluate.datasets.types import VideoSet
    from impart.evaluate.tasks.retrieval import retrieval as measure

    for dataset in _open(data, more_data, kind=("captions", "videos"), split=split, limit=limit):
        if isinstance(dataset, VideoSet):
            find_videos(
                run,
                dataset,
                fps=fps,
                fit=fit,
                query_bank=query_bank,
                image_queries=image_queries,
            )
            continue
        for model in run.cleaned(dataset.name, dataset.images):
            task = partial(measure, model.encoder, dataset, query_bank=query_bank, label=model.label, **run.common)
            run.measure(model, dataset.name, task)


@app.command()
def datasets(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the data sets that --data knows, with the files they want and where those are published."""
    from impart.cli.eval.runs import print_tables
    from impart.evaluate.datasets import READERS
    from impart.evaluate.report.tables import Cell, Table

    readers = sorted(READERS.values(), key=lambda reader: (reader.kind, reader.name))
    if as_json:
        fields = ("name", "kind", "splits", "files", "home")
        print(json.dumps([{name: getattr(reader, name) for name in fields} for reader in readers], indent=1))
        return
    tables = []
    for kind, title in _KINDS.items():
        rows = tuple(
            (Cell(reader.name), Cell(", ".join(reader.splits)), Cell(", ".join(reader.files)), Cell(reader.home))
            for reader in readers
            if reader.kind == kind
        )
        tables.append(Table(title=title, columns=("name", "splits", "files", "published at"), rows=rows, words=4))
    print_tables(tables)


@app.command(epilog="Example: impart eval moments --data qvhighlights:data/qvhighlights --predictions mine.jsonl")
@with_run
def moments(
    run: Run,
    data: DataArgument = None,
    more_data: DataOption = None,
    split: SplitOption = None,
    predictions: Annotated[
        list[Path] | None,
        typer.Option(
            "--predictions",
            metavar="FILE.jsonl",
            help="Windows that another method found, in the form of a QVHighlights submission; repeatable, each is "
            "compared with the first. Default: a plain baseline, around the frames that look most like the sentence.",
        ),
    ] = None,
    fps: FpsOption = DecodeSettings.fps,
    fit: FitOption = DecodeSettings.fit,
) -> None:
    """Find when a sentence happens in its video: R1@0.3, 0.5 and 0.7, mIoU, mAP, HIT@1."""
    from impart.cli.eval.videos import find_moments, score_files

    if predictions and (run.options.encoders or run.options.refset or run.options.ram):
        raise typer.BadParameter("--predictions were made elsewhere: leave --encoders, --refset and --ram out")
    for dataset in _open(data, more_data, kind="moments", split=split):
        if predictions:
            score_files(run, dataset, predictions)
        else:
            find_moments(run, dataset, fps=fps, fit=fit)


@app.command(epilog="Example: impart eval compare reports/monday reports/tuesday")
def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="Folder of a report.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Folder of another report.")],
    bootstrap: Annotated[
        int, typer.Option("--bootstrap", min=0, help="Draws for the intervals; 0 = none.")
    ] = EvaluateSettings.bootstrap,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what changed from report A to report B, figure by figure, on the items that both have.

    Encoders of the same name are compared; where none is in both, all of B with the first of A. A difference whose 95%
    interval (paired bootstrap) contains 0 is noise.
    """
    import sys

    from impart.cli.eval.runs import print_tables
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


def _search_index(run: Run, index: Path, tables: Sequence[str], *, by: By, split: str | None) -> None:
    from impart.cli.eval.videos import search_index

    options = run.options
    if options.encoders or options.refset or options.ram:
        raise typer.BadParameter("--index is searched with its own encoder and reference set ('impart refset use')")
    if not tables:
        raise typer.BadParameter("name a csv with the columns file and caption: --data captions.csv")
    for table in tables:
        run.results += search_index(index, Path(table), by=by, split=split)


def _open(
    first: Sequence[str] | None,
    second: Sequence[str] | None,
    *,
    kind: Kind | tuple[Kind, ...],
    split: str | None,
    per_class: int = 0,
    limit: int = 0,
) -> list[Any]:
    """The data sets that were named. Of several kinds the first is taken where the name does not tell."""
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
        raise ConfigError(f"two data sets are called {twice!r} and would be taken for one: measure each in its own run")
    return opened


def _numbers(text: str, option: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"{option} {text!r}: write numbers with commas between, such as 1,1.5") from error
