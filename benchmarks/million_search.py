"""Measure searches of a million segments, beside an older build: time, memory, and recall against exact scores.

    python benchmarks/million_search.py INDEX --data ../shared/data --baseline ../older
    python benchmarks/million_search.py INDEX --data ../shared/data --baseline ../older --form ten     # 10 M segments
    python benchmarks/million_search.py INDEX --data ../shared/data --baseline ../older --form single  # 1 M units

`benchmarks/million.py` makes the index. Queries are captions, and photographs that are not in it; their vectors are
given, so that no time of the models is contained. Both builds answer the same query one after the other, so that a busy
machine slows both. Forms other than the index itself are made of it in memory:

- `ten`: ten libraries like it. The means of parts and units of nine have noise of their own (length 0.3); their frames
  are those of the first.
- `single`: each segment is a part and a unit of its own, as photographs are.

In all forms but `real` the hubness of a frame is that of its unit, in both builds: computing it for a million frames
takes minutes.
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from impart.encoders.base import l2_normalise
from impart.video.index.index import VideoIndex
from impart.video.search import searcher as searcher_module
from impart.video.search.query import Query, SearchOptions
from impart.video.search.snapshot import Snapshot
from impart.video.search.spans.moments import Parts, Units
from impart.video.search.state.derived import Derived

KINDS = {
    "text, by moment": ("text", {}),
    "text, group moment": ("text", {"group": "moment"}),
    "text, group frame": ("text", {"group": "frame"}),
    "image, by moment": ("image", {}),
    "image, group moment": ("image", {"group": "moment"}),
    "image, group frame": ("image", {"group": "frame"}),
}
COPIES, NOISE = 10, 0.3
IN_INDEX = 4000  # photographs
BATCH = 16
BLOCK = 20_000  # rows encoded at once


class Tiled:
    """An array (n, ...) repeated: row i is row i modulo n."""

    def __init__(self, array: Any, times: int) -> None:
        self._array, self.shape, self.dtype = array, (len(array) * times, *array.shape[1:]), array.dtype

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, rows: Any) -> Any:
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)))
        return self._array[rows % len(self._array)]


class Made(Derived):
    """Arrays derived from a snapshot that was made here; means and hubness are given."""

    def __init__(self, snapshot: Snapshot, parts: Parts, means: Any, units: Units, hubness: Any) -> None:
        super().__init__(snapshot)
        self.__dict__["parts"] = parts
        self._own_means, self._own_units, self._own_hubness = means, units, hubness

    def group_means(self, groups: Any, *, kind: Any = None) -> Any:
        return self._own_means if kind == "part" else super().group_means(groups, kind=kind)

    def units(self, groups: Any) -> Any:  # noqa: ARG002
        return self._own_units

    def coarse(self, groups: Any, bank: Any, *, kind: Any) -> Any:
        if groups.options.exact or (groups.encoder is None) != (self.snapshot.blend is None):
            return None
        if kind not in self.__dict__:
            from impart.retrieval.coarse import Codes  # an older build has no codes
            from impart.video.search.scoring import frame_vectors
            from impart.video.search.state.codes import fit_basis

            if "basis" not in self.__dict__:
                self.__dict__["basis"] = fit_basis(self.snapshot, groups.encoder, bank)
            basis = self.__dict__["basis"]
            count = len(self._own_units.means) if kind == "unit" else len(self.snapshot)
            blocks = []
            for first in range(0, count, BLOCK):
                rows = slice(first, min(first + BLOCK, count))
                own = kind == "unit"
                vectors = self._own_units.means[rows] if own else frame_vectors(self.snapshot, groups.encoder, rows)
                blocks.append(basis.encode(vectors))
            self.__dict__[kind] = Codes(basis=basis, blocks=(np.concatenate(blocks),))
        return self.__dict__[kind]

    def hubness(self, bank: Any, groups: Any, *, kind: Any = None) -> Any:  # noqa: ARG002
        if kind == "unit" or (kind is None and groups.options.ranked_by == "moment"):
            return self._own_hubness
        if "frames" not in self.__dict__:
            segments = np.diff(self.parts.bounds)
            self.__dict__["frames"] = np.repeat(self._own_hubness[self._own_units.of_part], segments)
        return self.__dict__["frames"]


def made(index: VideoIndex, form: str, work: Path) -> Made:
    """Make the index in memory that a form describes."""
    derived = index.searcher.state.current()
    bank = index.searcher.state.bank_of(index.encoder.base)  # type: ignore[attr-defined]
    groups = index.searcher._groups(derived, SearchOptions(top=1, group="video", by="moment"))
    means, units = np.asarray(derived.group_means(groups, kind="part")), derived.units(groups)
    hubness = np.asarray(derived.hubness(bank, groups, kind="unit"))  # type: ignore[arg-type]
    units = Units(offsets=units.offsets, of_part=units.of_part, means=np.asarray(units.means))
    if form == "index":
        return Made(derived.snapshot, derived.parts, means, units, hubness)
    if form == "ten":
        return ten(derived, means, units, hubness)
    return single(derived, groups, bank, work)


def ten(derived: Derived, means: Any, units: Units, hubness: Any) -> Made:
    """Repeat a library ten times."""
    snapshot, parts = derived.snapshot, derived.parts
    noise = np.random.default_rng(3)

    def repeated(vectors: Any) -> Any:
        result = np.empty((COPIES, *vectors.shape), np.float32)
        for copy in range(COPIES):
            length = NOISE / np.sqrt(vectors.shape[1]) * (copy > 0)
            result[copy] = l2_normalise(vectors + length * noise.standard_normal(vectors.shape, np.float32))
        return result.reshape(-1, vectors.shape[1])

    def tile(array: Any) -> Any:
        return Tiled(array, COPIES)

    def shifted(starts: Any, count: int) -> Any:
        return np.concatenate([starts + copy * count for copy in range(COPIES)])

    n, times = len(snapshot), np.tile
    blend: Any = snapshot.blend
    tiled = None
    if blend is not None:
        tiled = dataclasses.replace(
            blend, **{name: tile(getattr(blend, name)) for name in ("ids", "img", "txt", "norm")}
        )
    retrieval = tile(snapshot.retrieval)
    nowhere: dict[str, Any] = {"origin": None} if hasattr(snapshot, "origin") else {}  # an older build has no shards
    start_s, end_s = times(snapshot.start_s, COPIES), times(snapshot.end_s, COPIES)
    large = dataclasses.replace(
        snapshot,
        video_ids=tuple(f"{copy}{one}" for copy in range(COPIES) for one in snapshot.video_ids),
        revisions=tuple(f"{copy}{one}" for copy in range(COPIES) for one in snapshot.revisions),
        paths=tuple(Path(f"/{copy}{one}") for copy in range(COPIES) for one in snapshot.paths),
        kinds=snapshot.kinds * COPIES,
        offsets=np.append(shifted(snapshot.offsets[:-1], n), n * COPIES),
        scenes=shifted(snapshot.scenes, n),
        start_s=start_s,
        end_s=end_s,
        weight=tile(snapshot.weight),
        vectors=tile(snapshot.vectors),
        blend=tiled,
        scene_start_s=times(snapshot.scene_start_s, COPIES),
        scene_end_s=times(snapshot.scene_end_s, COPIES),
        durations_s=times(snapshot.durations_s, COPIES),
        recorded_at=times(snapshot.recorded_at, COPIES),
        modified_at=times(snapshot.modified_at, COPIES),
        read_retrieval=lambda: retrieval,
        **nowhere,
    )
    count, of_units = len(parts), len(units.means)
    large_parts = Parts(
        bounds=np.append(shifted(parts.bounds[:-1], n), n * COPIES),
        offsets=np.append(shifted(parts.offsets[:-1], count), count * COPIES),
        scene_of=shifted(parts.scene_of, len(snapshot.scenes)),
        scenes=np.append(large.scenes, n * COPIES),
        start_s=start_s,
        end_s=end_s,
    )
    large_units = Units(
        offsets=np.append(shifted(units.offsets[:-1], of_units), of_units * COPIES),
        of_part=shifted(units.of_part, of_units),
        means=repeated(units.means),
    )
    return Made(large, large_parts, repeated(means), large_units, times(hubness, COPIES))


def single(derived: Derived, groups: Any, bank: Any, work: Path) -> Made:
    """Make each segment a scene, a part and a unit of its own."""
    from impart.video.search.scoring import frame_vectors

    snapshot, n = derived.snapshot, len(derived.snapshot)
    file = work / "frames.npy"
    if not file.is_file():
        vectors = np.lib.format.open_memmap(file, "w+", np.float32, (n, snapshot.vectors.shape[1]))
        hubness = np.empty(n, np.float32)
        for first in range(0, n, 20_000):
            part = slice(first, first + 20_000)
            vectors[part] = frame_vectors(snapshot, groups.encoder, part)
            hubness[part] = bank.hubness(vectors[part])
        vectors.flush()
        np.save(work / "hubness.npy", hubness)
    vectors, hubness = np.load(file, mmap_mode="r").view(np.ndarray), np.load(work / "hubness.npy")
    every = np.arange(n)
    nowhere: dict[str, Any] = {"origin": None} if hasattr(snapshot, "origin") else {}
    large = dataclasses.replace(
        snapshot, scenes=every, scene_start_s=snapshot.start_s, scene_end_s=snapshot.end_s, **nowhere
    )
    parts = Parts(
        bounds=np.arange(n + 1),
        offsets=snapshot.offsets,
        scene_of=every,
        scenes=np.arange(n + 1),
        start_s=snapshot.start_s,
        end_s=snapshot.end_s,
    )
    return Made(large, parts, vectors, Units(offsets=snapshot.offsets, of_part=every, means=vectors), hubness)


def heap_mb() -> float:
    """Read the memory (MB) of this process that no file backs."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 1024


def work_as_worker(index_path: Path, queries: Path, form: str, work: Path) -> None:
    """Answer commands: one line of JSON each."""
    with np.load(queries) as stored:
        vectors = {name: stored[name] for name in ("text", "image")}
    searcher: Any = searcher_module
    searcher.query_vectors = lambda parts, *_, **__: np.stack(
        [vectors["image" if part.image is not None else "text"][int(str(part.image or part.text))] for part in parts]
    )
    searcher.with_exact_bounds = lambda hit, _: hit  # no file of the index exists
    index = VideoIndex.open(index_path)
    index.encoder.encode_texts(["a dog"])
    before = highest = heap_mb()
    stop = threading.Event()

    def watch() -> None:
        nonlocal highest
        while not stop.wait(0.004):
            highest = max(highest, heap_mb())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    began = time.perf_counter(), time.process_time()
    if form == "real":
        index.search_many([Query(text="0")])
    else:
        state = index.searcher.state
        large = made(index, form, work)
        for name in ("current", "known", "last"):
            setattr(state, name, lambda: large)
        index.search_many([Query(text="0")])
    first = time.perf_counter() - began[0], time.process_time() - began[1]
    for number in range(1, 12):
        index.search_many([Query(text=str(number))])
    stop.set()
    watcher.join()
    print(json.dumps({"first": first, "heap_mb": heap_mb() - before, "peak_mb": highest - before}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        names = [str(number) for number in asked["numbers"]]
        made_queries = [Query(text=name) if asked["of"] == "text" else Query(image=name) for name in names]
        began = time.perf_counter(), time.process_time()
        found = index.search_many(made_queries, **asked["options"])
        took = time.perf_counter() - began[0], time.process_time() - began[1]
        hits = [[(str(hit.path), hit.start_s, hit.end_s, round(hit.score, 5)) for hit in one] for one in found]
        print(json.dumps({"took": took, "hits": hits}), flush=True)


class Worker:
    """A process that searches with one build."""

    def __init__(self, checkout: Path, index: Path, arguments: argparse.Namespace, queries: Path, work: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(checkout / "src"), "OPENBLAS_NUM_THREADS": "1"}
        command = [sys.executable, __file__, str(index), "--worker", str(queries), "--form", arguments.form]
        self._process = subprocess.Popen(
            [*command, "--work", str(work)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.first = self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def ask(self, of: str, numbers: list[int], options: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"of": of, "numbers": numbers, "options": options}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


def encode_queries(index: Path, data: Path, count: int, path: Path) -> None:
    """Write the vectors of captions, and of photographs that are not in the index."""
    from impart.images import load_image
    from million import photos

    encoder = VideoIndex.open(index).encoder
    with gzip.open(data / "text" / "captions.txt.gz", "rt") as file:
        captions = file.read().splitlines()
    chosen = np.random.default_rng(4).permutation(len(captions))[:count].tolist()
    files = photos(data, IN_INDEX + count)[IN_INDEX:]
    images = [encoder.encode_images([load_image(file)[0]]).embeddings for file in files]
    np.savez(path, text=encoder.encode_texts([captions[i] for i in chosen]), image=np.concatenate(images))


def recall(found: list[Any], exact: list[Any], group: str) -> float:
    """Compute which share of the exact hits was found."""
    width = 1 if group == "video" else 2
    wanted = {tuple(hit[:width]) for hit in exact}
    return len(wanted & {tuple(hit[:width]) for hit in found}) / max(1, len(wanted))


def rows(arguments: argparse.Namespace, queries: Path, work: Path) -> Iterator[str]:
    """Measure, and yield the lines of the tables."""
    new = Worker(Path(__file__).parent.parent, arguments.index, arguments, queries, work)
    old = None
    if arguments.baseline:
        old = Worker(arguments.baseline, arguments.baseline_index or arguments.index, arguments, queries, work)
    for name, worker in (("this build", new), ("baseline", old)):
        if worker is not None:
            one = worker.first
            yield (
                f"{name}: first search {one['first'][0]:.2f} s (CPU {one['first'][1]:.2f} s), "
                f"heap {one['heap_mb']:.0f} MB, at most {one['peak_mb']:.0f} MB"
            )
    yield ""
    yield "| query | p50 ms | p95 ms | CPU ms | baseline p50 | p95 | CPU | ratio of CPU | recall@10 | same hits |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    for name, (of, options) in KINDS.items():
        if arguments.only and arguments.only not in name:
            continue
        times: dict[str, list[Any]] = {"new": [], "old": []}
        recalls, same = [], []
        for number in range(arguments.queries):
            got = new.ask(of, [number], options)
            exact = new.ask(of, [number], {**options, "exact": True})["hits"][0]
            recalls.append(recall(got["hits"][0], exact, str(options.get("group", "video"))))
            before = None if old is None else old.ask(of, [number], options)
            if number >= 3:
                times["new"].append(got["took"])
                if before is not None:
                    times["old"].append(before["took"])
            same.append(got["hits"][0] == (exact if before is None else before["hits"][0]))
        mine, theirs = (1000 * np.array(times[one] or [[np.nan] * 2]) for one in ("new", "old"))
        cells = [*np.percentile(mine[:, 0], [50, 95]), np.median(mine[:, 1])]
        cells += [*np.percentile(theirs[:, 0], [50, 95]), np.median(theirs[:, 1])]
        numbers = " | ".join(f"{one:.1f}" for one in cells)
        yield (f"| {name} | {numbers} | 1/{cells[5] / cells[2]:.1f} | {np.mean(recalls):.4f} | {np.mean(same):.2f} |")
    batch = [
        [one.ask("text", list(range(first, first + BATCH)), {})["took"] for first in range(0, 3 * BATCH, BATCH)]
        for one in (new, old)
        if one is not None
    ]
    each = [f"{1000 * np.median(np.array(one)[:, 1]) / BATCH:.1f} ms" for one in batch]
    yield f"\nCPU per search of {BATCH} texts at once, this build and baseline: {', '.join(each)}"
    new.end()
    if old is not None:
        old.end()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path, help="made by benchmarks/million.py; it is only read")
    parser.add_argument("--data", type=Path, help="folder of the development data")
    parser.add_argument("--baseline", type=Path, help="checkout of the build to compare with")
    parser.add_argument("--baseline-index", type=Path, help="the same index, with the cache of that build")
    parser.add_argument(
        "--form", choices=["real", "index", "ten", "single"], default="index", help="real: its own state"
    )
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--only", help="part of the names of the queries that are measured")
    parser.add_argument("--work", type=Path, help="folder for temporary files")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker is not None:
        work_as_worker(arguments.index, arguments.worker, arguments.form, arguments.work)
        return
    with tempfile.TemporaryDirectory() as folder:
        work = arguments.work or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        queries = work / "queries.npz"
        if not queries.is_file():
            encode_queries(arguments.index, arguments.data, max(arguments.queries, 3 * BATCH), queries)
        for row in rows(arguments, queries, work):
            print(row, flush=True)


if __name__ == "__main__":
    main()
