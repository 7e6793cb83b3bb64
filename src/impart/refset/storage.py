"""Rows of a reference set on disk: an Arrow IPC file with texts, sources and vectors, one row per pair.

`RowWriter` writes rows in batches and keeps their digest; `read_rows` memory-maps a finished file and compares it with
its digest. That of a large file is computed once: `<name>.checked` beside it then has the file's size, time and number.

Pages of a mapped file that were read count as memory of the process until they are given back, which happens while a
whole file is read: a file of 5 GB does not take 5 GB.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from impart.errors import ReferenceSetError
from impart.files import Digest, atomic_path, file_state, new_sha256, sha256_hex, write_atomic
from impart.retrieval.rows import MappedFile

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "CHECKED_EACH_TIME",
    "META_COLUMNS",
    "STORAGES",
    "VECTOR_COLUMNS",
    "RowWriter",
    "StoredTable",
    "file_name",
    "fingerprint_of",
    "load_weights",
    "pieces",
    "read_rows",
    "save_weights",
    "vectors",
    "write_rows",
]

META_COLUMNS = ("id", "text", "source", "licence", "hash", "path", "phash")
_LATER_COLUMNS = ("phash",)
"""Columns that older files lack: they are empty then, and no part of the fingerprint."""
VECTOR_COLUMNS = ("image", "text_embedding", "retrieval")
STORAGES = {"float16": np.float16, "float32": np.float32}
_REMEDY = "Build the set again, or restore it from a copy"
CHECKED_EACH_TIME = 16_000_000
"""Bytes up to which the digest of a file is computed each time it is opened."""
_RELEASED_AFTER = 64_000_000  # bytes read
BATCH = 8192
"""Rows of a batch of the file: enough that a set of millions has few, and little to keep until it is full."""


@dataclass(frozen=True)
class StoredTable:
    """Rows of a memory-mapped file, or in memory.

    Attributes:
        data: the rows.
        file: that is mapped; None for rows in memory.
    """

    data: pa.Table
    file: MappedFile | None = None


class RowWriter:
    """Writer of rows to an Arrow IPC file or to memory, with a digest over all of them.

    Rows are written in batches of `BATCH`, however they come.

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
        self._widths = dict(zip(VECTOR_COLUMNS, (dim, dim, retrieval_dim), strict=True))
        number = pa.float16() if storage == "float16" else pa.float32()
        fields = [(column, pa.string()) for column in META_COLUMNS]
        fields += [(column, pa.list_(number, width)) for column, width in self._widths.items()]
        self._schema = pa.schema(fields)
        self._digests = {column: new_sha256() for column in self._schema.names}
        self._sources: Counter[tuple[str, str]] = Counter()
        self._waiting: list[pa.RecordBatch] = []
        self._sink = pa.OSFile(str(path), "wb") if path is not None else pa.BufferOutputStream()
        self._file = pa.ipc.new_file(self._sink, self._schema)

    @property
    def fingerprint(self) -> str:
        """Hex digest over the rows so far; it does not depend on how they were cut into batches."""
        return _fingerprint(self._digests, self._dtype.__name__, self.count)

    @property
    def sources(self) -> tuple[dict[str, Any], ...]:
        """Collections of the rows so far with their licences and counts, sorted by name."""
        return tuple({"source": s, "licence": lic, "pairs": n} for (s, lic), n in sorted(self._sources.items()))

    def write(self, meta: dict[str, list[str]], **columns: npt.NDArray[Any]) -> pa.RecordBatch | None:
        """Append n rows, and return them as they are stored; None for no rows.

        Args:
            meta: n strings for each of text, source, licence, hash, path and, if known, phash; ids are row numbers.
            columns: image (n, D), text_embedding (n, D), retrieval (n, R).
        """
        import pyarrow as pa

        count = len(meta["text"])
        if not count:
            return None
        meta = {"id": [str(self.count + i) for i in range(count)], "phash": [""] * count, **meta}
        arrays: list[Any] = []
        for column in META_COLUMNS:
            self._digests[column].update("\0".join([*meta[column], ""]).encode())
            arrays.append(pa.array(meta[column], pa.string()))
        for column, width in self._widths.items():
            values = np.ascontiguousarray(columns[column], dtype=self._dtype)
            assert values.shape == (count, width), (column, values.shape, (count, width))
            self._digests[column].update(values.tobytes())
            arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), width))
        self._sources.update(zip(meta["source"], meta["licence"], strict=True))
        rows = pa.RecordBatch.from_arrays(arrays, schema=self._schema)
        self._waiting.append(rows)
        self.count += count
        if sum(batch.num_rows for batch in self._waiting) >= BATCH:
            self._flush()
        return rows

    def _flush(self) -> None:
        """Write the waiting rows as batches."""
        import pyarrow as pa

        if self._waiting:
            joined = pa.concat_batches(self._waiting)
            self._waiting = []
            for first in range(0, joined.num_rows, BATCH):
                self._file.write_batch(joined.slice(first, BATCH))

    def close(self) -> None:
        """Finish the file."""
        self._flush()
        self._file.close()
        if self._path is not None:
            self._sink.close()

    def table(self) -> pa.Table:
        """Close the writer and return the rows written to memory."""
        import pyarrow as pa

        assert self._path is None, "rows in a file are read by read_rows"
        self.close()
        return pa.ipc.open_file(self._sink.getvalue()).read_all()

    def discard(self) -> None:
        """Remove an unfinished file."""
        if self._path is not None:
            self._sink.close()
            self._path.unlink(missing_ok=True)


def file_name(fingerprint: str) -> str:
    """Name of the file of rows with this fingerprint."""
    return f"pairs-{fingerprint[:16]}.arrow"


def write_rows(data: pa.Table, path: Path, *, release: Callable[[], None] | None = None) -> None:
    """Write a table as an Arrow IPC file in one step.

    Args:
        data: the rows.
        path: of the file.
        release: gives the memory of the mapped file back that the rows are read from.
    """
    import pyarrow as pa

    with (
        atomic_path(path) as part,
        pa.OSFile(str(part), "wb") as sink,
        pa.ipc.new_file(sink, data.schema) as file,
    ):
        for batch in data.to_batches():
            file.write_batch(batch)
            if release is not None:
                release()


def read_rows(path: Path, *, count: int, fingerprint: str, storage: str, again: bool = False) -> StoredTable:
    """Memory-map a file of rows and compare it with its digest.

    Args:
        path: of the file.
        count, fingerprint, storage: as the manifest states them.
        again: compare a large file with its digest also where that was done before.

    Raises:
        ReferenceSetError: the file cannot be read, or has other rows or columns.
    """
    import pyarrow as pa

    try:
        file = MappedFile(path)
        data = pa.ipc.open_file(pa.BufferReader(pa.py_buffer(file.pages))).read_all()
        for column in _LATER_COLUMNS:
            if column not in data.column_names:
                data = data.append_column(column, pa.array([""] * data.num_rows, pa.string()))
        wrong = _difference(data, count=count, storage=storage)
        if not wrong and (again or not _is_known(path, fingerprint)):
            data.validate(full=True)  # texts of damaged lengths would be read from elsewhere in memory
            if fingerprint_of(data, storage=storage, release=file.release) != fingerprint:
                wrong = "has other rows than the manifest states (was it damaged, or copied in part?)"
            else:
                _remember(path, fingerprint)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise ReferenceSetError(f"{path} cannot be read: {error}. {_REMEDY}") from error
    if wrong:
        raise ReferenceSetError(f"{path} {wrong}. {_REMEDY}")
    return StoredTable(data, file)


def fingerprint_of(data: pa.Table, *, storage: str, release: Callable[[], None] | None = None) -> str:
    """Compute the digest over all rows of a table, as `RowWriter` does.

    Args:
        data: the rows.
        storage: `float16` or `float32`.
        release: gives the memory of a mapped file back, see `MappedFile`.
    """
    import pyarrow.compute as pc

    digests = {column: new_sha256() for column in (*META_COLUMNS, *VECTOR_COLUMNS)}
    read = 0
    for column in META_COLUMNS:
        for chunk in data[column].chunks:
            ended = pc.binary_join_element_wise(chunk, "", "\0")  # each text and a zero byte
            first, last = np.frombuffer(ended.buffers()[1], np.int32)[[ended.offset, ended.offset + len(ended)]]
            digests[column].update(memoryview(ended.buffers()[2] or b"")[first:last])
    for column in VECTOR_COLUMNS:
        for chunk in data[column].chunks:
            digests[column].update(chunk.flatten().to_numpy(zero_copy_only=True).view(np.uint8).data)
            read += chunk.nbytes
            if release is not None and read > _RELEASED_AFTER:
                read = 0
                release()
    return _fingerprint(digests, storage, data.num_rows)


def _fingerprint(digests: Mapping[str, Digest], storage: str, count: int) -> str:
    joined = "".join(digest.hexdigest() for column, digest in digests.items() if column not in _LATER_COLUMNS)
    return sha256_hex(f"{storage} {count} {joined}")


def _difference(data: pa.Table, *, count: int, storage: str) -> str:
    """Describe in what a table differs from its manifest; empty = in nothing."""
    import pyarrow as pa

    missing = {*META_COLUMNS, *VECTOR_COLUMNS} - set(data.column_names)
    if missing or data.num_rows != count:
        what = f"has {data.num_rows} pairs, the manifest states {count}"
        return what + (f"; missing columns: {', '.join(sorted(missing))}" if missing else "")
    number = pa.float16() if storage == "float16" else pa.float32()
    types = {data.schema.field(column).type for column in VECTOR_COLUMNS}
    if not all(pa.types.is_fixed_size_list(kind) and kind.value_type == number for kind in types):
        return f"has vectors of another kind than {storage}, which the manifest states"
    return ""


def _is_known(path: Path, fingerprint: str) -> bool:
    """Whether a large file was compared with this digest before, and was not changed since."""
    if path.stat().st_size <= CHECKED_EACH_TIME:
        return False
    try:
        return _mark_of(path).read_text(encoding="utf-8") == _state(path, fingerprint)
    except (OSError, ValueError):
        return False


def _remember(path: Path, fingerprint: str) -> None:
    if path.stat().st_size > CHECKED_EACH_TIME:
        with contextlib.suppress(OSError):  # of a folder that cannot be written, the file is compared each time
            write_atomic(_mark_of(path), _state(path, fingerprint))


def _mark_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.checked")


def _state(path: Path, fingerprint: str) -> str:
    return f"{fingerprint} {file_state(path)} {path.stat().st_ino}"


def pieces(data: pa.Table, column: str) -> list[npt.NDArray[Any]]:
    """Return the vectors of a column in the pieces (n, width) of the table, in their stored precision, not copied."""
    width = data.schema.field(column).type.list_size
    return [chunk.flatten().to_numpy(zero_copy_only=True).reshape(-1, width) for chunk in data[column].chunks]


def vectors(data: pa.Table, column: str) -> npt.NDArray[Any]:
    """Return the vectors of a column, (N, width), in their stored precision; without a copy where that is possible."""
    parts = pieces(data, column)
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.empty((0, data.schema.field(column).type.list_size), np.float32)


def save_weights(weights: npt.NDArray[np.float32], folder: Path) -> str:
    """Write solved weights (N, C), and return the name of the file, which has their digest."""
    path = folder / f"solved-{_digest_of(weights)}.npy"
    with atomic_path(path) as part, part.open("wb") as file:
        np.save(file, weights)
    return path.name


def load_weights(path: Path) -> npt.NDArray[np.float32]:
    """Read what `save_weights` wrote.

    Raises:
        ReferenceSetError: the file is missing or damaged.
    """
    remedy = "Tune the set again (impart refset tune SET), or restore the file from a copy"
    try:
        stored: npt.NDArray[np.float32] = np.load(path)
    except (OSError, ValueError, EOFError) as error:
        raise ReferenceSetError(f"{path} cannot be read: {error}. {remedy}") from error
    if _digest_of(stored) not in path.name:
        raise ReferenceSetError(f"{path} is damaged: it has other weights than its name states. {remedy}")
    return stored


def _digest_of(weights: npt.NDArray[np.float32]) -> str:
    return sha256_hex(weights.tobytes(), str(weights.shape))[:16]
