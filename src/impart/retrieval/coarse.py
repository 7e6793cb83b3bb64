"""Coarse codes: each vector as a few bytes, from which scores are estimated; the best are then scored exactly.

A text lies far from all images, so what orders images for it are small differences. Codes of signs lose these. A
`Basis` removes the mean and keeps the directions in which the scores of queries differ most. For queries q and items m
the projection to W numbers with the least mean squared error of q.m is, with the second moments C_q and C_m,

    q.m = q.mean + (A q).(B (m - mean)),   A = V^T C_q^-1/2,   B = V^T C_q^1/2

where V are the first W eigenvectors of C_q^1/2 C_m C_q^1/2 (principal components, where C_q is the identity). C_q is
that of texts, where some are given, and of the items themselves, which are what images ask for. Each number of an item
is one byte; a query keeps 13 bits. The product is one of whole numbers (`impart.retrieval.integer_product`), which
reads a quarter of the bytes of float32.

Measured beside other codes in `benchmarks/coarse_codes.py`.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from impart.encoders.base import Float32
from impart.files import atomic_path, blake2b_hex
from impart.retrieval.integer_product import ZERO, integer_product

__all__ = ["Basis", "Codes"]

_WIDTHS = (64, 256)
_STEP = 32  # widths are multiples of it
_LOST = 0.06
"""Share of the spread of scores that the numbers left out may have."""
_RANGE = 1.1  # of the largest number of the sample, which the largest byte stands for
_LEVELS = 63  # of a column of a query: see `integer_product`
_FINE = 64  # levels of the second column per level of the first
_PROBES = 256
_ROWS = 16_384  # rows multiplied at once
_QUERIES = 32


@dataclass(frozen=True, kw_only=True)
class Basis:
    """Projection of vectors (D,) to codes of W bytes.

    Attributes:
        mean: (D,) of the items.
        of_query, of_item: (D, W) projections; those of items end in bytes.
        probes: (p, D) items, on which the error of an estimate is measured for each query.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> items = rng.standard_normal((4000, 128)).astype(np.float32) / np.arange(1, 129, dtype=np.float32)
        >>> items /= np.linalg.norm(items, axis=1, keepdims=True)
        >>> basis = Basis.fit(items)
        >>> codes = basis.encode(items)
        >>> codes.shape, codes.dtype.name
        ((4000, 64), 'uint8')
        >>> bool(np.abs(basis.scores(items[:2], codes) - items[:2] @ items.T).max() < 0.1)
        True
    """

    mean: Float32
    of_query: Float32
    of_item: Float32
    probes: Float32

    @classmethod
    def fit(cls, sample: Float32, texts: Float32 | None = None) -> Basis:
        """Fit the projection.

        Args:
            sample: (m, D) items, L2-normalised; some thousands.
            texts: (M, D) texts as they are asked; None = queries are like the items.
        """
        dim = sample.shape[1]
        mean = sample.mean(axis=0)
        items = _moment(sample - mean)  # (D, D)
        asked = _shared(_moment(sample), np.eye(dim))
        if texts is not None and len(texts):
            asked = (asked + _shared(_moment(texts), np.eye(dim))) / 2
        values, vectors = np.linalg.eigh(asked)
        root = (vectors * np.sqrt(values)) @ vectors.T
        inverse = (vectors / np.sqrt(values)) @ vectors.T
        values, vectors = np.linalg.eigh(root @ items @ root)
        values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
        width = _width(values)
        of_item = (root @ vectors[:, :width]).astype(np.float32)  # (D, W)
        largest = np.abs((sample - mean) @ of_item).max(axis=0) * _RANGE / (ZERO - 1)  # (W,) what one step of a byte is
        largest = np.maximum(largest, 1e-12).astype(np.float32)
        chosen = np.linspace(0, len(sample) - 1, min(len(sample), _PROBES)).astype(np.int64)
        return cls(
            mean=mean.astype(np.float32),
            of_query=(inverse @ vectors[:, :width] * largest).astype(np.float32),
            of_item=of_item / largest,
            probes=sample[chosen].astype(np.float32),
        )

    @property
    def width(self) -> int:
        """W, bytes of a code."""
        return int(self.of_item.shape[1])

    @cached_property
    def digest(self) -> str:
        """Digest of the projection; codes of bases with equal digests can be compared."""
        return blake2b_hex(b"".join(np.ascontiguousarray(one).tobytes() for one in self._arrays().values()))

    def encode(self, vectors: Float32) -> npt.NDArray[np.uint8]:
        """Encode items (m, D) to codes (m, W); the code of a row does not depend on the others."""
        codes = np.empty((len(vectors), self.width), np.uint8)
        for first in range(0, len(vectors), _ROWS):
            part = slice(first, first + _ROWS)
            steps = (vectors[part].astype(np.float32) - self.mean) @ self.of_item
            codes[part] = (np.clip(np.rint(steps), 1 - ZERO, ZERO - 1) + ZERO).astype(np.uint8)
        return codes

    def scores(self, queries: Float32, codes: npt.NDArray[np.uint8]) -> Float32:
        """Estimate the cosines (T, m) of queries (T, D) with the items of codes (m, W)."""
        found = np.empty((len(queries), len(codes)), np.float32)
        constant = queries @ self.mean  # (T,)
        for first in range(0, len(queries), _QUERIES):
            of = slice(first, first + _QUERIES)
            columns, steps = _columns(queries[of] @ self.of_query)  # (W, 2t), (2t, t)
            for begin in range(0, len(codes), _ROWS):
                part = slice(begin, begin + _ROWS)
                product = integer_product(codes[part], columns).astype(np.float32) @ steps  # (b, t)
                np.add(product.T, constant[of, None], out=found[of, part])
        return found

    def errors(self, queries: Float32) -> Float32:
        """Measure the usual error (T,) of the estimates for some queries (T, D): the root mean square on the probes."""
        differences = self.scores(queries, self._probe_codes) - queries @ self.probes.T  # (T, p)
        errors: Float32 = np.sqrt((differences**2).mean(axis=1))
        return errors

    @cached_property
    def _probe_codes(self) -> npt.NDArray[np.uint8]:
        return self.encode(self.probes)

    def _arrays(self) -> dict[str, Float32]:
        return {"mean": self.mean, "of_query": self.of_query, "of_item": self.of_item, "probes": self.probes}

    def save(self, path: Path) -> None:
        """Write the basis to a file (.npz), atomically."""
        with atomic_path(path) as part, part.open("wb") as file:
            np.savez(file, **self._arrays())  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path) -> Basis:
        """Read what `save` wrote.

        Raises:
            OSError, ValueError: the file is missing or damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                basis = cls(**{name: stored[name] for name in ("mean", "of_query", "of_item", "probes")})
        except (zipfile.BadZipFile, KeyError, EOFError) as error:
            raise ValueError(f"{path} is damaged: {error}") from error
        dim, width = basis.of_item.shape
        if basis.mean.shape != (dim,) or basis.of_query.shape != (dim, width) or basis.probes.shape[1:] != (dim,):
            raise ValueError(f"{path} contains arrays that do not belong together")
        return basis


@dataclass(frozen=True, kw_only=True)
class Codes:
    """Codes of all items, in blocks.

    Attributes:
        blocks: each (m, W), in the order of the items.
    """

    basis: Basis
    blocks: tuple[npt.NDArray[np.uint8], ...]

    def __len__(self) -> int:
        return sum(len(block) for block in self.blocks)

    def scores(self, queries: Float32) -> Float32:
        """Estimate the cosines (T, m) of queries (T, D) with all items."""
        if len(self.blocks) == 1:
            return self.basis.scores(queries, self.blocks[0])
        found = np.empty((len(queries), len(self)), np.float32)
        first = 0
        for block in self.blocks:
            found[:, first : first + len(block)] = self.basis.scores(queries, block)
            first += len(block)
        return found


def _moment(vectors: Float32) -> npt.NDArray[np.float64]:
    """Compute the second moment (D, D) of vectors (m, D)."""
    moment: npt.NDArray[np.float64] = (vectors.T @ vectors).astype(np.float64) / len(vectors)
    return moment


def _shared(moment: npt.NDArray[np.float64], identity: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Scale a second moment to a trace of 1, of which a part is equal in all directions."""
    dim = len(moment)
    total = max(float(np.trace(moment)), 1e-12)
    mixed: npt.NDArray[np.float64] = 0.9 * moment / total + 0.1 * identity / dim
    return mixed


def _width(values: npt.NDArray[np.float64]) -> int:
    """Choose the width, from the variances (D,) of the scores in each direction, largest first.

    >>> _width(np.array([1.0] * 70 + [0.0] * 300))
    96
    """
    lost = np.sqrt(1 - np.cumsum(values) / max(float(values.sum()), 1e-30) + 1e-12)
    enough = int(np.searchsorted(-lost, -_LOST)) + 1
    width = -(-enough // _STEP) * _STEP
    return min(max(width, _WIDTHS[0]), _WIDTHS[1], len(values))


def _columns(projected: Float32) -> tuple[npt.NDArray[np.int8], Float32]:
    """Write queries (t, W) as whole numbers: a coarse and a fine column each.

    Returns:
        (W, 2t) columns; (2t, t) by which their products are multiplied and summed.
    """
    count = len(projected)
    step = np.maximum(np.abs(projected).max(axis=1, keepdims=True), 1e-30) / _LEVELS  # (t, 1)
    coarse = np.rint(projected / step)
    fine = np.clip(np.rint((projected / step - coarse) * _FINE), -_LEVELS, _LEVELS)
    columns = np.concatenate([coarse, fine]).T.astype(np.int8)  # (W, 2t)
    steps = np.zeros((2 * count, count), np.float32)
    own = np.arange(count)
    steps[own, own], steps[count + own, own] = step[:, 0], step[:, 0] / _FINE
    return np.ascontiguousarray(columns), steps
