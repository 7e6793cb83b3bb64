"""Rows of vectors that stay where they are, such as on disk: a few are gathered, or all are read in blocks.

A reference set of 1.6 million pairs has 10 GB of vectors in float32. Looking up needs some hundred of them per image.
`StoredRows` gathers these from pieces in half precision, so that nothing is whole in memory.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from impart.encoders.base import Float32

__all__ = ["MappedFile", "StoredRows", "blocks"]

_AHEAD = 131_072
BLOCK = 16_384
"""Rows that are float32 at a time."""
_RELEASE = 64_000_000  # bytes of a mapped file that are read before they are given back


class StoredRows:
    """Vectors (N, width) in pieces, as float16 or float32.

    Args:
        pieces: arrays (n, width), such as views of a memory-mapped file.
        width: of the vectors.
        file: that is mapped and has the pieces; None = they are in memory.

    Example:
        >>> halves = np.eye(4, dtype=np.float16)
        >>> rows = StoredRows([halves[:3], halves[3:]], width=4)
        >>> rows[np.array([[3, 0]])].tolist()
        [[[0.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, 0.0]]]
    """

    def __init__(self, pieces: Sequence[npt.NDArray[Any]], *, width: int, file: MappedFile | None = None) -> None:
        self._pieces = [piece for piece in pieces if len(piece)]
        self._file = file
        self._ends = np.cumsum([len(piece) for piece in self._pieces], dtype=np.int64)
        self._width = width
        self._unreleased = 0

    @property
    def shape(self) -> tuple[int, int]:
        return (int(self._ends[-1]) if len(self._ends) else 0, self._width)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: npt.NDArray[Any]) -> Float32:
        """Gather rows by number; the result has the shape of `rows` and the width."""
        numbers = np.asarray(rows, dtype=np.int64)
        flat = numbers.reshape(-1)
        order = np.argsort(flat, kind="stable")  # in the order of the file
        ordered = flat[order]
        assert not len(ordered) or 0 <= ordered[0] <= ordered[-1] < len(self), (ordered[0], ordered[-1], len(self))
        result = np.empty((len(flat), self._width), np.float32)
        cuts = np.searchsorted(ordered, self._ends)  # (pieces,) rows of the pieces up to this one
        for piece in np.flatnonzero(np.diff(cuts, prepend=0)).tolist():
            begin, end = int(cuts[piece - 1]) if piece else 0, int(cuts[piece])
            stored = self._pieces[piece]
            numbers_in = ordered[begin:end] - (int(self._ends[piece]) - len(stored))
            result[order[begin:end]] = stored[numbers_in] if self._file is None else self._file.rows(stored, numbers_in)
        return result.reshape(*numbers.shape, self._width)

    def __matmul__(self, other: npt.NDArray[Any]) -> Float32:
        """Multiply all rows with (width, T), a block at a time: (N, T)."""
        result = np.empty((len(self), *other.shape[1:]), np.float32)
        for first, part in self.blocks():
            result[first : first + len(part)] = part @ other
        return result

    def blocks(self, rows: int = BLOCK) -> Iterator[tuple[int, Float32]]:
        """Read all rows in order: (number of the first, at most `rows` vectors as float32)."""
        first = 0
        for piece in self._pieces:
            for start in range(0, len(piece), rows):
                part = piece[start : start + rows]
                yield first + start, part.astype(np.float32)
                self._read(part.nbytes)
            first += len(piece)

    def prefetch(self) -> None:
        """Ask the system to read the rows into its cache of files, which takes no memory of the process."""
        if self._file is not None:
            for piece in self._pieces:
                self._file.prefetch(piece)

    def _read(self, size: int) -> None:
        """Count what was read of a mapped file, and give the memory back before it is much."""
        self._unreleased += size
        if self._file is not None and self._unreleased > _RELEASE:
            self._unreleased = 0
            self._file.release()


class MappedFile:
    """A file in memory pages of the system: whole pieces are read through them, single rows by calls.

    Pages that were read count as memory of the process until they are given back. A row at random maps 16 of them, so
    that reading the row by a call takes less time, and no memory.

    Args:
        path: of the file.

    Attributes:
        pages: of the whole file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is empty.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self.pages = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        self._start = np.frombuffer(self.pages, np.uint8).__array_interface__["data"][0]

    def release(self) -> None:
        """Give the pages back; they are read again where they are needed. Without an effect where there is no call."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self.pages.madvise(mmap.MADV_DONTNEED)

    def prefetch(self, piece: npt.NDArray[Any]) -> None:
        """Ask the system to read a view of the file ahead. Rows at random cost a disk access each otherwise."""
        advise = getattr(os, "posix_fadvise", None)  # Linux
        if advise is not None:
            first, number = self._offset(piece), self._file.fileno()
            for start in range(first, first + piece.nbytes, _AHEAD):  # Linux reads no more per call
                advise(number, start, _AHEAD, os.POSIX_FADV_WILLNEED)

    def rows(self, piece: npt.NDArray[Any], numbers: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Read rows (n, width) of a view of the file."""
        if not hasattr(os, "pread") or len(numbers) > len(piece) // 4:
            return piece[numbers]
        size, number = piece.strides[0], self._file.fileno()
        offsets = numbers * size + self._offset(piece)
        read = b"".join([os.pread(number, size, offset) for offset in offsets.tolist()])
        return np.frombuffer(read, piece.dtype).reshape(len(numbers), -1)

    def _offset(self, piece: npt.NDArray[Any]) -> int:
        return int(piece.__array_interface__["data"][0] - self._start)


@overload
def blocks(vectors: StoredRows, rows: int = BLOCK) -> Iterator[tuple[int, Float32]]: ...
@overload
def blocks(vectors: Float32, rows: int = BLOCK) -> Iterator[tuple[int, Float32]]: ...
def blocks(vectors: Float32 | StoredRows, rows: int = BLOCK) -> Iterator[tuple[int, Float32]]:
    """Read all rows of an array or of stored rows in order: (number of the first, at most `rows` vectors)."""
    if isinstance(vectors, StoredRows):
        yield from vectors.blocks(rows)
        return
    for first in range(0, len(vectors), rows):
        yield first, vectors[first : first + rows]
