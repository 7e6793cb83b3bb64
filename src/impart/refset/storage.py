"""Rows of reference sets: written with the digest of everything, read back, and joined."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from impart.errors import EncoderMismatchError
from impart.files import atomic_path, library_versions, new_sha256, now, sha256_hex
from impart.refset.refset import META_COLUMNS, ReferenceSet
from impart.retrieval.nearest import ANN_ABOVE, IndexInfo, PairIndex

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "STORAGES",
    "RowWriter",
    "merge",
    "read_table",
    "sources_of",
    "take",
    "with_index",
    "without",
    "write_table",
]

STORAGES = {"float16": np.float16, "float32": np.float32}
_CHUNK = 16384  # rows copied at a time


def merge(sets: Sequence[ReferenceSet]) -> ReferenceSet:
    """One set of all pairs; of equal (hash, text) the first stays. Rows without a hash compare by their vectors."""
    first = sets[0]
    for other in sets[1:]:
        if other.encoder_fingerprint != first.encoder_fingerprint:
            raise EncoderMismatchError(
                f"reference sets {first.name!r} and {other.name!r} were made with different encoders: "
                f"{first.encoder_id!r} ({first.encoder_fingerprint[:12]}) and {other.encoder_id!r} "
                f"({other.encoder_fingerprint[:12]}): build one of them again with the other's encoder"
            )
    writer = RowWriter(
        dim=first.manifest.dim, retrieval_dim=first.manifest.retrieval_dim, storage=first.manifest.storage
    )
    seen: set[tuple[str, str]] = set()
    for part in sets:
        image, text, retrieval = part.image_embeddings, part.text_embeddings, part.retrieval_embeddings
        meta = part.table.drop_columns("id").to_pydict()
        keys = [(key or sha256_hex(image[row].tobytes()), meta["text"][row]) for row, key in enumerate(meta["hash"])]
        rows = []
        for row, key in enumerate(keys):
            if key not in seen:
                seen.add(key)
                rows.append(row)
        writer.write(
            {column: [values[row] for row in rows] for column, values in meta.items()},
            image=image[rows],
            text_embedding=text[rows],
            retrieval=retrieval[rows],
        )
    data = writer.table()
    manifest = dataclasses.replace(
        first.manifest,
        fingerprint=writer.fingerprint,
        count=writer.count,
        data="",
        created=now(),
        sources=sources_of(data),
        settings={"merged": [part.name for part in sets]},
        failed=sum(part.manifest.failed for part in sets),
        duplicates=sum(len(part) for part in sets) - writer.count,
        znorm="",
        vanilla=None,
        versions=library_versions(),
    )
    kinds = {str(part.manifest.index["kind"]) for part in sets} - {"exact"}
    znorm = next((part.given_znorm for part in sets if part.given_znorm is not None), None)
    return with_index(ReferenceSet(data, manifest, znorm=znorm), kinds.pop() if len(kinds) == 1 else "auto")


def without(references: ReferenceSet, rows: Iterable[int]) -> ReferenceSet:
    """The set without some rows; none = the set itself."""
    dropped = np.unique(np.fromiter((int(row) for row in rows), dtype=np.int64))
    if not len(dropped):
        return references
    assert dropped[0] >= 0, dropped[0]
    assert dropped[-1] < len(references), (dropped[-1], len(references))
    kept = np.setdiff1d(np.arange(len(references)), dropped)
    return _copied(references, kept, kept, {"without_rows": len(dropped)})


def take(references: ReferenceSet, rows: npt.ArrayLike, *, texts_of: npt.ArrayLike | None = None) -> ReferenceSet:
    """Some rows in the order given, each with the text of its row or of another; see `ReferenceSet.take`."""
    taken = np.asarray(rows, dtype=np.int64)
    texts = taken if texts_of is None else np.asarray(texts_of, dtype=np.int64)
    assert taken.ndim == 1, taken.shape
    assert taken.shape == texts.shape, (taken.shape, texts.shape)
    for numbers in (taken, texts):
        assert not len(numbers) or 0 <= numbers.min() <= numbers.max() < len(references), len(references)
    changed = int((taken != texts).sum())
    return _copied(
        references, taken, texts, {"taken_rows": len(taken), **({"other_texts": changed} if changed else {})}
    )


def _copied(
    references: ReferenceSet, rows: npt.NDArray[np.int64], texts: npt.NDArray[np.int64], settings: dict[str, Any]
) -> ReferenceSet:
    """Rows with the texts of rows; a few at a time are copied, so that a large set needs no second memory."""
    manifest = references.manifest
    writer = RowWriter(dim=manifest.dim, retrieval_dim=manifest.retrieval_dim, storage=manifest.storage)
    image, text, retrieval = references.image_embeddings, references.text_embeddings, references.retrieval_embeddings
    table = references.table.drop_columns("id")
    for first in range(0, len(rows), _CHUNK):
        part, worded = rows[first : first + _CHUNK], texts[first : first + _CHUNK]
        meta = table.take(part).to_pydict()
        meta["text"] = table["text"].take(worded).to_pylist()
        writer.write(meta, image=image[part], text_embedding=text[worded], retrieval=retrieval[part])
    data = writer.table()
    changed = dataclasses.replace(
        manifest,
        fingerprint=writer.fingerprint,
        count=writer.count,
        data="",
        created=now(),
        sources=sources_of(data),
        settings={**manifest.settings, **settings, "of": manifest.fingerprint},
        znorm="",
        versions=library_versions(),
    )
    kind = str(manifest.index["kind"])
    return with_index(ReferenceSet(data, changed, znorm=references.given_znorm), kind)


class RowWriter:
    """Rows to an Arrow IPC file (or memory), with the digest of everything written.

    Args:
        dim: D.
        retrieval_dim: R.
        storage: `float16` or `float32`.
        path: file; None = memory.
    """

    def __init__(self, *, dim: int, retrieval_dim: int, storage: str, path: Path | None = None) -> None:
        import pyarrow as pa

        self.count = 0
        self._dtype = STORAGES[storage]
        self._path = path
        self._widths = {"image": dim, "text_embedding": dim, "retrieval": retrieval_dim}
        number = pa.float16() if storage == "float16" else pa.float32()
        fields = [(column, pa.string()) for column in META_COLUMNS]
        fields += [(column, pa.list_(number, width)) for column, width in self._widths.items()]
        self._schema = pa.schema(fields)
        self._digests = {column: new_sha256() for column in self._schema.names}
        self._sink = pa.OSFile(str(path), "wb") if path is not None else pa.BufferOutputStream()
        self._file = pa.ipc.new_file(self._sink, self._schema)

    @property
    def fingerprint(self) -> str:
        """Hex digest over the rows so far, the same however they were cut into batches."""
        joined = "".join(digest.hexdigest() for digest in self._digests.values())
        return sha256_hex(f"{self._dtype.__name__} {self.count} {joined}")

    def write(self, meta: dict[str, list[str]], **vectors: npt.NDArray[Any]) -> None:
        """Append n rows.

        Args:
            meta: n strings for each of text, source, licence, hash, path; ids are row numbers.
            vectors: image (n, D), text_embedding (n, D), retrieval (n, R).
        """
        import pyarrow as pa

        count = len(meta["text"])
        if not count:
            return
        meta = {"id": [str(self.count + i) for i in range(count)], **meta}
        columns: list[Any] = []
        for column in META_COLUMNS:
            self._digests[column].update("\0".join([*meta[column], ""]).encode())
            columns.append(pa.array(meta[column], pa.string()))
        for column, width in self._widths.items():
            values = np.ascontiguousarray(vectors[column], dtype=self._dtype)
            assert values.shape == (count, width), (column, values.shape, (count, width))
            self._digests[column].update(values.tobytes())
            columns.append(pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), width))
        self._file.write_batch(pa.RecordBatch.from_arrays(columns, schema=self._schema))
        self.count += count

    def close(self) -> None:
        """Finish the file."""
        self._file.close()
        if self._path is not None:
            self._sink.close()

    def table(self) -> pa.Table:
        """What was written to memory; closes the writer."""
        import pyarrow as pa

        assert self._path is None, "a set on disk is opened from there"
        self.close()
        return pa.ipc.open_file(self._sink.getvalue()).read_all()

    def discard(self) -> None:
        """Remove an unfinished file."""
        if self._path is not None:
            self._sink.close()
            self._path.unlink(missing_ok=True)


def write_table(data: pa.Table, path: Path) -> None:
    """Write a table as an Arrow IPC file in one step."""
    import pyarrow as pa

    with (
        atomic_path(path) as part,
        pa.OSFile(str(part), "wb") as sink,
        pa.ipc.new_file(sink, data.schema) as file,
    ):
        file.write_table(data)


def read_table(path: Path) -> pa.Table:
    """Memory-map an Arrow IPC file."""
    import pyarrow as pa

    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def sources_of(data: pa.Table) -> tuple[dict[str, Any], ...]:
    """Collections in a table with their licences and counts, in the order of their names."""
    counts = Counter(zip(data["source"].to_pylist(), data["licence"].to_pylist(), strict=True))
    return tuple({"source": s, "licence": lic, "pairs": n} for (s, lic), n in sorted(counts.items()))


def with_index(references: ReferenceSet, kind: str) -> ReferenceSet:
    """The set with its index chosen and, where that is approximate, its recall measured."""
    index: PairIndex | None = None
    if kind == "exact" or (kind == "auto" and len(references) <= ANN_ABOVE):
        info = IndexInfo()
    else:
        index = PairIndex(references.retrieval_embeddings, kind=kind, images=references.images)
        info = index.measure()
    manifest = dataclasses.replace(references.manifest, index=info.as_dict())
    chosen = ReferenceSet(references.data, manifest, znorm=references.given_znorm)
    if index is not None:
        chosen.__dict__["index"] = index  # built already, for the measurement
    return chosen
