"""Pieces: rows of several arrays in a new order, without a copy. Also the runs of rows that they are made of.

The arrays of an index are stored in shards (`impart.video.search.state.shard`). A snapshot takes videos of many shards,
sorted by path. Its large arrays stay where they are, mostly memory-mapped, and only rows that are asked for are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from impart.encoders.base import Float32

__all__ = ["Pieces", "Runs", "products"]

_STRETCHES = 64  # of rows of one source, which are copied one after the other


@dataclass(frozen=True, kw_only=True)
class Runs:
    """R runs of neighbouring rows of several sources, in the order of V videos.

    Attributes:
        offsets: (V + 1,) first row of each video in the result.
        source: (R,) number of the source of each run.
        begin: (R,) its first row in the source.
        starts: (R + 1,) its first row in the result.
    """

    offsets: npt.NDArray[np.int64]
    source: npt.NDArray[np.int64]
    begin: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, source: npt.NDArray[np.int64], begin: npt.NDArray[np.int64], end: npt.NDArray[np.int64]) -> Runs:
        """Join the rows [begin, end) (V,) that V videos have in their sources (V,) to as few runs as possible.

        >>> Runs.of(np.array([0, 0, 1]), np.array([2, 4, 0]), np.array([4, 5, 3])).starts.tolist()
        [0, 3, 6]
        """
        offsets = np.concatenate([[0], np.cumsum(end - begin)]).astype(np.int64)
        used = np.flatnonzero(end > begin)
        source, begin, end = source[used], begin[used], end[used]
        first = np.ones(len(used), bool)
        first[1:] = (source[1:] != source[:-1]) | (begin[1:] != end[:-1])
        starts = np.append(offsets[:-1][used][first], offsets[-1])
        return cls(offsets=offsets, source=source[first], begin=begin[first], starts=starts)

    def join(self, arrays: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """Join arrays with one row per row of a source; of a single run, the result is a view."""
        if len(self.source) == 1:
            view: npt.NDArray[Any] = arrays[self.source[0]][self.begin[0] : self.begin[0] + self.starts[1]]
            return view
        result = np.empty((int(self.starts[-1]), *arrays[0].shape[1:]), arrays[0].dtype)
        for number, piece in self.pieces(arrays):
            result[self.starts[number] : self.starts[number + 1]] = piece
        return result

    def choose(self, arrays: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """Return the rows as `Pieces`, typed as the array that they stand for; of a single run, as a view."""
        if len(self.source) <= 1:
            return self.join(arrays)
        return cast("npt.NDArray[Any]", Pieces(self, arrays))

    def pieces(self, arrays: Sequence[npt.NDArray[Any]]) -> list[tuple[int, npt.NDArray[Any]]]:
        """List the number of each run, and its rows."""
        runs = zip(self.source.tolist(), self.begin.tolist(), np.diff(self.starts).tolist(), strict=True)
        return [(number, arrays[source][begin : begin + count]) for number, (source, begin, count) in enumerate(runs)]


class Pieces:
    """The rows of several arrays as one array that is read but not changed.

    It has the length, shape, type and indices of an array; `numpy.asarray` copies it.

    Args:
        runs: the rows.
        arrays: one per source, with equal shapes but for the first number.

    Example:
        >>> runs = Runs.of(np.array([1, 0]), np.array([0, 1]), np.array([1, 3]))
        >>> pieces = Pieces(runs, [np.array([10, 11, 12]), np.array([20])])
        >>> len(pieces), int(pieces[2]), pieces[:2].tolist(), np.asarray(pieces).tolist()
        (3, 12, [20, 11], [20, 11, 12])
    """

    def __init__(self, runs: Runs, arrays: Sequence[npt.NDArray[Any]]) -> None:
        self._runs = runs
        self._arrays = tuple(arrays)
        self._shift = runs.begin - runs.starts[:-1]  # from a row of the result to that of the source
        self.shape: tuple[int, ...] = (int(runs.starts[-1]), *arrays[0].shape[1:])
        self.dtype = arrays[0].dtype
        self._plain = all(isinstance(one, np.ndarray) and one.dtype == self.dtype for one in arrays)
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, tuple):
            first, *others = index
            rows = self[first]
            return rows[tuple(others)] if isinstance(first, int | np.integer) else rows[(slice(None), *others)]
        if isinstance(index, slice):
            begin, stop, step = index.indices(len(self))
            return self._range(begin, max(begin, stop)) if step == 1 else self._gather(np.arange(begin, stop, step))
        if isinstance(index, int | np.integer) and 0 <= index < len(self):
            run = int(self._runs.starts.searchsorted(index, side="right")) - 1
            return self._arrays[self._runs.source[run]][index + self._shift[run]]
        rows = np.asarray(index)
        if rows.dtype == bool:
            rows = np.flatnonzero(rows)
        if rows.ndim == 0:
            return self._gather(rows[None])[0]
        return self._gather(rows.reshape(-1)).reshape(*rows.shape, *self.shape[1:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.asarray(self._runs.join(self._arrays), dtype)

    def astype(self, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Copy all rows as another type."""
        return np.asarray(self, dtype)

    def pieces(self) -> list[tuple[int, npt.NDArray[Any]]]:
        """List the first row of each piece, and the piece."""
        starts = self._runs.starts.tolist()
        return [(starts[number], piece) for number, piece in self._runs.pieces(self._arrays)]

    def _range(self, begin: int, stop: int) -> npt.NDArray[Any]:
        """Return neighbouring rows; a view where one run has them all."""
        starts = self._runs.starts
        run = int(np.searchsorted(starts, begin, side="right")) - 1
        if run < len(starts) - 1 and stop <= starts[run + 1]:
            shift = int(self._shift[run])
            view: npt.NDArray[Any] = self._arrays[self._runs.source[run]][begin + shift : stop + shift]
            return view
        result = np.empty((stop - begin, *self.shape[1:]), self.dtype)
        at = begin
        while at < stop:
            end, shift = min(stop, int(starts[run + 1])), int(self._shift[run])
            result[at - begin : end - begin] = self._arrays[self._runs.source[run]][at + shift : end + shift]
            at, run = end, run + 1
        return result

    def _gather(self, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Copy the rows of these numbers (m,); negative ones count from the end."""
        if len(rows) and not -len(self) <= int(rows.min()) <= int(rows.max()) < len(self):
            raise IndexError(f"there are {len(self)} rows")
        rows = np.where(rows < 0, rows + len(self), rows).astype(np.int64)
        run = self._runs.starts.searchsorted(rows, side="right") - 1
        source, local = self._runs.source[run], rows + self._shift[run]
        changes = np.flatnonzero(source[1:] != source[:-1]) + 1  # rows that are asked for are mostly in order
        if self._plain and len(changes) <= _STRETCHES:
            result = np.empty((len(rows), *self.shape[1:]), self.dtype)
            ends = [0, *changes.tolist(), len(rows)]
            for first, stop in pairwise(ends):
                if stop > first:
                    array = np.asarray(self._arrays[source[first]])
                    array.take(local[first:stop], axis=0, out=result[first:stop], mode="clip")
            return result
        result = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for number in np.unique(source).tolist():
            here = source == number
            result[here] = self._arrays[number][local[here]]
        return result


def products(queries: Float32, rows: Any) -> Float32:
    """Compute the products (T, n) of queries (T, D) with all rows (n, D) of an array, or of `Pieces`.

    >>> products(np.ones((1, 2), np.float32), np.eye(2, dtype=np.float32)).tolist()
    [[1.0, 1.0]]
    """
    if isinstance(rows, np.ndarray):
        found: Float32 = queries @ rows.T
        return found
    result = np.empty((len(queries), len(rows)), np.float32)
    for first, piece in rows.pieces():
        np.matmul(queries, piece.T, out=result[:, first : first + len(piece)])
    return result
