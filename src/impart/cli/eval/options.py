"""Options that the commands of `impart eval` and `impart reproduce` share, with their help in one place."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import typer

from impart.cli.options import encoder_options
from impart.config import Device, Prompts

__all__ = [
    "BatchOption",
    "BootstrapOption",
    "CacheOption",
    "DataArgument",
    "DataOption",
    "EncodersOption",
    "EvalOptions",
    "Form",
    "FormatOption",
    "JsonOption",
    "LimitOption",
    "NearDuplicateOption",
    "NoCacheOption",
    "NoReportOption",
    "PromptsOption",
    "RamsOption",
    "RefsetsOption",
    "ReportOption",
    "SplitOption",
]

DataArgument: TypeAlias = Annotated[
    list[str] | None, typer.Argument(metavar="DATA", help="Data sets, as in --data.", show_default=False)
]
DataOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        "-d",
        metavar="NAME:PATH",
        help="Data set: its name and its folder or file ('impart eval datasets' lists the names and the files), or a "
        "path alone (a folder with one sub-folder of images per class, or a csv). Repeatable.",
    ),
]
SplitOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--split", help="Split of the data set. Default: the one that papers report.", metavar="NAME"),
]
LimitOption: TypeAlias = Annotated[
    int,
    typer.Option("--limit", min=0, metavar="N", help="Only N images, drawn at random with a fixed seed; 0 = all."),
]
PromptsOption: TypeAlias = Annotated[
    Prompts,
    typer.Option(
        "--prompts",
        help="Seven prompts averaged, 'a photo of a {}.' alone, or the prompts of the data set.",
    ),
]
EncodersOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--encoders",
        "--encoder",
        "-e",
        metavar="NAMES",
        help="Models to evaluate, with commas between: an encoder's id (mini, onnx:DIR, hf:ID, open_clip:MODEL/TAG), "
        "with +vanilla or +paper (blended with --refset, by its tuned or by the paper's settings), +ram (--ram) or "
        "+bundled; +vanilla=SET and +ram=DIR name their own; or the folder of a trained RAM. All get the same items "
        "and are compared with the first. Default: mini, and +vanilla, +ram if --refset, --ram are given.",
    ),
]
RefsetsOption: TypeAlias = Annotated[
    list[Path] | None,
    typer.Option("--refset", "-r", metavar="DIR", help="Reference set to blend in (see 'impart refset')."),
]
RamsOption: TypeAlias = Annotated[
    list[Path] | None, typer.Option("--ram", metavar="DIR", help="Trained RAM for +ram (see 'impart train').")
]
NearDuplicateOption: TypeAlias = Annotated[
    float,
    typer.Option(
        "--near-duplicate",
        metavar="COSINE",
        help="Drop references that show a test image: the same file, the same perceptual hash, or this cosine. "
        "0 = the cosine that unrelated images of the encoder do not reach; 2 = only the same file.",
    ),
]
CacheOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        metavar="DIR",
        help="Folder of cached embeddings: a stopped run continues, a second metric takes seconds. "
        "Default: IMPART_CACHE, else impart in the user's cache folder.",
    ),
]
NoCacheOption: TypeAlias = Annotated[bool, typer.Option("--no-cache", help="Neither read nor write cached embeddings.")]
BatchOption: TypeAlias = Annotated[int, typer.Option("--batch", min=1, help="Images per forward pass.")]
BootstrapOption: TypeAlias = Annotated[
    int, typer.Option("--bootstrap", min=0, help="Draws for the 95% intervals; 0 = no intervals.")
]
ReportOption: TypeAlias = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="DIR", help="Folder of the report. Default: reports/TASK-DATE-TIME."),
]
NoReportOption: TypeAlias = Annotated[bool, typer.Option("--no-report", help="Print only; write no report.")]
Form: TypeAlias = Literal["table", "csv", "json"]
FormatOption: TypeAlias = Annotated[
    Form, typer.Option("--format", help="Print tables, one csv row per figure, or the content of report.json.")
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="The same as --format json.")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """Values of the shared options, under the names of a command's parameters."""

    encoders: str | None
    refset: list[Path] | None
    ram: list[Path] | None
    near_duplicate: float
    cache: Path | None
    no_cache: bool
    batch: int
    device: Device | None
    threads: int
    bootstrap: int
    out: Path | None
    no_report: bool
    form: Form
    as_json: bool

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> EvalOptions:
        """Take the shared options from all parameters of a command (its `locals()`)."""
        return cls(**{item.name: parameters[item.name] for item in dataclasses.fields(cls)})

    @property
    def encoder_options(self) -> dict[str, Any]:
        """Options of `load_encoder`."""
        return encoder_options(self.threads, self.device)
