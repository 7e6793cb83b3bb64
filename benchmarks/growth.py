"""Measure what an index costs as it grows: time to write, size, cold and warm search, memory, adding one clip.

    python benchmarks/growth.py --data ../shared/data --hours 10 30 100 300 --work /tmp/growth   # 20 GB of disk
    python benchmarks/growth.py --data ../shared/data --hours 10 100 --baseline ../older-checkout

The indexes are made by `million.py`: real embeddings, mixed and with noise; 13,400 segments per hour, as many as in 90
real clips of 656 s together. So decoding and encoding are not in the time to write: they cost the same per hour of
video at any size (`index_1080p.py`). Each figure is of a fresh process. A cold search is the first of a process; the
files may be in the memory of the system, and the text is encoded before. The slope is that of a line through the
points in logarithms: 1 = the cost is proportional to the hours, 0 = it does not grow.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

PER_HOUR = 13_400
QUERIES = 100
FIGURES = {
    "write_s": "write, s",
    "size_mb": "size on disk, MB",
    "cold_ms": "cold search, ms",
    "p50_ms": "search p50, ms",
    "p95_ms": "search p95, ms",
    "search_mb": "memory of a search, MB",
    "add_s": "add one clip, s",
    "add_mb": "memory of adding, MB",
}


def memory_mb() -> float:
    """Return the memory (MB) of this process that is no mapped file."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1e3


def captions(data: Path, count: int) -> list[str]:
    with gzip.open(data / "text" / "captions.txt.gz", "rt", encoding="utf-8") as file:
        lines = [line.strip() for line in file]
    return [lines[i] for i in np.random.default_rng(3).choice(len(lines), count, replace=False).tolist()]


def search(index_folder: Path, data: Path) -> dict[str, float]:
    """Measure searches in this process, which has run none before."""
    from impart.video.index.index import Query, VideoIndex

    index = VideoIndex.open(index_folder, create=False)
    queries = [Query(text=text) for text in captions(data, QUERIES + 1)]
    index.searcher.encode(queries)
    before, times = memory_mb(), []
    for query in queries:
        began = time.perf_counter()
        index.search_many([query], top=10)
        times.append(1000 * (time.perf_counter() - began))
    p50, p95 = np.percentile(times[1:], (50, 95)).tolist()
    return {"cold_ms": times[0], "p50_ms": p50, "p95_ms": p95, "search_mb": memory_mb() - before}


def add(index_folder: Path, clip: Path) -> dict[str, float]:
    """Measure adding one clip, in this process."""
    from impart.video.index.index import VideoIndex

    index = VideoIndex.open(index_folder, create=False)
    _ = index.encoder  # loaded
    before, began = memory_mb(), time.perf_counter()
    for _ in index.add([clip]):
        pass
    spent = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return {"add_s": spent, "add_mb": peak - before}


def write_clip(path: Path, seed: int) -> None:
    """Write a clip of two seconds."""
    import av

    rng = np.random.default_rng(seed)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(24))
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        image = np.kron(rng.integers(0, 255, (30, 40, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
        for number in range(48):
            frame = av.VideoFrame.from_ndarray(np.roll(image, 4 * number, axis=1), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def in_process(source: Path, *arguments: str) -> dict[str, float]:
    """Run a part of this script with the code of a checkout; return what it measured."""
    environment = os.environ | {"PYTHONPATH": str(source / "src")}
    command = [sys.executable, str(Path(__file__).resolve()), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def size_mb(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def measure(source: Path, work: Path, data: Path, hours: float) -> dict[str, float]:
    """Measure an index of some hours, with the code of a checkout."""
    folder = work / f"{hours:g} hours"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    began = time.perf_counter()
    in_process(source, "--make", str(folder / "index"), "--data", str(data), "--segments", str(int(hours * PER_HOUR)))
    found = {"write_s": time.perf_counter() - began, "size_mb": size_mb(folder / "index")}
    found |= in_process(source, "--search", str(folder / "index"), "--data", str(data))
    clip = folder / "one clip.mp4"
    write_clip(clip, int(hours))
    found |= in_process(source, "--add", str(folder / "index"), "--data", str(data), "--clip", str(clip))
    shutil.rmtree(folder)
    return found


def table(rows: dict[str, dict[float, dict[str, float]]]) -> Iterator[str]:
    """Print the figures by hours, and their slopes."""
    builds = list(rows)
    hours = sorted(rows[builds[0]])
    for build in builds:
        yield f"| {build} | " + " | ".join(f"{one:g} h" for one in hours) + " | slope |"
        yield "| --- |" + " ---: |" * (len(hours) + 1)
        for name, title in FIGURES.items():
            values = [rows[build][one][name] for one in hours]
            slope = np.polyfit(np.log(hours), np.log(np.maximum(values, 1e-3)), 1)[0] if len(hours) > 1 else np.nan
            yield f"| {title} | " + " | ".join(f"{value:.3g}" for value in values) + f" | {slope:.2f} |"
        yield ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the development data")
    parser.add_argument("--hours", type=float, nargs="+", default=[10, 30, 100])
    parser.add_argument("--baseline", type=Path, help="checkout of an older version, measured as well")
    parser.add_argument("--work", type=Path, help="folder for the indexes")
    parser.add_argument("--out", type=Path, help="markdown file to write as well")
    for part in ("make", "search", "add"):
        parser.add_argument(f"--{part}", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--segments", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--clip", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    found: Any = None
    if options.make:
        from million import make_index

        make_index(options.make, options.data, options.segments, kept=options.make.parent.parent)
        found = {}
    elif options.search:
        found = search(options.search, options.data)
    elif options.add:
        found = add(options.add, options.clip)
    if found is not None:
        print(json.dumps(found))
        return
    builds = {"this version": Path(__file__).resolve().parent.parent}
    if options.baseline:
        builds["baseline"] = options.baseline.resolve()
    rows: dict[str, dict[float, dict[str, float]]] = {build: {} for build in builds}
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        for hours in options.hours:
            for build, source in builds.items():
                rows[build][hours] = measure(source, Path(work), options.data.resolve(), hours)
                print(build, hours, rows[build][hours], file=sys.stderr, flush=True)
    text = "\n".join(table(rows))
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
