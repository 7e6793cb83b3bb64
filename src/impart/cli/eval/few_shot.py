"""`impart eval few-shot`: few-shot methods on the same draws of labelled references."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from impart.cli.eval.options import (
    BatchOption,
    BootstrapOption,
    CacheOption,
    DataArgument,
    DataOption,
    EvalOptions,
    FormatOption,
    JsonOption,
    NearDuplicateOption,
    NoCacheOption,
    NoReportOption,
    PromptsOption,
    ReportOption,
)
from impart.cli.eval.runs import evaluation, open_data
from impart.cli.options import DeviceOption, ListOf, ThreadsOption
from impart.config import EncoderSettings, EvaluateSettings, FewShotMethod, FewShotTuning

if TYPE_CHECKING:
    from impart.blending.ram_onnx import LearnedRam
    from impart.evaluate.datasets.types import ClassSet
    from impart.evaluate.run import Run

__all__ = ["few_shot"]

_METHODS: tuple[str, ...] = get_args(FewShotMethod)
_TUNINGS: tuple[str, ...] = get_args(FewShotTuning)


def few_shot(
    data: DataArgument = None,
    more_data: DataOption = None,
    train: Annotated[
        Path | None,
        typer.Option(
            "--train",
            metavar="DIR",
            help="Folder of the training images, one sub-folder per class, instead of DATA; with --test.",
        ),
    ] = None,
    test: Annotated[
        Path | None, typer.Option("--test", metavar="DIR", help="Folder of the test images, with the same classes.")
    ] = None,
    train_split: Annotated[
        str, typer.Option("--train-split", metavar="NAME", help="Split of DATA to draw references from.")
    ] = "train",
    split: Annotated[str, typer.Option("--split", metavar="NAME", help="Split of DATA to measure on.")] = "test",
    images: Annotated[
        str, typer.Option("--images", metavar="N,N,...", help="Reference images per class.")
    ] = "1,2,3,4,8",
    draws: Annotated[
        int, typer.Option("--draws", min=1, help="Draws of the reference images; the first takes the first images.")
    ] = 5,
    methods: Annotated[
        str,
        typer.Option(
            "--methods",
            metavar="A,B,...",
            parser=ListOf(_METHODS),
            help=f"Methods, of {', '.join(_METHODS)}. A RAM is measured with --ram.",
        ),
    ] = ",".join(_METHODS),
    over: Annotated[
        FewShotMethod, typer.Option("--over", help="The method that the others are compared with.")
    ] = "tip-adapter",
    tuned_with: Annotated[
        str,
        typer.Option(
            "--tuned-with",
            metavar="A,B,...",
            parser=ListOf(_TUNINGS),
            help="Labels that the constants of a method are chosen by, beside the references: none (leave-one-out on "
            "the references), folds (none as well: one reference per class is left out at a time), few (as many images "
            "per class as references, at most 4), full (all other training images).",
        ),
    ] = "none",
    prompts: PromptsOption = "ensemble",
    encoders: Annotated[
        str | None,
        typer.Option(
            "--encoders",
            "--encoder",
            "-e",
            metavar="NAMES",
            help="Plain encoders, with commas between: mini, onnx:DIR, hf:ID, open_clip:MODEL/TAG. Default: mini, or "
            "the encoder of --ram.",
        ),
    ] = None,
    ram: Annotated[
        list[Path] | None,
        typer.Option("--ram", metavar="DIR", help="Trained RAM to measure as well (see 'impart train'). Repeatable."),
    ] = None,
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
    """Classify images by a few labelled images per class: published methods and ours, on the same draws.

    Every test image shows one of the classes. Methods marked transductive need all test images at once; all others
    are encoders too. Training images that show a test image are not drawn. The intervals are of a bootstrap over test
    images and draws, paired with --over. docs/few-shot.md explains the methods.
    """
    with evaluation("few-shot", {**locals(), "refset": None}) as (run, options):
        from impart.evaluate.tasks.few_shot import few_shot as task

        pairs = _pairs(data, more_data, train=train, test=test, train_split=train_split, split=split)
        rams = _open(run, options)
        for trained, tested in pairs:
            measured = partial(
                task,
                train=trained,
                test=tested,
                images=_numbers(images),
                draws=draws,
                methods=methods.replace(" ", "").split(","),
                over=over,
                tuned_with=tuned_with.replace(" ", "").split(","),
                rams=rams,
                prompts=prompts,
                near_duplicate=near_duplicate,
            )
            run.measure(tested.name, [measured], [tested.images])
    print(
        "next: impart refset build DIR -o my-set, and impart refset tune my-set --closed: references for every command",
        file=sys.stderr,
    )


def _pairs(
    data: list[str] | None,
    more_data: list[str] | None,
    *,
    train: Path | None,
    test: Path | None,
    train_split: str,
    split: str,
) -> list[tuple[ClassSet, ClassSet]]:
    """Open the training and the test images of each data set."""
    if (train is None) != (test is None):
        raise typer.BadParameter("give both --train and --test, or a data set")
    if train is not None and test is not None:
        if data or more_data:
            raise typer.BadParameter("--train and --test stand for the data set: leave DATA out")
        from impart.evaluate.datasets import open_set

        trained: Any = open_set(str(train), kind="classes")
        return [(trained, open_set(str(test), kind="classes"))]
    tests = open_data(data, more_data, kind="classes", split=split)
    trains = open_data(data, more_data, kind="classes", split=train_split)
    return list(zip(trains, tests, strict=True))


def _open(run: Run, options: EvalOptions) -> dict[str, LearnedRam]:
    """Open the encoders into the run, and the RAMs by their names in tables."""
    from impart.blending.encoder import AugmentedEncoder
    from impart.blending.ram_checkpoint import encoder_id_of, open_ram
    from impart.errors import ConfigError
    from impart.evaluate.models import open_models

    places = options.ram or []
    names = options.encoders or (encoder_id_of(places[0]) if places else EncoderSettings.model)
    run.settings["encoders"] = names
    run.models = open_models(names, options=options.encoder_options)
    augmented = [model.label for model in run.models if isinstance(model.encoder, AugmentedEncoder)]
    if augmented:
        raise ConfigError(
            f"--encoder {', '.join(augmented)}: few-shot methods stand on a plain encoder; name it alone, Vanilla is "
            "measured by --methods vanilla,vanilla-closed"
        )
    rams = {f"RAM {place.name}" if len(places) > 1 else "RAM": open_ram(place) for place in places}
    known = {model.encoder.fingerprint for model in run.models}
    for place, ram in zip(places, rams.values(), strict=True):
        if ram.encoder_fingerprint not in known:
            raise ConfigError(
                f"--ram {place} was trained on the encoder {encoder_id_of(place)!r}: add it to --encoder, or leave the "
                "RAM out"
            )
    return rams


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"--images {text!r}: write numbers with commas between, such as 1,2,4") from error
