"""Search the nearest references: exact up to `ANN_ABOVE` rows, approximate above, with measured recall.

Fewer than `EXACT_BELOW` rows are searched exactly, whatever kind is asked for.

Exact search is FAISS `IndexFlatIP` over unit vectors; approximate search has inverted lists of codes
(`impart.retrieval.compressed`), or an HNSW graph or plain IVF on request, which keep all vectors as float32. The
similarities of the candidates are then computed again in a fixed order and compared after rounding. So the result of a
query depends neither on its batch nor on the number of threads, and near ties are won by the lower row.

FAISS searches on the calling thread: its own threads spin, which takes the cores of the encoder.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import Any, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from impart.config import IndexKind
from impart.encoders.base import Float32
from impart.errors import ConfigError
from impart.files import atomic_path
from impart.retrieval.compressed import build_codes, candidates
from impart.retrieval.rows import StoredRows, blocks
from impart.retrieval.threads import in_pieces, one_faiss_thread

__all__ = ["ANN_ABOVE", "EXACT_BELOW", "IndexInfo", "Neighbours", "PairIndex", "kind_of"]

ANN_ABOVE = 100_000
"""Largest number of rows with exact search (measured: docs/reference-sets.md)."""

EXACT_BELOW = 20_000
"""Smallest number of rows with approximate search (measured: IVF finds 99.5% of the neighbours here, 95% at half)."""

KINDS = get_args(IndexKind)
_SPARE = 8  # candidates beyond k, so that FAISS does not decide near ties at rank k
_DECIMALS = 6  # similarities that are equal after rounding are ties
_RECALL_QUERIES = 500
_PIECE = 1024  # queries of one thread
_GATHERED = 128  # queries whose candidates are gathered at once
_LOWEST = np.nextafter(np.float32(-1), np.float32(0))  # of an existing pair; -1 marks a missing one


ImageNumbers: TypeAlias = npt.NDArray[np.int32]


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
        kind: `exact`, `ivfpq`, `hnsw` or `ivf`.
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
    ('exact', 'ivf', 'exact', 'ivfpq')
    """
    if asked not in KINDS:
        raise ConfigError(f"index kind is {asked!r}: use one of {', '.join(KINDS)}")
    if count < EXACT_BELOW or (asked == "auto" and count <= ANN_ABOVE):
        return "exact"
    return "ivfpq" if asked == "auto" else asked


class PairIndex:
    """Nearest-neighbour index over (N, R) unit vectors. FAISS is imported and the index built at the first search.

    Vectors that stay on disk (`StoredRows`) are read in blocks; the rows of the candidates are gathered.

    Args:
        vectors: (N, R) float32, L2-normalised, or such rows on disk.
        kind: `auto` (exact up to `ANN_ABOVE` rows, IVF-PQ above), `exact`, `ivfpq`, `hnsw` or `ivf`; exact
            below `EXACT_BELOW`.
        images: (N,) int32 image number of each row, or a function that returns them; None = each row has its own image.
        file: written by `write` over the same vectors; read instead of building the index again.

    Raises:
        ConfigError: the kind is unknown.
    """

    def __init__(
        self,
        vectors: Float32 | StoredRows,
        *,
        kind: str = "auto",
        images: ImageNumbers | Callable[[], ImageNumbers] | None = None,
        file: Path | None = None,
    ) -> None:
        self.kind = kind_of(kind, len(vectors))
        self._vectors = vectors if isinstance(vectors, StoredRows) else np.ascontiguousarray(vectors, dtype=np.float32)
        self._images = images
        self._file = file
        self._lock = Lock()
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
        images = self._image_numbers() if exclude is not None else None
        largest = 0 if exclude is None else int(np.bincount(images).max()) if images is not None else 1
        wanted = min(count, k + _SPARE + largest)
        kept = min(k, wanted)

        def search(part: slice) -> None:
            rows = np.ascontiguousarray(queries[part], dtype=np.float32)
            found = self._candidates(rows, wanted)  # (b, C), C of at least `wanted`
            exact = self._similarities(rows, found)
            exact[found < 0] = -2.0
            if exclude is not None:
                exact[(images[found] if images is not None else found) == exclude[part, None]] = -2.0
            order = np.lexsort((found, -np.round(exact, _DECIMALS)), axis=1)[:, :kept]
            best = np.take_along_axis(exact, order, axis=1)
            none = best < -1.5
            ids[part, :kept] = np.where(none, -1, np.take_along_axis(found, order, axis=1))
            sims[part, :kept] = np.where(none, -1.0, best)

        self._ready()  # before threads ask for it
        in_pieces(len(queries), search, rows=_PIECE)
        return Neighbours(ids, sims)

    def measure(self) -> IndexInfo:
        """Measure the recall of the 8 nearest against exact search; queries are rows of the set, without themselves."""
        if self.kind == "exact" or not len(self._vectors):
            return IndexInfo(kind=self.kind)
        sample = min(_RECALL_QUERIES, len(self._vectors))
        rows = np.random.default_rng(0).choice(len(self._vectors), sample, replace=False)
        queries = self._vectors[rows]
        own = rows[:, None].astype(np.int64)
        found = self._nearest(queries, 9)
        exact = PairIndex(self._vectors, kind="exact")._nearest(queries, 9)
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

        self._ready()
        with atomic_path(path) as part:
            faiss.write_index(self._index, str(part))

    def _image_numbers(self) -> ImageNumbers | None:
        if callable(self._images):
            self._images = self._images()
        return self._images

    def _similarities(self, rows: Float32, found: npt.NDArray[np.int64]) -> Float32:
        """Compute the cosines (b, C) of b queries with their candidates, in a fixed order."""
        exact = np.empty(found.shape, dtype=np.float32)
        numbers = np.maximum(found, 0)
        if isinstance(self._vectors, StoredRows):  # sorting the numbers of all candidates at once is faster
            for first in range(0, len(rows), _GATHERED):
                part = slice(first, first + _GATHERED)
                exact[part] = np.einsum("br,bcr->bc", rows[part], self._vectors[numbers[part]])
        else:
            taken = np.empty_like(rows)
            for column in range(found.shape[1]):  # one gather of (b, R) at a time
                np.take(self._vectors, numbers[:, column], axis=0, out=taken, mode="clip")
                exact[:, column] = np.einsum("br,br->b", rows, taken)
        return np.clip(exact, _LOWEST, 1.0)

    def _nearest(self, queries: Float32, count: int) -> npt.NDArray[np.int64]:
        """Find the `count` best row numbers (B, count) by the index, and for codes by the vectors."""
        self._ready()
        found = self._candidates(queries, count)
        if found.shape[1] == count:
            return found
        order = np.argsort(-self._similarities(queries, found), axis=1, kind="stable")[:, :count]
        return np.take_along_axis(found, order, axis=1)

    def _candidates(self, queries: Float32, count: int) -> npt.NDArray[np.int64]:
        """Find row numbers (B, C), roughly ordered by similarity; -1 = none. C is `count`, more for codes."""
        count = min(count, len(self._vectors))
        if self._index is None:
            return self._of_all(queries, count)
        if self.kind == "ivfpq":
            count = min(len(self._vectors), candidates(count))
        with one_faiss_thread():
            found: npt.NDArray[np.int64] = self._index.search(queries, count)[1]
        return found

    def _of_all(self, queries: Float32, count: int) -> npt.NDArray[np.int64]:
        """Find the `count` best rows (B, count) by reading all blocks: exact, for rows that stay on disk."""
        best = np.full((len(queries), count), -np.inf, np.float32)
        found = np.full((len(queries), count), -1, np.int64)
        for first, part in blocks(self._vectors):
            sims = queries @ part.T  # (B, n)
            taken = min(count, sims.shape[1])
            columns = np.argpartition(-sims, taken - 1, axis=1)[:, :taken]
            best = np.concatenate([best, np.take_along_axis(sims, columns, axis=1)], axis=1)
            found = np.concatenate([found, columns + first], axis=1)
            order = np.argsort(-best, axis=1, kind="stable")[:, :count]
            best = np.take_along_axis(best, order, axis=1)
            found = np.take_along_axis(found, order, axis=1)
        return found

    def _ready(self) -> None:
        """Read the index from its file, else build it: a missing or damaged file costs time only."""
        on_disk = isinstance(self._vectors, StoredRows)
        if self._index is not None or (self.kind == "exact" and on_disk):  # these are read again at each search
            return
        with self._lock:
            if self._index is None:
                self._index = self._stored() or self._build()
                if isinstance(self._vectors, StoredRows):
                    self._vectors.prefetch()

    def _stored(self) -> Any:
        """Read the index from its file; None where it is missing, damaged or another one."""
        if self._file is None or not self._file.is_file():
            return None
        import faiss

        try:
            index = faiss.read_index(str(self._file))
        except RuntimeError:
            return None
        return index if (index.ntotal, index.d) == self._vectors.shape else None

    def _build(self) -> Any:
        import faiss

        count, width = self._vectors.shape
        index: Any
        if self.kind == "ivfpq":
            index, self._parameters = build_codes(self._vectors)
            return index
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
        # An HNSW graph depends on how rows are added: all at once where they are in memory.
        for _, part in blocks(self._vectors) if isinstance(self._vectors, StoredRows) else [(0, self._vectors)]:
            index.add(part)
        return index
