"""Options that several commands share, each with its help text."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer

from impart.config import Device, EncoderSettings, EngineName, Settings
from impart.errors import ConfigError

if TYPE_CHECKING:
    from impart.encoders.base import Encoder
    from impart.encoders.cluster.connection import RayEngine
    from impart.video.index.manifest import IndexManifest

__all__ = [
    "DEFAULT_INDEX",
    "AddressOption",
    "ConfigOption",
    "DeviceOption",
    "EncoderOption",
    "EngineOption",
    "IndexOption",
    "ListOf",
    "NiceOption",
    "NoAugmentOption",
    "RefsetOption",
    "ThreadsOption",
    "WorkersOption",
    "check_augmentation",
    "encoder_options",
    "in_shell",
    "index_place",
    "engine_of",
    "load",
    "settings_for",
]


def index_place(given: str | Path) -> Path:
    """Read the value of `--index`, or its default: a folder, or a URL, whose local folder is returned."""
    if isinstance(given, str) and "://" in given:
        from impart.video.index.remote.location import place_of

        return place_of(given)
    return Path(given).expanduser()  # the shell does not expand ~ after = or in a variable


def in_shell(index_dir: Path) -> str:
    """Quote an index for a command line: its folder, or its URL."""
    return shlex.quote(f"{index_dir}")


IndexOption: TypeAlias = Annotated[
    Path,
    typer.Option(
        "--index",
        "-i",
        envvar="IMPART_INDEX",
        help="Use the video index in this folder, or at a URL such as s3://bucket/library.impart.",
        metavar="DIR",
        parser=index_place,
    ),
]
EncoderOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--encoder",
        "-e",
        help="Encode with this model: mini (bundled), onnx:<folder or hub repo>, hf:<folder or hub repo>, "
        "open_clip:<model>/<tag>, or the folder of a trained RAM. Default: the index's own; mini for a new index.",
        metavar="ID",
    ),
]
RefsetOption: TypeAlias = Annotated[
    Path | None,
    typer.Option("--refset", "-r", help="Blend in this reference set (see 'impart refset').", metavar="DIR"),
]
NoAugmentOption: TypeAlias = Annotated[
    bool, typer.Option("--no-augment", help="Use the base encoder, without a reference set.")
]
ThreadsOption: TypeAlias = Annotated[
    int, typer.Option(help="Run the model on this many CPU threads; 0 = one per core.", min=0)
]
DeviceOption: TypeAlias = Annotated[
    Device | None,
    typer.Option(
        help="Run the model on this device: auto (cuda where it is there, else cpu), cpu or cuda. For mini and onnx: "
        "cuda needs the package onnxruntime-gpu in place of onnxruntime; for hf: and open_clip: a CUDA build of torch.",
        show_default="auto",
    ),
]
NiceOption: TypeAlias = Annotated[
    bool, typer.Option("--nice", help="Run in the background: other programs get the processor and the disk first.")
]
ConfigOption: TypeAlias = Annotated[
    Path | None,
    typer.Option("--config", envvar="IMPART_CONFIG", help="Read settings from this TOML file.", metavar="FILE"),
]

EngineOption: TypeAlias = Annotated[
    EngineName,
    typer.Option(
        help="Decode and encode here (local), or with workers on this machine or on a cluster (ray; needs the extra "
        "ray). Every machine must see the files at the same paths, and have the same versions and models."
    ),
]
AddressOption: TypeAlias = Annotated[
    str,
    typer.Option(
        help="With --engine ray: HOST:PORT of a Ray cluster, or auto for that of this machine. Default: Ray is started "
        "here, and stopped afterwards.",
        show_default=False,
        metavar="ADDR",
    ),
]
WorkersOption: TypeAlias = Annotated[
    int, typer.Option(help="With --engine ray: number of workers; 0 = one per two CPUs of the cluster.", min=0)
]

DEFAULT_INDEX = Path("library.impart")


class ListOf:
    """Parser of an option whose value is a comma-separated list of `choices`.

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
            raise typer.BadParameter(f"{', '.join(unknown) or text!r}: give one or more of {', '.join(self.choices)}")
        return text


def settings_for(manifest: IndexManifest | None, config: Path | None, flags: dict[str, Any]) -> Settings:
    """Resolve settings: those of the index (or the defaults) < TOML file < environment < flags."""
    start = Settings(decode=manifest.decode, index=manifest.index) if manifest is not None else None
    return Settings.load(config, flags=flags, start=start)


def check_augmentation(
    manifest: IndexManifest | None, index_dir: Path, *, refset: Path | None, no_augment: bool
) -> None:
    """Refuse `--no-augment` for an index that has a reference set in force: it holds for a new index alone.

    Raises:
        ConfigError: names the command that switches the set off.
    """
    if refset is not None and no_augment:
        raise typer.BadParameter("--refset and --no-augment contradict each other: give one of them")
    if no_augment and manifest is not None and manifest.augmentation is not None:
        raise ConfigError(
            f"--no-augment: the index {index_dir} has the reference set {manifest.augmentation.references_name!r} in "
            f"force. Switch it off with: impart refset use --none --index {index_dir}"
        )


def encoder_options(threads: int, device: Device | None) -> dict[str, Any]:
    """Join the values of --threads and --device to options of `load_encoder`.

    >>> encoder_options(2, None), encoder_options(0, "cuda")
    ({'threads': 2}, {'device': 'cuda'})
    """
    return EncoderSettings(threads=threads, device=device or EncoderSettings.device).options


def load(
    model_id: str,
    *,
    refset: Path | None,
    augment: bool,
    options: Mapping[str, Any] | None = None,
    bundled: bool = True,
) -> Encoder:
    """Load the encoder of a command.

    Args:
        model_id: for `load_encoder`, or the folder of a trained RAM.
        refset: reference set to blend in; None = the RAM's own, or the model's bundled one if `bundled`.
        augment: whether to blend in a reference set.
        options: for `load_encoder`.
        bundled: whether to use the bundled set by default; False for an existing index, which has its own in force.
    """
    from impart.blending.encoder import augment as augment_with
    from impart.blending.encoder import default_augmented
    from impart.blending.ram_checkpoint import is_checkpoint, open_checkpoint
    from impart.encoders import load_encoder
    from impart.refset.refset import ReferenceSet

    options = options or {}
    if is_checkpoint(model_id):
        references = ReferenceSet.open(refset) if refset is not None else None
        trained = open_checkpoint(model_id, references=references, **options)
        return trained if augment else trained.base
    encoder = load_encoder(model_id, **options)
    if augment and refset is not None:
        return augment_with(encoder, ReferenceSet.open(refset))
    return default_augmented(encoder) if augment and bundled else encoder


def engine_of(engine: EngineName, address: str, workers: int) -> Literal["local"] | RayEngine:
    """Join the three options of an engine.

    Raises:
        ConfigError: an option of Ray is given without it, or the address is none.
        MissingExtraError: Ray is not installed.
    """
    from impart.encoders.cluster.connection import RayEngine, check_engine

    if engine == "local":
        if address or workers:
            raise ConfigError("--address and --workers belong to --engine ray")
        return "local"
    check_engine(engine)
    return RayEngine(address=address, workers=workers)
