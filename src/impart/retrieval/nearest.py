"""Search the nearest references: exact up to `ANN_ABOVE` rows, approximate above, with measured recall.

Fewer than `EXACT_BELOW` rows are searched exactly, whatever kind is asked for.

Exact search is FAISS `IndexFlatIP` over unit vectors; approximate search is an HNSW graph, or IVF on request. The
similarities of the candidates are then computed again in a fixed order and compared after rounding. So the result of a
query depends neither on its batch nor on the number of threads, and near ties are won by the lower row.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from impart.config import IndexKind
from impart.encoders.base import Float32
from impart.errors import ConfigError
from impart.files import atomic_path

__all__ = ["ANN_ABOVE", "EXACT_BELOW", "IndexInfo", "Neighbours", "PairIndex", "kind_of"]

ANN_ABOVE = 100_000
"""Largest number of rows with exact search (measured: docs/reference-sets.md)."""

EXACT_BELOW = 20_000
"""Smallest number of rows with approximate search (measured: IVF finds 99.5% of the neighbours here, 95% at half)."""

KINDS = get_args(IndexKind)
_SPARE = 8  # candidates beyond k, so that FAISS does not decide near ties at rank k
_DECIMALS = 6  # similarities that are equal after rounding are ties
_RECALL_QUERIES = 500
_CHUNK = 4096  # queries per block
_LOWEST = np.nextafter(np.float32(-1), np.float32(0))  # of an existing pair; -1 marks a missing one


@dataclass(frozen=True)
class Neighbours:
    """The K nearest pairs of B queries, most similar first.

    Attributes:
        ids: (B, K) int32 rows of the reference set; -1 = fewer than K pairs.
        sims: (B, K) float32 cosines of retrieval embeddings, above -1; -1 where `ids` is -1.
    """

    ids: npt.NDArray[np.int32]
    sims: Float32

    def __post_init__(self) -> None:
        assert self.ids.shape == self.sims.shape, (self.ids.shape, self.sims.shape)

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, kw_only=True)
class IndexInfo:
    """Kind and recall of a search index, as in the manifest.

    Attributes:
        kind: `exact`, `hnsw` or `ivf`.
        recall: share of the exact 8 nearest neighbours that the index finds, without the query's own row; 1 for exact.
        sample: rows of the set that were the queries of that measurement; 0 for exact.
        parameters: of the FAISS index.
    """

    kind: str = "exact"
    recall: float = 1.0
    sample: int = 0
    parameters: dict[str, int] | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def kind_of(asked: str, count: int) -> str:
    """Choose the kind of index for `count` rows.

    Raises:
        ConfigError: the kind is unknown.

    >>> kind_of("auto", 50_000), kind_of("ivf", 50_000), kind_of("ivf", 500), kind_of("auto", 500_000)
    ('exact', 'ivf', 'exact', 'hnsw')
    """
    if asked not in KINDS:
        raise ConfigError(f"index kind is {asked!r}: use one of {', '.join(KINDS)}")
    if count < EXACT_BELOW or (asked == "auto" and count <= ANN_ABOVE):
        return "exact"
    return "hnsw" if asked == "auto" else asked


class PairIndex:
    """Nearest-neighbour index over (N, R) unit vectors. FAISS is imported and the index built at the first search.

    Args:
        vectors: (N, R) float32, L2-normalised.
        kind: `auto` (exact up to `ANN_ABOVE` rows, HNSW above), `exact`, `hnsw` or `ivf`; exact below `EXACT_BELOW`.
        images: (N,) int32 image number of each row; None = every row has its own image.
        file: written by `write` over the same vectors; read instead of building the index again.

    Raises:
        ConfigError: the kind is unknown.
    """

    def __init__(
        self,
        vectors: Float32,
        *,
        kind: str = "auto",
        images: npt.NDArray[np.int32] | None = None,
        file: Path | None = None,
    ) -> None:
        self.kind = kind_of(kind, len(vectors))
        self._vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        self._images = images
        self._largest = int(np.bincount(images).max()) if images is not None and len(images) else 1
        self._file = file
        self._index: Any = None
        self._parameters: dict[str, int] | None = None

    def search(self, queries: Float32, k: int, *, exclude: npt.NDArray[np.int32] | None = None) -> Neighbours:
        """Search the k nearest rows of each query.

        Args:
            queries: (B, R), L2-normalised.
            k: K, neighbours per query.
            exclude: (B,) image number per query whose rows are left out, -1 = none. Leave-one-out excludes the query's
                own image with all its captions.
        """
        count, width = self._vectors.shape
        assert queries.ndim == 2, queries.shape
        assert queries.shape[1] == width or count == 0, (queries.shape, width)
        ids = np.full((len(queries), k), -1, dtype=np.int32)
        sims = np.full((len(queries), k), -1.0, dtype=np.float32)
        if count == 0:
            return Neighbours(ids, sims)
        wanted = min(count, k + _SPARE + (self._largest if exclude is not None else 0))
        kept = min(k, wanted)
        for first in range(0, len(queries), _CHUNK):
            part = slice(first, first + _CHUNK)
            rows = np.ascontiguousarray(queries[part], dtype=np.float32)
            found = self._candidates(rows, wanted)  # (b, wanted)
            exact = np.empty(found.shape, dtype=np.float32)
            for column in range(wanted):  # one gather of (b, R) at a time
                exact[:, column] = np.einsum("br,br->b", rows, self._vectors[np.maximum(found[:, column], 0)])
            exact = np.clip(exact, _LOWEST, 1.0)
            exact[found < 0] = -2.0
            if exclude is not None:
                images = self._images[found] if self._images is not None else found
                exact[images == exclude[part, None]] = -2.0
            order = np.lexsort((found, -np.round(exact, _DECIMALS)), axis=1)[:, :kept]
            best = np.take_along_axis(exact, order, axis=1)
            none = best < -1.5
            ids[part, :kept] = np.where(none, -1, np.take_along_axis(found, order, axis=1))
            sims[part, :kept] = np.where(none, -1.0, best)
        return Neighbours(ids, sims)

    def measure(self) -> IndexInfo:
        """Measure the recall of the 8 nearest against exact search; queries are rows of the set, without themselves."""
        if self.kind == "exact" or not len(self._vectors):
            return IndexInfo(kind=self.kind)
        sample = min(_RECALL_QUERIES, len(self._vectors))
        rows = np.random.default_rng(0).choice(len(self._vectors), sample, replace=False)
        queries = self._vectors[rows]
        own = rows[:, None].astype(np.int64)
        found = self._candidates(queries, 9)
        exact = PairIndex(self._vectors, kind="exact")._candidates(queries, 9)
        hits = sum(len(set(a[a != o][:8]) & set(b[b != o][:8])) for a, b, o in zip(found, exact, own, strict=True))
        return IndexInfo(
            kind=self.kind,
            recall=round(hits / (8 * sample), 4),
            sample=sample,
            parameters=self._parameters,
        )

    def write(self, path: Path) -> None:
        """Write the built index to a file, atomically: an approximate index takes long to build."""
        import faiss

        if self._index is None:
            self._index = self._load()
        with atomic_path(path) as part:
            faiss.write_index(self._index, str(part))

    def _candidates(self, queries: Float32, count: int) -> npt.NDArray[np.int64]:
        """Find row numbers (B, count), roughly ordered by similarity; -1 = none."""
        if self._index is None:
            self._index = self._load()
        found: npt.NDArray[np.int64] = self._index.search(queries, min(count, len(self._vectors)))[1]
        return found

    def _load(self) -> Any:
        """Read the index from its file, else build it: a missing or damaged file costs time only."""
        if self._file is not None and self._file.is_file():
            import faiss

            try:
                index = faiss.read_index(str(self._file))
            except RuntimeError:
                return self._build()
            if index.ntotal == len(self._vectors) and index.d == self._vectors.shape[1]:
                return index
        return self._build()

    def _build(self) -> Any:
        import faiss

        count, width = self._vectors.shape
        index: Any
        if self.kind == "exact":
            index = faiss.IndexFlatIP(width)
        elif self.kind == "hnsw":
            self._parameters = {"m": 32, "ef_construction": 80, "ef_search": 128}
            index = faiss.IndexHNSWFlat(width, 32, faiss.METRIC_INNER_PRODUCT)
            index.hnsw.efConstruction = 80
            index.hnsw.efSearch = 128
        else:
            lists = max(1, min(int(4 * np.sqrt(count)), count))  # k-means needs one row per list
            probes = max(1, lists // 16)
            self._parameters = {"lists": lists, "probes": probes}
            index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, lists, faiss.METRIC_INNER_PRODUCT)
            sample = np.random.default_rng(0).choice(count, min(count, 64 * lists), replace=False)
            index.train(self._vectors[np.sort(sample)])
            index.nprobe = probes
        index.add(self._vectors)
        return index
