"""Options that several commands share, with their help in one place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from impart.config import Settings

if TYPE_CHECKING:
    from impart.encoders.base import Encoder
    from impart.video.index.manifest import IndexManifest

__all__ = [
    "DEFAULT_INDEX",
    "ConfigOption",
    "EncoderOption",
    "IndexOption",
    "ListOf",
    "NoAugmentOption",
    "RefsetOption",
    "ThreadsOption",
    "load",
    "settings_for",
]

IndexOption: TypeAlias = Annotated[
    Path,
    typer.Option(
        "--index",
        "-i",
        envvar="IMPART_INDEX",
        help="Folder of the video index.",
        metavar="DIR",
        parser=lambda text: Path(text).expanduser(),  # the shell leaves ~ alone after = and in a variable
    ),
]
EncoderOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--encoder",
        "-e",
        help="Model id: mini (bundled), onnx:<folder or hub repo>, hf:<folder or hub repo>, open_clip:<model>/<tag>; "
        "or the folder of a trained RAM. An existing index names its own.",
        metavar="ID",
    ),
]
RefsetOption: TypeAlias = Annotated[
    Path | None,
    typer.Option("--refset", "-r", help="Reference set to blend in (see 'impart refset').", metavar="DIR"),
]
NoAugmentOption: TypeAlias = Annotated[
    bool, typer.Option("--no-augment", help="Use the plain model, without a reference set.")
]
ThreadsOption: TypeAlias = Annotated[int, typer.Option(help="CPU threads for the model; 0 = one a core.", min=0)]
ConfigOption: TypeAlias = Annotated[
    Path | None, typer.Option("--config", envvar="IMPART_CONFIG", help="Settings file (TOML).", metavar="FILE")
]

DEFAULT_INDEX = Path("library.impart")


class ListOf:
    """Check values with commas between, each of which is one of `choices`: the parser of an option.

    >>> ListOf(("title", "usertags"))("usertags, title")
    'usertags, title'
    """

    def __init__(self, choices: Sequence[str]) -> None:
        self.choices = tuple(choices)
        self.__name__ = "A,B,..."

    def __call__(self, text: str) -> str:
        values = [part.strip() for part in text.split(",") if part.strip()]
        unknown = [value for value in values if value not in self.choices]
        if unknown or not values:
            raise typer.BadParameter(f"{', '.join(unknown) or text!r}: give some of {', '.join(self.choices)}")
        return text


def settings_for(manifest: IndexManifest | None, config: Path | None, flags: dict[str, Any]) -> Settings:
    """The index's own settings (of a new one, the defaults) < TOML file < environment < flags."""
    start = Settings(decode=manifest.decode, index=manifest.index) if manifest is not None else None
    return Settings.load(config, flags=flags, start=start)


def load(model_id: str, *, refset: Path | None, augment: bool, threads: int = 0, bundled: bool = True) -> Encoder:
    """The encoder a command asked for.

    Args:
        model_id: for `load_encoder`, or the folder of a trained RAM.
        refset: reference set to blend in; None = the RAM's own, or the model's bundled one, if `bundled`.
        augment: whether to blend anything in.
        threads: CPU threads; 0 = one a core.
        bundled: whether to fall back on the bundled set (an index that exists has its own in force).
    """
    from impart.blending.encoder import augment as augment_with
    from impart.blending.encoder import default_augmented
    from impart.blending.ram_checkpoint import is_checkpoint, open_checkpoint
    from impart.encoders import load_encoder
    from impart.refset.refset import ReferenceSet

    options: dict[str, Any] = {"threads": threads} if threads else {}
    if is_checkpoint(model_id):
        references = ReferenceSet.open(refset) if refset is not None else None
        trained = open_checkpoint(model_id, references=references, **options)
        return trained if augment else trained.base
    encoder = load_encoder(model_id, **options)
    if augment and refset is not None:
        return augment_with(encoder, ReferenceSet.open(refset))
    return default_augmented(encoder) if augment and bundled else encoder
