"""Rows of vectors that stay where they are, such as on disk: a few are gathered, or all are read in blocks.

A reference set of 1.6 million pairs has 10 GB of vectors in float32. Looking up needs some hundred of them per image.
`StoredRows` gathers these from pieces in half precision, so that nothing is whole in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, overload

import numpy as np
import numpy.typing as npt

from impart.encoders.base import Float32

__all__ = ["Rows", "StoredRows", "blocks"]

BLOCK = 16_384
"""Rows that are float32 at a time."""
_TOUCHED = 65_536  # bytes that the system maps for one row read at random: 16 pages
_RELEASE = 256_000_000  # bytes that may be mapped before they are given back


class Rows(Protocol):
    """N vectors of one width: an array (N, width), or `StoredRows`."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Any:
        """Return float32 vectors (..., width) of row numbers (...)."""
        ...

    def __matmul__(self, other: Any, /) -> Any:
        """Multiply all vectors (N, width) with (width, T)."""
        ...


class StoredRows:
    """Vectors (N, width) in pieces, as float16 or float32.

    Args:
        pieces: arrays (n, width), such as views of a memory-mapped file.
        width: of the vectors.
        release: gives the memory that reading has mapped back to the system; None = nothing is mapped.

    Example:
        >>> halves = np.eye(4, dtype=np.float16)
        >>> rows = StoredRows([halves[:3], halves[3:]], width=4)
        >>> rows[np.array([[3, 0]])].tolist()
        [[[0.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, 0.0]]]
    """

    def __init__(
        self, pieces: Sequence[npt.NDArray[Any]], *, width: int, release: Callable[[], None] | None = None
    ) -> None:
        self._pieces = [piece for piece in pieces if len(piece)]
        self._ends = np.cumsum([len(piece) for piece in self._pieces], dtype=np.int64)
        self._width = width
        self._release = release
        self._touched = 0

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
        begin = 0
        for piece in np.flatnonzero(np.diff(cuts, prepend=0)).tolist():
            begin, end = int(cuts[piece - 1]) if piece else 0, int(cuts[piece])
            stored = self._pieces[piece]
            result[order[begin:end]] = stored[ordered[begin:end] - (int(self._ends[piece]) - len(stored))]
        self._read(len(flat) * _TOUCHED)
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

    def _read(self, touched: int) -> None:
        """Count what was read, and give mapped memory back before it is much."""
        if self._release is None:
            return
        self._touched += touched
        if self._touched > _RELEASE:
            self._touched = 0
            self._release()


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
