"""`manifest.json` of a video index: encoder, settings, and the reference set in force.

The manifest is small, read without the database, and replaced atomically. It names the neighbours table in force:
replacing the manifest puts a new reference set in force. `manifest.copy.json` is written after it, with the same
content. Where `manifest.json` is lost, readers take the copy, and the next writer restores the file from it.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from impart.config import DecodeSettings, IndexSettings, RamSettings, SolvedSettings, VanillaSettings
from impart.errors import ConfigError, VideoIndexError
from impart.files import write_atomic, write_json_atomic
from impart.validation import build
from impart.video.index.remote.mirror import mirror_of, publishing, refreshed

__all__ = ["MANIFESTS", "MIGRATIONS", "SCHEMA", "Augmentation", "IndexManifest", "manifest_bytes"]

SCHEMA = 1
MIGRATIONS: dict[int, Callable[[Path, dict[str, Any]], dict[str, Any]]] = {}
"""Migrations from schema n to n + 1: take the folder and the manifest, change the tables, return the new manifest.

A writer runs them in order, under the lock. A migration must be safe to run again after a crash.
"""

_KIND = "video-index"
_NAME, _COPY = MANIFESTS = ("manifest.json", "manifest.copy.json")
_PLACES = {
    "folder": re.compile(r"references/[0-9a-f]{16}-[0-9a-f]{8}"),
    "table": re.compile(r"neighbours_[0-9a-f]{16}"),
    "graph": re.compile(r"(rams/[0-9a-f]{16}\.onnx)?"),
}
"""Forms of the paths in a manifest: nothing outside the index is ever read, replaced or deleted through one."""


_SETTINGS = {"vanilla": VanillaSettings, "solved": SolvedSettings, "ram": RamSettings}
_DENSE = ("solved", "ram")


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """The reference set in force, and how it is blended in.

    Attributes:
        name: of the blender, `vanilla`, `solved` or `ram`.
        fingerprint: of base encoder, references and settings together.
        settings: of the blender.
        references_name, references_fingerprint: of the set.
        folder: copy of the set, relative to the index.
        table: name of the neighbours table.
        graph: copy of the RAM's `ram.onnx`, relative to the index; empty without a RAM.
    """

    name: str
    fingerprint: str
    settings: VanillaSettings | SolvedSettings | RamSettings
    references_name: str
    references_fingerprint: str
    folder: str
    table: str
    graph: str = ""

    @property
    def dense(self) -> bool:
        """Whether the table stores the added vectors: solved references and RAMs add no sum of a few embeddings."""
        return self.name in _DENSE

    @classmethod
    def from_dict(cls, values: Any, *, where: str) -> Augmentation:
        """Read it from the manifest `where`.

        Raises:
            ConfigError: a name or type is wrong, or a path in it is none that an index has.
        """
        if not isinstance(values, dict):
            raise ConfigError(f"{where}: augmentation is {values!r}, but must be a table or null")
        kind: Any = _SETTINGS.get(str(values.get("name")), VanillaSettings)
        settings = build(kind, values.get("settings"), where=where, name="augmentation.settings")
        for name, form in _PLACES.items():
            if not form.fullmatch(str(values.get(name, ""))):
                raise ConfigError(f"{where}: augmentation.{name} is {values.get(name)!r}, which is no path of an index")
        return build(cls, values | {"settings": settings}, where=where, name="augmentation")


@dataclass(frozen=True, kw_only=True)
class IndexManifest:
    """Content of `manifest.json`.

    Attributes:
        encoder_id, encoder_fingerprint: the base encoder.
        dim, retrieval_dim: D and R of the stored vectors.
        decode, index: settings for new videos.
        augmentation: None without a reference set.
        versions: of impart and of the libraries whose output is stored.
    """

    encoder_id: str
    encoder_fingerprint: str
    dim: int
    retrieval_dim: int
    decode: DecodeSettings
    index: IndexSettings
    augmentation: Augmentation | None
    versions: Mapping[str, str]
    created_at: str
    schema: int = SCHEMA

    @staticmethod
    def exists(folder: Path) -> bool:
        """Whether there is an index in `folder`: its manifest, or the copy of it."""
        refreshed(folder)
        return any((folder / name).is_file() for name in MANIFESTS)

    @staticmethod
    def is_of_this_schema(folder: Path) -> bool:
        """Whether the index in `folder` need not be migrated, as far as its manifest can be read."""
        try:
            values = json.loads(manifest_bytes(folder))
        except (OSError, ValueError, RecursionError):
            return True
        schema = values.get("schema") if isinstance(values, dict) and values.get("kind") == _KIND else None
        return not isinstance(schema, int) or schema == SCHEMA

    @staticmethod
    def check_absent(folder: Path) -> None:
        """Refuse a folder without a manifest whose tables have rows: its manifest was lost.

        The empty tables of an interrupted first run are no such index.

        Raises:
            VideoIndexError: names the remedy.
        """
        if IndexManifest.exists(folder):
            return
        mirror = mirror_of(folder)
        if any((folder / "videos.lance" / "data").glob("*")) if mirror is None else mirror.has_rows():
            raise VideoIndexError(
                f"{folder / _NAME} is missing, but the folder has the tables of an index with videos: restore that "
                "file from a copy of the index, or index your videos into a new folder (--index DIR). Nothing was "
                "changed"
            )

    @classmethod
    def load(cls, folder: Path, *, migrate: bool = False) -> IndexManifest:
        """Read the manifest of the index in `folder`.

        Args:
            migrate: migrate an index of an older schema; the caller holds the write lock.

        Raises:
            VideoIndexError: there is no index, it is damaged, or its schema is not this version's.
        """
        path = folder / _NAME
        try:
            content = manifest_bytes(folder)
            values = json.loads(content)
        except FileNotFoundError as error:
            cls.check_absent(folder)
            raise VideoIndexError(
                f"there is no video index in {folder}: make one with impart index PATH... --index {folder}"
            ) from error
        except PermissionError as error:  # the copy in its place would be no remedy
            raise VideoIndexError(f"cannot read {path}: {error.strerror}. Check its permissions") from error
        except (OSError, ValueError, RecursionError) as error:
            raise VideoIndexError(f"cannot read {path}: {error}. {_remedy(folder)}") from error
        if not isinstance(values, dict) or values.get("kind") != _KIND:
            raise VideoIndexError(f"{folder} is not a video index: choose another --index folder")
        schema = values.get("schema")
        if not isinstance(schema, int) or schema > SCHEMA:
            raise VideoIndexError(
                f"the index {folder} has schema {schema}, made by a newer impart; this one reads up to {SCHEMA}: "
                "update impart, or index into a new folder"
            )
        if schema < SCHEMA:
            if not migrate:
                raise VideoIndexError(
                    f"the index {folder} has schema {schema}, this impart needs {SCHEMA}: "
                    f"migrate it with impart index PATH... --index {folder}"
                )
            for step in range(schema, SCHEMA):
                values = MIGRATIONS[step](folder, values) | {"schema": step + 1}
                _write(folder, values)
        try:
            manifest = cls._from_dict(values, where=str(path))
        except ConfigError as error:
            raise VideoIndexError(f"the manifest is damaged: {error}. {_remedy(folder)}") from error
        if migrate:
            _restore(folder, content if schema == SCHEMA else manifest_bytes(folder))
        return manifest

    @classmethod
    def parse(cls, content: bytes, *, where: Path) -> IndexManifest:
        """Read the content of a manifest of this schema.

        Args:
            where: its file, for messages.

        Raises:
            VideoIndexError: it is damaged, or of another schema.
        """
        try:
            values = json.loads(content)
            if not isinstance(values, dict) or values.get("kind") != _KIND or values.get("schema") != SCHEMA:
                raise ConfigError(f"{where} is no manifest of a video index of schema {SCHEMA}")
            return cls._from_dict(values, where=str(where))
        except (ConfigError, ValueError, RecursionError) as error:
            raise VideoIndexError(str(error)) from error

    def save(self, folder: Path) -> None:
        """Replace the manifest in one step, then its copy: a reader gets the old one or the new one."""
        _write(folder, {"kind": _KIND, **dataclasses.asdict(self)})

    @classmethod
    def _from_dict(cls, values: Mapping[str, Any], *, where: str) -> IndexManifest:
        names = {item.name for item in dataclasses.fields(cls)}
        kept = {name: value for name, value in values.items() if name in names}
        if kept.get("augmentation") is not None:
            kept["augmentation"] = Augmentation.from_dict(kept["augmentation"], where=where)
        manifest = build(cls, kept, where=where, given="entry")
        if min(manifest.dim, manifest.retrieval_dim) < 1:
            raise ConfigError(f"{where}: dim and retrieval_dim are {manifest.dim} and {manifest.retrieval_dim}")
        return manifest


def manifest_bytes(folder: Path) -> bytes:
    """Read the manifest of an index, or its copy where the manifest is lost.

    Raises:
        OSError: there is neither, or it cannot be read.
    """
    refreshed(folder)
    try:
        return (folder / _NAME).read_bytes()
    except FileNotFoundError:
        if not (folder / _COPY).is_file():
            raise
        return (folder / _COPY).read_bytes()


def _write(folder: Path, values: Mapping[str, Any]) -> None:
    for name in MANIFESTS:  # the copy last: it never names what is not yet in force
        try:
            with publishing(folder, name):
                write_json_atomic(folder / name, values, ascii_only=True)
        except OSError as error:
            raise VideoIndexError(f"cannot write {folder / name}: {error.strerror or error}") from error


def _restore(folder: Path, content: bytes) -> None:
    """Write the manifest and its copy anew where one is missing or differs."""
    for name in MANIFESTS:
        path = folder / name
        try:
            if not path.is_file() or path.read_bytes() != content:
                with publishing(folder, name):
                    write_atomic(path, content)
        except OSError as error:
            raise VideoIndexError(f"cannot write {path}: {error.strerror or error}") from error


def _remedy(folder: Path) -> str:
    if (folder / _NAME).is_file() and (folder / _COPY).is_file():
        return f"impart doctor --repair --index {folder} restores it from its copy {_COPY}"
    return "Restore it from a copy of the index, or index your videos into a new folder (--index DIR)"
