"""Manifest of a reference set: `manifest.json`, which names the table of rows and the encoder that made them."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from impart.errors import ReferenceSetError
from impart.files import write_json_atomic
from impart.retrieval.nearest import KINDS, IndexInfo

__all__ = ["SCHEMA_VERSION", "ReferenceSetManifest"]

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"

_DIGEST = "[0-9a-f]{16}"
_FORMS = {
    "fingerprint": re.compile("[0-9a-f]{64}"),
    "data": re.compile(f"pairs-{_DIGEST}[.]arrow"),
    "znorm": re.compile(f"cohort-{_DIGEST}[.]npy|"),
}
"""Forms of what becomes part of a path: nothing outside the folder is ever read, replaced or deleted through it."""

_KEY_OF_FIELD = {"znorm": "cohort"}  # keys that differ from the field: version 0.1.0 wrote them
_FIELD_OF_KEY = {key: name for name, key in _KEY_OF_FIELD.items()}


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
        vanilla: settings that `refset tune` or the model's recipe chose for this set; None = not tuned.
        versions: of the libraries that wrote it.
        schema: version of the layout.
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
    vanilla: dict[str, Any] | None = None
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
        except FileNotFoundError as error:
            raise ReferenceSetError(
                f"{folder} contains no reference set: make one with 'impart refset build'"
            ) from error
        except (OSError, ValueError) as error:
            raise ReferenceSetError(f"{path} cannot be read: {error}. Build the set again") from error
        schema = content.get("schema") if isinstance(content, dict) else None
        if schema != SCHEMA_VERSION:
            raise ReferenceSetError(f"{path} has schema {schema}, this version reads {SCHEMA_VERSION}: update impart")
        content = {_FIELD_OF_KEY.get(key, key): value for key, value in content.items()}
        known = {item.name for item in dataclasses.fields(cls)}
        try:
            content["sources"] = tuple(content["sources"])
            content["notes"] = tuple(content.get("notes", ()))
            manifest = cls(**{name: value for name, value in content.items() if name in known})
        except (KeyError, TypeError) as error:
            raise ReferenceSetError(f"{path} is incomplete: {error}. Build the set again") from error
        manifest._check(path)
        return manifest

    def _check(self, path: Path) -> None:
        """Check what becomes part of a path, or of an array's shape.

        Raises:
            ReferenceSetError: names the key.
        """
        wrong = [name for name, form in _FORMS.items() if not form.fullmatch(str(getattr(self, name)))]
        wrong += [] if isinstance(self.index, dict) and self.index.get("kind") in KINDS else ["index"]
        wrong += [] if self.storage in ("float16", "float32") else ["storage"]
        wrong += [name for name in ("count", "dim", "retrieval_dim") if not isinstance(getattr(self, name), int)]
        if wrong:
            keys = ", ".join(_KEY_OF_FIELD.get(name, name) for name in wrong)
            raise ReferenceSetError(f"{path} is damaged: no set has such a value of {keys}. Build the set again")

    def write(self, folder: Path) -> None:
        """Replace `manifest.json` in one step."""
        write_json_atomic(folder / MANIFEST, self.as_dict())

    def as_dict(self) -> dict[str, Any]:
        """Fields under their keys in `manifest.json`."""
        return {_KEY_OF_FIELD.get(name, name): value for name, value in dataclasses.asdict(self).items()}
