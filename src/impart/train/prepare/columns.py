"""Append-only columns on disk: one row per key, memory-mapped, shared by runs.

A store is a few files in one folder, which only grow:

    <name>.keys           one line per row: the key (32 hex digits), a note of fixed width if the store has notes
    <name>.<column>       fixed-width rows, or the items of all rows end to end (`ragged`)
    <name>.<column>.ends  ragged columns alone: int64, the number of items up to and including each row

`keys` is written last: a row with a key is complete. A killed writer leaves files of different lengths; opening or
appending cuts them to the complete rows, so that a stop costs at most one batch. Several processes may append, each
under a lock. A row stays at its number, and is never computed again.

Name the folder after what determines the values (an encoder's fingerprint, settings): the files do not contain it.

Example:
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> columns = {"vectors": Column(np.float16, (2,)), "tokens": Column(np.int32, (), ragged=True)}
    >>> store = ColumnStore(Path(folder.name), "texts", columns)
    >>> keys = [column_key(text) for text in ("red", "a blue thing", "red")]
    >>> new = store.missing(keys)  # the first of each key that has no row
    >>> new
    [0, 1]
    >>> store.append(
    ...     [keys[number] for number in new],
    ...     {"vectors": np.array([[1, 0], [0, 1]]), "tokens": [np.array([7]), np.array([1, 8, 9])]},
    ... )
    >>> store.rows(keys)
    array([0, 1, 0])
    >>> store.column("vectors")[store.rows(keys)].tolist()
    [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]
    >>> offsets = store.offsets("tokens")  # (n + 1,): row i is items offsets[i] to offsets[i + 1]
    >>> store.column("tokens")[offsets[1] : offsets[2]].tolist()
    [1, 8, 9]
    >>> folder.cleanup()
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import numpy.typing as npt

from impart.errors import TrainingError
from impart.files import make_folder, sha256_hex, sync

__all__ = ["Column", "ColumnStore", "column_key"]

_KEY = 32  # hex digits
_OFFSET = np.dtype(np.int64)


def column_key(text: str) -> str:
    """Return the key of a row: the first 32 hex digits of the sha256 of `text`."""
    return sha256_hex(text)[:_KEY]


@dataclass(frozen=True)
class Column:
    """Layout of a column.

    Attributes:
        dtype: of its numbers.
        shape: of a row, or of each item of a ragged row.
        ragged: rows have any number of items.
    """

    dtype: npt.DTypeLike
    shape: tuple[int, ...]
    ragged: bool = False

    @property
    def item_bytes(self) -> int:
        """Bytes of a row, or of an item of a ragged row."""
        return np.dtype(self.dtype).itemsize * prod(self.shape)


class ColumnStore:
    """Columns on disk by key.

    Args:
        folder: made when missing.
        name: of the store within the folder; no other store has it.
        columns: layout by column name.
        note: characters of the note beside each key; 0 = none.

    Raises:
        TrainingError: the folder cannot be written.
    """

    def __init__(self, folder: Path, name: str, columns: Mapping[str, Column], *, note: int = 0):
        self._columns = dict(columns)
        self._note = note
        self._line = _KEY + (note and note + 1) + 1  # key, blank, note, line feed
        self._keys = folder / f"{name}.keys"
        self._paths = {column: folder / f"{name}.{column}" for column in columns}
        self._ends = {column: folder / f"{name}.{column}.ends" for column in columns if columns[column].ragged}
        self._lock = filelock.FileLock(folder / f"{name}.lock")
        self._row_of: dict[str, int] = {}
        self._read = 0  # rows whose keys are in `_row_of`
        self.count = 0
        try:
            make_folder(folder)
            for path in (self._keys, *self._paths.values(), *self._ends.values()):
                path.touch()
            with self._lock:
                self._trim()
        except OSError as error:
            raise TrainingError(f"cannot write to {folder}: {error.strerror or error}") from error

    def __len__(self) -> int:
        return self.count

    def rows(self, keys: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return the row of each key (n,); -1 where there is none."""
        known = self._known()
        return np.array([known.get(key, -1) for key in keys], dtype=np.int64)

    def missing(self, keys: Sequence[str]) -> list[int]:
        """Return the positions of keys without a row, of equal keys the first."""
        known = self._known()
        first = {key: number for number, key in reversed(list(enumerate(keys))) if key not in known}
        return sorted(first.values())

    def notes(self, rows: npt.NDArray[np.int64]) -> list[str]:
        """Return the notes of some rows."""
        lines = self._lines()
        return [bytes(lines[row])[_KEY + 1 : -1].decode() for row in rows]

    def column(self, name: str) -> npt.NDArray[Any]:
        """Return all rows (count, *shape) of a column, memory-mapped; of a ragged column all items."""
        layout = self._columns[name]
        count = int(self.offsets(name)[-1]) if layout.ragged else self.count
        return _mapped(self._paths[name], np.dtype(layout.dtype), (count, *layout.shape))

    def offsets(self, name: str) -> npt.NDArray[np.int64]:
        """Return where the rows of a ragged column begin in `column(name)`: (count + 1,)."""
        return np.concatenate([[0], _mapped(self._ends[name], _OFFSET, (self.count,))])

    def append(
        self, keys: Sequence[str], values: Mapping[str, Sequence[Any] | npt.NDArray[Any]], notes: Sequence[str] = ()
    ) -> None:
        """Write rows.

        Args:
            keys: n keys as `column_key` makes them.
            values: by column: (n, *shape); of a ragged column n arrays (items, *shape).
            notes: n notes, where the store has notes.
        """
        with self._lock:
            self._trim()
            for name, layout in self._columns.items():
                rows = values[name]
                assert len(rows) == len(keys), (name, len(rows), len(keys))
                if layout.ragged:
                    lengths = np.array([len(row) for row in rows], dtype=_OFFSET)
                    items = np.concatenate([np.empty((0, *layout.shape), layout.dtype), *rows])
                    ends = self.offsets(name)[-1] + np.cumsum(lengths)
                else:
                    items = np.asarray(rows)
                assert items.shape[1:] == layout.shape, (name, items.shape)
                _write(self._paths[name], np.ascontiguousarray(items, dtype=layout.dtype).tobytes())
                if layout.ragged:
                    _write(self._ends[name], ends.tobytes())
            lines = [f"{key} {note}\n" for key, note in zip(keys, notes, strict=True)] if self._note else None
            content = "".join(lines or [f"{key}\n" for key in keys]).encode()
            assert len(content) == len(keys) * self._line, "a key or note has another length"
            _write(self._keys, content)
            self.count += len(keys)

    def _trim(self) -> None:
        """Count the complete rows and cut off what a killed process left beyond them."""
        fixed = {self._keys: self._line} | dict.fromkeys(self._ends.values(), _OFFSET.itemsize)
        fixed |= {self._paths[name]: layout.item_bytes for name, layout in self._columns.items() if not layout.ragged}
        count = min(path.stat().st_size // width for path, width in fixed.items())
        items: dict[str, int] = {}
        for name, path in self._ends.items():
            ends = _mapped(path, _OFFSET, (count,))
            there = self._paths[name].stat().st_size // self._columns[name].item_bytes
            count = int(np.searchsorted(ends, there, side="right"))
        for name, path in self._ends.items():
            items[name] = int(_mapped(path, _OFFSET, (count,))[-1]) if count else 0
        sizes = {path: count * width for path, width in fixed.items()}
        sizes |= {self._paths[name]: number * self._columns[name].item_bytes for name, number in items.items()}
        for path, size in sizes.items():
            if path.stat().st_size != size:
                os.truncate(path, size)
        self.count = count

    def _known(self) -> dict[str, int]:
        """Row by key."""
        if self._read != self.count:
            for row, line in enumerate(self._lines()[self._read :], start=self._read):
                self._row_of[bytes(line)[:_KEY].decode()] = row
            self._read = self.count
        return self._row_of

    def _lines(self) -> npt.NDArray[Any]:
        return _mapped(self._keys, np.dtype(f"S{self._line}"), (self.count,))


def _mapped(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    if not prod(shape):
        return np.zeros(shape, dtype)
    return np.memmap(path, dtype=dtype, mode="r", shape=shape)


def _write(path: Path, content: bytes) -> None:
    with path.open("ab") as file:
        file.write(content)
    sync(path)  # values before the keys, so that a power cut leaves no key without its values
