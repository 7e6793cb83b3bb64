"""`impart eval`: measure an encoder, plain or with a reference set."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from impart.cli.options import EncoderOption, NoAugmentOption, RefsetOption, ThreadsOption, load
from impart.config import EncoderSettings

__all__ = ["app"]

app = typer.Typer(help="Measure an encoder: zero-shot classification, retrieval.", no_args_is_help=True)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def zeroshot(
    data: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Folders with one sub-folder of pictures a class.")
    ],
    encoder: EncoderOption = None,
    refset: RefsetOption = None,
    no_augment: NoAugmentOption = False,
    single_prompt: Annotated[bool, typer.Option("--single-prompt", help="Only 'a photo of a {}.'.")] = False,
    threads: ThreadsOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Classify pictures by the names of their class folders."""
    from impart.evaluate import ClassFolder
    from impart.evaluate import zeroshot as measure
    from impart.evaluate.prompts import ENSEMBLE, SINGLE

    model = load(encoder or EncoderSettings.model, refset=refset, augment=not no_augment, threads=threads)
    partly = False
    for folder in data:
        report = measure(model, ClassFolder.open(folder), templates=SINGLE if single_prompt else ENSEMBLE)
        partly = partly or bool(report.unreadable)
        for reason in report.unreadable:
            print(f"left out: {reason}", file=sys.stderr)
        line = (
            f"{report.dataset}: top-1 {100 * report.top1:.2f}%, top-5 {100 * report.top5:.2f}%, mean per class "
            f"{100 * report.mean_per_class:.2f}% ({report.images} pictures, {report.classes} classes, {report.encoder})"
        )
        print(json.dumps(dataclasses.asdict(report), ensure_ascii=False) if as_json else line)
    if partly:
        raise typer.Exit(3)


@app.command()
def retrieval(
    captions: Annotated[Path, typer.Argument(metavar="CSV", help="Table with the columns file and caption (or text).")],
    images: Annotated[
        Path | None, typer.Option(help="Folder of the pictures; default: 'images' beside the table.", metavar="DIR")
    ] = None,
    index: Annotated[
        Path | None,
        typer.Option("--index", "-i", help="Search this video index instead: 'file' names videos.", metavar="DIR"),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Only rows whose column 'split' says this.")] = None,
    by: Annotated[str, typer.Option(help="Videos: rank by the mean of the frames or the best moment.")] = "mean",
    encoder: EncoderOption = None,
    refset: RefsetOption = None,
    no_augment: NoAugmentOption = False,
    threads: ThreadsOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Find each caption's picture (and each picture's caption), or each caption's video in an index."""
    if index is not None:
        rows = _videos(captions, index, by=by, augment=not no_augment)
    else:
        from impart.evaluate import CaptionedImages, image_retrieval

        model = load(encoder or EncoderSettings.model, refset=refset, augment=not no_augment, threads=threads)
        to_image, to_text, unreadable = image_retrieval(
            model, CaptionedImages.open(captions, images=images, split=split)
        )
        for reason in unreadable:
            print(f"left out: {reason}", file=sys.stderr)
        rows = {"text to image": to_image, "image to text": to_text}
    for name, report in rows.items():
        if as_json:
            print(json.dumps({"task": name, **dataclasses.asdict(report)}))
            continue
        recalls = (report.recall_at_1, report.recall_at_5, report.recall_at_10)
        shown = ", ".join(f"R@{k} {100 * value:.1f}%" for k, value in zip((1, 5, 10), recalls, strict=True))
        print(f"{name}: {shown}, MedR {report.median_rank:g} ({report.queries} queries, {report.items} items)")


def _videos(captions: Path, index: Path, *, by: str, augment: bool) -> dict[str, Any]:
    """Rank of each caption's own video among all videos of the index."""
    import numpy as np

    from impart.errors import DataError
    from impart.evaluate import rank_metrics
    from impart.evaluate.datasets import read_captions
    from impart.video.index import VideoIndex
    from impart.video.search import Query

    opened = VideoIndex.open(index, create=False)
    total = len(opened.videos())
    pairs = read_captions(captions)
    known = {Path(video.path).name for video in opened.videos()}
    pairs = [(file, text) for file, text in pairs if Path(file).name in known]
    if not pairs:
        raise DataError(f"none of the files that {captions} names is in the index {index}")
    found = opened.search_many([Query(text=text) for _, text in pairs], top=total, by=by, augment=augment)  # type: ignore[arg-type]
    ranks = [
        next((hit.rank for hit in hits if Path(hit.path).name == Path(file).name), total)
        for (file, _), hits in zip(pairs, found, strict=True)
    ]
    return {"text to video": rank_metrics(np.asarray(ranks), items=total)}
