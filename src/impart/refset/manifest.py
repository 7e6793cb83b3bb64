"""Manifest of a reference set: `manifest.json`, which names the table of rows and the encoder that made them."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from impart.config import IndexKind, Storage
from impart.errors import ConfigError, ReferenceSetError
from impart.files import write_json_atomic
from impart.retrieval.nearest import IndexInfo
from impart.validation import build, check_value

__all__ = ["MANIFEST", "SCHEMA_VERSION", "ReferenceSetManifest", "artefact_in", "check_target"]

SCHEMA_VERSION = 3
"""Newest version of the layout. A set is written as the oldest version that has all it needs.

Version 2 has indexes of kind `ivfpq`, version 3 solved references.
"""
MANIFEST = "manifest.json"
_KINDS_OF_SCHEMA_2 = ("ivfpq",)
_KEYS_OF_SCHEMA_3 = ("solved", "weights")

_UNFINISHED = (".pairs-building.", ".pairs-resume", ".rest.")
_DIGEST = "[0-9a-f]{16}"
_FORMS = {
    "fingerprint": re.compile("[0-9a-f]{64}"),
    "data": re.compile(f"pairs-{_DIGEST}[.]arrow"),
    "znorm": re.compile(f"cohort-{_DIGEST}[.]npy|"),
    "weights": re.compile(f"solved-{_DIGEST}[.]npy|"),
}
"""Forms of what becomes part of a path: nothing outside the folder is ever read, replaced or deleted through it."""

_KEY_OF_FIELD = {"znorm": "cohort"}  # keys that differ from the field: version 0.1.0 wrote them
_FIELD_OF_KEY = {key: name for name, key in _KEY_OF_FIELD.items()}


_ARTEFACTS = {"video-index": "a video index", "ram": "a trained RAM", "heads": "a model of mode 'heads'"}


def artefact_in(folder: Path) -> str:
    """Name the artefact whose `manifest.json` is in a folder, with its article; empty where there is none.

    A manifest that cannot be read is named too: its folder must not be taken for an empty one.
    """
    try:
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except (OSError, ValueError, RecursionError):
        return "a damaged artefact"
    kind = content.get("kind") if isinstance(content, dict) else None
    if kind is None:
        return "a reference set" if isinstance(content, dict) and "encoder_fingerprint" in content else "an artefact"
    return _ARTEFACTS.get(kind, f"an artefact ({kind})") if isinstance(kind, str) else "an artefact"


def check_target(folder: Path, *, overwrite: bool) -> None:
    """Check that a new set may be written to a folder, before anything is computed.

    Args:
        folder: may be missing or empty.
        overwrite: allow a folder with a set, which is replaced, or with other files, which stay.

    Raises:
        ReferenceSetError: the folder is in use, or is another artefact, which is never replaced.
    """
    there = artefact_in(folder)
    if there not in ("", "a reference set"):
        raise ReferenceSetError(f"{folder} is {there}: write the reference set to another folder (--out)")
    try:
        used = bool(there) or (folder.exists() and (not folder.is_dir() or any(map(_is_other, folder.iterdir()))))
    except OSError as error:
        raise ReferenceSetError(f"cannot read {folder}: {error.strerror}") from error
    if used and not folder.is_dir():
        raise ReferenceSetError(f"{folder} is a file: write the reference set to a folder (--out)")
    if used and not overwrite:
        what = "contains a reference set already" if there else "contains other files"
        remedy = "--overwrite replaces it" if there else "--overwrite writes the set beside them"
        raise ReferenceSetError(f"{folder} {what}: name another folder (--out), or {remedy}")


def _is_other(path: Path) -> bool:
    """Whether a file is none that a build leaves which was stopped."""
    return not path.name.startswith(_UNFINISHED)


@dataclass(frozen=True, kw_only=True)
class ReferenceSetManifest:
    """Content of `manifest.json`.

    Attributes:
        encoder_id: id of the encoder that made the embeddings.
        encoder_fingerprint: digest of its weights and preprocessing.
        fingerprint: digest over all rows.
        count: N.
        dim: D, width of image and text embeddings.
        retrieval_dim: R.
        storage: `float16` or `float32`.
        data: name of the Arrow file in the folder.
        name: for people.
        created: ISO 8601, UTC.
        sources: collections of the pairs, with licences and counts.
        settings: resolved settings of the build.
        failed: pairs that could not be used (listed in failures.csv).
        duplicates: pairs dropped because the set had the same image with the same text.
        notes: what the reader left out or merged.
        index: kind of the nearest-neighbour index, with its recall.
        znorm: file with the statistics of the background set; empty = computed from the set's own images.
        own_znorm: the statistics in that file are those of the set's own images: a large set keeps them.
        vanilla: settings that `refset tune` or the model's recipe chose for this set; None = not tuned.
        solved: settings of solved references (`impart.blending.solved.blender`), which blend the set in place of
            `vanilla`; None = not solved.
        weights: file with the solved weights; empty = they are computed from the rows.
        versions: of the libraries that wrote it.
        schema: version of the layout that was read.
    """

    encoder_id: str
    encoder_fingerprint: str
    fingerprint: str
    count: int
    dim: int
    retrieval_dim: int
    storage: str = "float16"
    data: str = ""
    name: str = ""
    created: str = ""
    sources: tuple[dict[str, Any], ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    failed: int = 0
    duplicates: int = 0
    notes: tuple[str, ...] = ()
    index: dict[str, Any] = field(default_factory=lambda: IndexInfo().as_dict())
    znorm: str = ""
    own_znorm: bool = False
    vanilla: dict[str, Any] | None = None
    solved: dict[str, Any] | None = None
    weights: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    schema: int = SCHEMA_VERSION

    @classmethod
    def read(cls, folder: Path) -> ReferenceSetManifest:
        """Read and check `manifest.json`.

        Raises:
            ReferenceSetError: missing, damaged, of another schema, or with names that no set has.
        """
        path = folder / MANIFEST
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ReferenceSetError(
                f"{folder} contains no reference set: make one with 'impart refset build'"
            ) from error
        except (OSError, ValueError, RecursionError) as error:
            raise ReferenceSetError(f"{path} cannot be read: {error}. Build the set again") from error
        if isinstance(content, dict) and "kind" in content:
            raise ReferenceSetError(f"{folder} is {artefact_in(folder)}, not a reference set: name the folder of a set")
        schema = content.get("schema") if isinstance(content, dict) else None
        if schema not in range(1, SCHEMA_VERSION + 1):
            raise ReferenceSetError(
                f"{path} has schema {schema}, this version reads 1 to {SCHEMA_VERSION}: update impart"
            )
        content = {_FIELD_OF_KEY.get(key, key): value for key, value in content.items()}
        known = {item.name for item in dataclasses.fields(cls)}
        try:
            if "sources" not in content:
                raise ConfigError(f"{path} lacks sources")
            made = build(cls, {k: v for k, v in content.items() if k in known}, where=str(path), given="entry")
            build(IndexInfo, made.index, where=str(path), name="index")
            check_value(IndexKind, made.index["kind"], name="index.kind", where=str(path))
            check_value(Storage, made.storage, name="storage", where=str(path))
        except ConfigError as error:
            raise ReferenceSetError(f"damaged manifest: {error}. Build the set again") from error
        made._check_places(path)
        return made

    def _check_places(self, path: Path) -> None:
        """Check what becomes part of a path.

        Raises:
            ReferenceSetError: names the key.
        """
        wrong = [name for name, form in _FORMS.items() if not form.fullmatch(str(getattr(self, name)))]
        if wrong:
            keys = ", ".join(_KEY_OF_FIELD.get(name, name) for name in wrong)
            raise ReferenceSetError(f"{path} is damaged: no set has such a value of {keys}. Build the set again")

    def write(self, folder: Path) -> None:
        """Replace `manifest.json` in one step."""
        write_json_atomic(folder / MANIFEST, self.as_dict())

    def as_dict(self) -> dict[str, Any]:
        """Fields under their keys in `manifest.json`."""
        fields = dataclasses.asdict(self)
        if self.solved is not None:
            needed = 3
        else:
            fields = {name: value for name, value in fields.items() if name not in _KEYS_OF_SCHEMA_3}
            needed = 2 if self.index["kind"] in _KINDS_OF_SCHEMA_2 else 1
        fields |= {"schema": needed}
        return {_KEY_OF_FIELD.get(name, name): value for name, value in fields.items()}
