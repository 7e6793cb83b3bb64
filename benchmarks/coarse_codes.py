"""Compare coarse codes for the first step of a search: time, bytes, and recall for texts and images apart.

    python benchmarks/coarse_codes.py INDEX --data ../shared/data --items units
    python benchmarks/coarse_codes.py INDEX --data ../shared/data --items frames

`benchmarks/million.py` makes the index. Each code gives candidates, which are scored exactly; the table has the recall
of the 10 best after 50 and 200 candidates. The score is t.m - h for texts (h is the hubness), t.m for images. Codes
that cannot subtract h have it as one more number of the vector. Times are CPU time of one thread, per query, for the
candidates alone. No code is told anything about the queries that are measured; captions that come with the model are
known to the basis, and serve as examples of texts.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from impart.encoders.base import Float32
from impart.retrieval import coarse
from impart.retrieval.coarse import Basis
from impart.video.index.index import VideoIndex
from million_search import encode_queries, made

CANDIDATES = (50, 200)
QUERIES, TIMED = 200, 25
Search = Callable[[Float32, bool, int], Any]
"""Returns the numbers (count,) of the candidates of a query (D,) that is a text or not."""


@dataclass
class Items:
    """Vectors (n, D) with their hubness (n,), and captions that come with the model."""

    vectors: Float32
    hubness: Float32
    captions: Float32

    def exact(self, query: Float32, *, text: bool, rows: Any = slice(None)) -> Float32:
        scores: Float32 = self.vectors[rows] @ query
        return scores - self.hubness[rows] if text else scores

    @property
    def widened(self) -> Float32:
        """The vectors with the hubness as one more number."""
        return np.concatenate([self.vectors, self.hubness[:, None]], axis=1)


def best(scores: Float32, count: int) -> Any:
    return np.argpartition(-scores, min(count, len(scores) - 1))[:count]


def plain(items: Items) -> tuple[float, Search]:
    return 4 * items.vectors.shape[1], lambda query, text, count: best(items.exact(query, text=text), count)


def projected(items: Items, width: int, *, texts: bool = True, float32: bool = False) -> tuple[float, Search]:
    """The codes of the package, with a given width."""
    sample = items.vectors[:: max(1, len(items.vectors) // 20_000)]
    widths, coarse._WIDTHS = coarse._WIDTHS, (width, width)
    basis = Basis.fit(np.ascontiguousarray(sample), items.captions if texts else None)
    coarse._WIDTHS = widths
    if float32:
        rows = ((items.vectors - basis.mean) @ basis.of_item).astype(np.float32)

        def search(query: Float32, text: bool, count: int) -> Any:
            scores = rows @ (query @ basis.of_query)
            return best(scores - items.hubness if text else scores, count)

        return 4 * basis.width, search
    codes = basis.encode(items.vectors)

    def estimated(query: Float32, text: bool, count: int) -> Any:
        scores = basis.scores(query[None], codes)[0]
        return best(scores - items.hubness if text else scores, count)

    return basis.width, estimated


def signs(items: Items) -> tuple[float, Search]:
    """Signs of all numbers without their mean, compared by the count of equal ones."""
    mean = items.vectors.mean(axis=0)
    index = faiss.IndexBinaryFlat(items.vectors.shape[1])
    index.add(np.packbits(items.vectors > mean, axis=1))

    def search(query: Float32, text: bool, count: int) -> Any:  # noqa: ARG001  has no place for the hubness
        return index.search(np.packbits(query[None] > query.mean(), axis=1), count)[1][0]

    return items.vectors.shape[1] / 8, search


def of_faiss(items: Items, description: str, **settings: float) -> tuple[float, Search]:
    """An index of FAISS by its description."""
    vectors = items.widened
    width = vectors.shape[1]
    index = faiss.index_factory(width, description, faiss.METRIC_INNER_PRODUCT)
    rng = np.random.default_rng(0)
    index.train(vectors[np.sort(rng.choice(len(vectors), min(len(vectors), 60_000), replace=False))])
    index.add(vectors)
    for name, value in settings.items():
        faiss.ParameterSpace().set_index_parameter(index, name, value)
    size = len(faiss.serialize_index(index)) / len(vectors)

    def search(query: Float32, text: bool, count: int) -> Any:
        found = index.search(np.append(query, -1 if text else 0).astype(np.float32)[None], count)[1][0]
        return found[found >= 0]

    return size, search


def of_lance(items: Items, kind: str, folder: Path) -> tuple[float, Search]:
    """An index of LanceDB; it searches by inner product."""
    import lancedb
    import pyarrow as pa

    vectors = items.widened
    width = vectors.shape[1]
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), width)
    table = lancedb.connect(folder / kind).create_table("t", pa.table({"n": np.arange(len(vectors)), "vector": column}))
    table.create_index(metric="dot", index_type=kind, num_partitions=max(1, int(len(vectors) ** 0.5) // 4))

    def search(query: Float32, text: bool, count: int) -> Any:
        asked = np.append(query, -1 if text else 0).astype(np.float32)
        return table.search(asked).nprobes(20).limit(count).select(["n"]).to_arrow()["n"].to_numpy()

    files = (path.stat().st_size for path in (folder / kind).rglob("*") if path.is_file() and "_indices" in path.parts)
    return sum(files) / len(vectors), search


def codes(items: Items, folder: Path) -> Iterator[tuple[str, Callable[[], tuple[float, Search]]]]:
    """Name the codes, and how each is made."""
    lists = 4 * int(len(items.vectors) ** 0.5)
    few = len(items.vectors) < 100_000
    yield "all numbers, float32", lambda: plain(items)
    for width in (32, 64, 96, 128, 192):
        yield f"basis of texts and items, {width} bytes", partial(projected, items, width)
    yield "principal components, 64 bytes", lambda: projected(items, 64, texts=False)
    yield "principal components, 128 bytes", lambda: projected(items, 128, texts=False)
    yield "basis of texts and items, 64 float32", lambda: projected(items, 64, float32=True)
    yield "signs", lambda: signs(items)
    yield "FAISS SQ8", lambda: of_faiss(items, "SQ8")
    yield "FAISS RaBitQ", lambda: of_faiss(items, "RaBitQ")
    yield "FAISS RaBitQ fast scan", lambda: of_faiss(items, "RaBitQfs")
    yield "FAISS OPQ96, PQ96 fast scan", lambda: of_faiss(items, "OPQ96_192,PQ96x4fs")
    yield f"FAISS IVF{lists}, RaBitQ", lambda: of_faiss(items, f"IVF{lists},RaBitQ", nprobe=lists // 16)
    yield f"FAISS IVF{lists}, SQ8", lambda: of_faiss(items, f"IVF{lists},SQ8", nprobe=lists // 16)
    if few:  # of a million, building takes more than ten minutes
        yield "FAISS IVF, HNSW, SQ8", lambda: of_faiss(items, f"IVF{lists}_HNSW32,SQ8", nprobe=lists // 16)
        yield "FAISS HNSW32, SQ8", lambda: of_faiss(items, "HNSW32,SQ8", efSearch=256)
        yield "LanceDB IVF_RQ", lambda: of_lance(items, "IVF_RQ", folder)
        yield "LanceDB IVF_HNSW_SQ", lambda: of_lance(items, "IVF_HNSW_SQ", folder)


def measure(items: Items, queries: dict[str, Float32], folder: Path) -> Iterator[str]:
    """Yield the lines of the table."""
    exact = {
        name: [set(best(items.exact(query, text=name == "text"), 10).tolist()) for query in vectors]
        for name, vectors in queries.items()
    }
    heads = [f"{name} @{count}" for name in queries for count in CANDIDATES]
    yield f"| code | bytes | build s | ms | {' | '.join(heads)} |"
    yield "| --- | --- | --- | --- |" + " --- |" * len(heads)
    for label, make in codes(items, folder):
        began = time.process_time()
        try:
            size, search = make()
        except (RuntimeError, ValueError) as error:
            yield f"| {label} | not made: {str(error).splitlines()[0][:80]} |"
            continue
        built = time.process_time() - began
        search(queries["text"][0], True, CANDIDATES[-1])
        times = []
        for query in queries["text"][:TIMED]:
            began = time.process_time()
            search(query, True, CANDIDATES[-1])
            times.append(time.process_time() - began)
        cells = []
        for name, vectors in queries.items():
            for count in CANDIDATES:
                shares = []
                for number, query in enumerate(vectors):
                    text = name == "text"
                    rows = np.asarray(search(query, text, count))
                    scores = items.exact(query, text=text, rows=rows)
                    found = rows[np.argsort(-scores)[:10]]
                    shares.append(len(exact[name][number] & set(found.tolist())) / 10)
                cells.append(f"{np.mean(shares):.3f}")
        yield f"| {label} | {size:.0f} | {built:.1f} | {1000 * np.median(times):.2f} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path, help="made by benchmarks/million.py; it is only read")
    parser.add_argument("--data", type=Path, required=True, help="folder of the development data")
    parser.add_argument("--items", choices=["units", "frames"], default="units")
    parser.add_argument("--queries", type=int, default=QUERIES)
    parser.add_argument("--work", type=Path, help="folder for temporary files")
    arguments = parser.parse_args()
    faiss.omp_set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        work = arguments.work or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        stored = work / "queries.npz"
        if not stored.is_file():
            encode_queries(arguments.index, arguments.data, arguments.queries, stored)
        with np.load(stored) as read:
            queries = {name: read[name][: arguments.queries] for name in ("text", "image")}
        index = VideoIndex.open(arguments.index)
        large: Any = made(index, "single" if arguments.items == "frames" else "index", work)
        bank = index.searcher.state.bank
        assert bank is not None
        items = Items(large._own_units.means, large._own_hubness, bank.captions)
        print(f"{len(items.vectors)} {arguments.items}, {len(queries['text'])} queries of each kind")
        for row in measure(items, queries, Path(folder)):
            print(row, flush=True)


if __name__ == "__main__":
    main()
