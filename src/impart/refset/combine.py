"""Derive the rows of a reference set from those of others: merge, leave out, take.

Each function takes tables with their manifests and returns a table in memory with its manifest. `ReferenceSet.merge`,
`without` and `take` make sets of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from impart.errors import EncoderMismatchError
from impart.files import library_versions, now, sha256_hex
from impart.refset.manifest import ReferenceSetManifest
from impart.refset.storage import META_COLUMNS, VECTOR_COLUMNS, RowWriter, vectors

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["RowsAndManifest", "merge", "take", "without"]

RowsAndManifest: TypeAlias = "tuple[pa.Table, ReferenceSetManifest]"
_RowNumbers: TypeAlias = npt.NDArray[np.int64]

_STRINGS = [column for column in META_COLUMNS if column != "id"]  # ids are row numbers, written anew
_CHUNK = 16384  # rows copied at a time, so that a large set is not in memory twice


def merge(parts: Sequence[RowsAndManifest]) -> RowsAndManifest:
    """Merge rows without duplicates; the first of equal (hash, text) stays.

    Rows without a hash are compared by their image embedding.

    Raises:
        EncoderMismatchError: the rows were made with different encoders.
    """
    manifests = [manifest for _, manifest in parts]
    first = manifests[0]
    for other in manifests[1:]:
        if other.encoder_fingerprint != first.encoder_fingerprint:
            raise EncoderMismatchError(
                f"reference sets {first.name!r} and {other.name!r} were made with different encoders: "
                f"{first.encoder_id!r} ({first.encoder_fingerprint[:12]}) and {other.encoder_id!r} "
                f"({other.encoder_fingerprint[:12]}): build one of them again with the other's encoder"
            )
    writer = _writer(first)
    seen: set[tuple[str, str]] = set()
    for data, _ in parts:
        columns = {column: vectors(data, column) for column in VECTOR_COLUMNS}
        meta = data.select(_STRINGS).to_pydict()
        rows = []
        for row, (digest, text) in enumerate(zip(meta["hash"], meta["text"], strict=True)):
            key = (digest or sha256_hex(columns["image"][row].astype(np.float32).tobytes()), text)
            if key not in seen:
                seen.add(key)
                rows.append(row)
        writer.write(
            {column: [values[row] for row in rows] for column, values in meta.items()},
            **{column: values[rows] for column, values in columns.items()},
        )
    return _finished(
        writer,
        first,
        settings={"merged": [manifest.name for manifest in manifests]},
        failed=sum(manifest.failed for manifest in manifests),
        duplicates=sum(manifest.count for manifest in manifests) - writer.count,
        notes=tuple(dict.fromkeys(note for manifest in manifests for note in manifest.notes)),
        vanilla=None,
        solved=None,
    )


def without(data: pa.Table, manifest: ReferenceSetManifest, rows: _RowNumbers) -> RowsAndManifest:
    """Leave out some rows, given as unique row numbers."""
    assert not len(rows) or 0 <= rows.min() <= rows.max() < manifest.count, (rows, manifest.count)
    kept = np.setdiff1d(np.arange(manifest.count), rows)
    return _copied(data, manifest, kept, kept, {"without_rows": len(rows)})


def take(
    data: pa.Table, manifest: ReferenceSetManifest, rows: npt.ArrayLike, *, texts_of: npt.ArrayLike | None = None
) -> RowsAndManifest:
    """Take some rows in the order given, with their own texts or with those of the rows `texts_of`."""
    taken = np.asarray(rows, dtype=np.int64)
    texts = taken if texts_of is None else np.asarray(texts_of, dtype=np.int64)
    assert taken.ndim == 1, taken.shape
    assert taken.shape == texts.shape, (taken.shape, texts.shape)
    for numbers in (taken, texts):
        assert not len(numbers) or 0 <= numbers.min() <= numbers.max() < manifest.count, manifest.count
    changed = int((taken != texts).sum())
    settings = {"taken_rows": len(taken), **({"other_texts": changed} if changed else {})}
    return _copied(data, manifest, taken, texts, settings)


def _copied(
    data: pa.Table, manifest: ReferenceSetManifest, rows: _RowNumbers, texts: _RowNumbers, settings: dict[str, Any]
) -> RowsAndManifest:
    """Copy rows, each with the text and text embedding of the row at the same place in `texts`."""
    writer = _writer(manifest)
    image, text, retrieval = (vectors(data, column) for column in VECTOR_COLUMNS)
    strings = data.select(_STRINGS)
    for first in range(0, len(rows), _CHUNK):
        part, texts_part = rows[first : first + _CHUNK], texts[first : first + _CHUNK]
        meta = strings.take(part).to_pydict()
        meta["text"] = strings["text"].take(texts_part).to_pylist()
        writer.write(meta, image=image[part], text_embedding=text[texts_part], retrieval=retrieval[part])
    return _finished(writer, manifest, settings={**manifest.settings, **settings, "of": manifest.fingerprint})


def _writer(manifest: ReferenceSetManifest) -> RowWriter:
    return RowWriter(dim=manifest.dim, retrieval_dim=manifest.retrieval_dim, storage=manifest.storage)


def _finished(writer: RowWriter, origin: ReferenceSetManifest, **changes: Any) -> RowsAndManifest:
    """Table of a writer, and the manifest of its origin with the changes."""
    data = writer.table()
    manifest = dataclasses.replace(
        origin,
        fingerprint=writer.fingerprint,
        count=writer.count,
        data="",
        created=now(),
        sources=writer.sources,
        znorm="",
        own_znorm=False,
        weights="",
        versions=library_versions(),
        **changes,
    )
    return data, manifest
