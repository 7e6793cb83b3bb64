"""Checkpoint of a RAM: the folder that `impart train` writes and `--encoder FOLDER` opens.

    manifest.json       kind "ram", the base encoder's id and fingerprint, settings, digests of the files
    ram.onnx            the module for indexing and searching
    ram.safetensors     its weights, to continue training from
    references/         the reference set of the training

The base encoder is named, not copied. One that is inside the folder (the run trained it) is found again wherever the
folder is moved to.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from impart.blending.encoder import AugmentedEncoder, default_augmented
from impart.blending.ram_onnx import LearnedRam
from impart.blending.ram_solved import learned_ram
from impart.config import RamSettings
from impart.encoders.base import Encoder, load_encoder
from impart.encoders.onnx.session import RuntimeOptions
from impart.errors import ConfigError, EncoderError, EncoderMismatchError, EncoderNotFoundError
from impart.files import library_versions, make_folder, now, sha256_of_file, sync, write_json_atomic
from impart.refset.refset import ReferenceSet
from impart.validation import build

if TYPE_CHECKING:
    from impart.blending.ram import Ram

__all__ = [
    "RamManifest",
    "encoder_id_of",
    "is_checkpoint",
    "open_checkpoint",
    "open_encoder",
    "open_ram",
    "references_of",
    "write_checkpoint",
]

SCHEMA = 1
_KIND, _NAME = "ram", "manifest.json"
_GRAPH, _WEIGHTS, _REFERENCES = "ram.onnx", "ram.safetensors", "references"


@dataclass(frozen=True, kw_only=True)
class RamManifest:
    """Content of `manifest.json`.

    Attributes:
        encoder_id: id of the base encoder.
        encoder_folder: of the base encoder within the checkpoint; empty = it is elsewhere.
        encoder_fingerprint: of the base encoder.
        dim, retrieval_dim: D and R.
        settings: of the RAM.
        files: SHA-256 of each file.
        versions: of the libraries that wrote it.
        created: ISO 8601, UTC.
    """

    encoder_id: str
    encoder_folder: str
    encoder_fingerprint: str
    dim: int
    retrieval_dim: int
    settings: RamSettings
    files: Mapping[str, str]
    versions: Mapping[str, str]
    created: str
    schema: int = SCHEMA

    @classmethod
    def read(cls, folder: Path) -> RamManifest:
        """Read and check a checkpoint's manifest.

        Raises:
            EncoderNotFoundError: there is no checkpoint in the folder.
            EncoderError: it is damaged or of another version.
        """
        path = folder / _NAME
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise EncoderNotFoundError(f"{folder} has no trained RAM: 'impart train' writes one") from error
        except (OSError, ValueError, RecursionError) as error:
            raise EncoderError(f"{path} is damaged ({error}): copy or train the RAM again") from error
        if not isinstance(values, dict) or values.get("kind") != _KIND:
            raise EncoderNotFoundError(f"{folder} is not the folder of a trained RAM: 'impart train' writes one")
        if values.get("schema") != SCHEMA:
            raise EncoderError(f"{path} has schema {values.get('schema')}, this impart reads {SCHEMA}: update impart")
        try:
            known = {item.name for item in dataclasses.fields(cls)}
            kept = {name: value for name, value in values.items() if name in known}
            manifest = build(cls, kept, where=str(path), given="entry")
            place = PurePosixPath(manifest.encoder_folder)
            if place.is_absolute() or ".." in place.parts:
                raise ConfigError(f"{path}: encoder_folder is {str(place)!r}, which is outside the checkpoint")
            return manifest
        except ConfigError as error:
            raise EncoderError(f"damaged manifest: {error}. Copy or train the RAM again") from error

    def write(self, folder: Path) -> None:
        """Replace the manifest in one step."""
        write_json_atomic(folder / _NAME, {"kind": _KIND, **dataclasses.asdict(self)})


def write_checkpoint(
    folder: str | Path, ram: Ram, *, settings: RamSettings, base: Encoder, references: ReferenceSet
) -> Path:
    """Write a trained RAM to a folder; a checkpoint that is there is replaced.

    Args:
        ram: the trained module.
        settings: that it was built with.
        base: the encoder that it was trained with.
        references: made by that encoder; the checkpoint uses them unless another set is given.

    Raises:
        EncoderMismatchError: the references were made with another encoder.
        EncoderError: the module cannot be exported, or the folder cannot be written.
    """
    from impart.blending.ram import write_weights

    references.check_encoder(base)
    folder = Path(folder).expanduser()
    traits = base.traits
    try:
        make_folder(folder)
        (folder / _NAME).unlink(missing_ok=True)  # from here until the end there is no checkpoint
        ram.export(folder / _GRAPH, dim=traits.dim, retrieval_dim=traits.retrieval_dim)
        write_weights(ram, folder / _WEIGHTS)
        references.save(folder / _REFERENCES)
        for name in (_GRAPH, _WEIGHTS):
            sync(folder / name)
        manifest = RamManifest(
            encoder_id=traits.id,
            encoder_folder=_inside(traits.id, folder),
            encoder_fingerprint=base.fingerprint,
            dim=traits.dim,
            retrieval_dim=traits.retrieval_dim,
            settings=settings,
            files={name: sha256_of_file(folder / name) for name in (_GRAPH, _WEIGHTS)},
            versions=library_versions(),
            created=now(),
        )
        manifest.write(folder)
    except OSError as error:
        raise EncoderError(f"cannot write the checkpoint {folder}: {error.strerror or error}") from error
    return folder


def is_checkpoint(place: str | Path) -> bool:
    """Whether an encoder id or a path is the folder of a trained RAM; its files are not checked."""
    folder = Path(place).expanduser()
    return (folder / _GRAPH).is_file() or (folder / _WEIGHTS).is_file()


def encoder_id_of(folder: str | Path) -> str:
    """Read the id of the base encoder of a checkpoint, as `load_encoder` accepts it.

    Raises:
        EncoderNotFoundError: there is no checkpoint in the folder.
        EncoderError: it is damaged.
    """
    folder = Path(folder).expanduser()
    return _encoder_id(folder, RamManifest.read(folder))


def references_of(folder: Path) -> ReferenceSet:
    """Open the reference set of a checkpoint."""
    return ReferenceSet.open(folder / _REFERENCES)


def open_ram(folder: str | Path, *, options: RuntimeOptions | None = None) -> LearnedRam:
    """Open the RAM of a checkpoint without its reference set, for use with another one.

    Raises:
        EncoderNotFoundError: there is no checkpoint in the folder.
        EncoderError: it is damaged.
    """
    folder = Path(folder).expanduser()
    return _learned(folder, RamManifest.read(folder), options)


def open_checkpoint(
    folder: str | Path, *, references: ReferenceSet | None = None, base: Encoder | None = None, **options: Any
) -> AugmentedEncoder:
    """Open a checkpoint as an encoder: base encoder, reference set and RAM.

    Args:
        folder: of the checkpoint.
        references: another set of the same encoder; None = the checkpoint's own.
        base: the base encoder, if it is already loaded.
        options: for `load_encoder`, such as `threads=2`. The RAM itself runs on the CPU.

    Raises:
        EncoderNotFoundError: there is no checkpoint in the folder, or its base encoder is missing.
        EncoderMismatchError: the base encoder, or the one that made the set, is not that of the training.
        EncoderError: the checkpoint is damaged.
        ReferenceSetError: its reference set is damaged.
    """
    folder = Path(folder).expanduser()
    manifest = RamManifest.read(folder)
    ram = _learned(folder, manifest, RuntimeOptions(threads=int(options.get("threads", 0)), device="cpu"))
    if base is None:
        base = load_encoder(_encoder_id(folder, manifest), **options)
        if base.fingerprint != manifest.encoder_fingerprint:
            raise EncoderMismatchError(
                f"the RAM {folder} was trained with encoder {manifest.encoder_id!r} "
                f"({manifest.encoder_fingerprint[:12]}), but {base.traits.id!r} is another one now "
                f"({base.fingerprint[:12]}): train the RAM again, or install the model it was trained with"
            )
    ram.check_encoder(base)
    return AugmentedEncoder(base, references_of(folder) if references is None else references, ram)


def open_encoder(model_id: str, **options: Any) -> Encoder:
    """Open the folder of a checkpoint, or load a model with the reference set that is bundled with it.

    Args:
        model_id: folder of a checkpoint, or id of a model.
        options: for `load_encoder`.

    Raises:
        EncoderNotFoundError: there is no such model.
        EncoderError: as for `load_encoder` and `open_checkpoint`.
    """
    if is_checkpoint(model_id):
        return open_checkpoint(model_id, **options)
    return default_augmented(load_encoder(model_id, **options))


def _learned(folder: Path, manifest: RamManifest, options: RuntimeOptions | None) -> LearnedRam:
    path = folder / _GRAPH
    try:
        if sha256_of_file(path) != manifest.files.get(_GRAPH):
            raise EncoderError(f"{path} is not the file that {folder / _NAME} names: copy or train the RAM again")
    except OSError as error:
        raise EncoderError(f"cannot read {path}: {error.strerror or error}; copy or train the RAM again") from error
    return learned_ram(
        path,
        manifest.settings,
        encoder_id=manifest.encoder_id,
        encoder_fingerprint=manifest.encoder_fingerprint,
        options=options,
    )


def _inside(encoder_id: str, folder: Path) -> str:
    """Path of the encoder within the checkpoint; empty where it is elsewhere."""
    _, _, rest = encoder_id.partition(":")
    if not rest:
        return ""
    place, root = Path(rest).expanduser().resolve(), folder.resolve()
    return place.relative_to(root).as_posix() if place != root and place.is_relative_to(root) else ""


def _encoder_id(folder: Path, manifest: RamManifest) -> str:
    if not manifest.encoder_folder:
        return manifest.encoder_id
    scheme, _, _ = manifest.encoder_id.partition(":")
    return f"{scheme}:{folder / manifest.encoder_folder}"
