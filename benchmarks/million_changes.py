"""Time changes of a large index beside another build: a clip that is added, a first search, another reference set.

    python benchmarks/million_changes.py /tmp/million/index --baseline ../parent [--repeats 5]

The index is one with the bundled model, such as a million segments with noise; it is not changed. Each build has a copy
of its own with hard links to the tables. Each measurement is a process of its own, and the builds take turns. Of a
clip, two times are reported: of the whole process, and of `VideoIndex.add` after libraries and model are loaded. Of a
search by moment, the time begins when the text model is loaded. CPU seconds tell more than others on a shared machine.

Memory is the highest resident size (files that are mapped included), and the highest size without such files.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

WORKER = '''
import json, resource, sys, threading, time
peak, over = [0], threading.Event()

def watch():
    """Sample the memory without mapped files."""
    while not over.is_set():
        with open("/proc/self/status") as status:
            peak[0] = max([peak[0], *(int(line.split()[1]) for line in status if line.startswith("RssAnon"))])
        over.wait(0.005)

threading.Thread(target=watch, daemon=True).start()
what, index, *rest = sys.argv[1:]
from impart.video.index.index import Query, VideoIndex
opened = VideoIndex.open(index)
encoder = opened.encoder
if what == "cold":
    opened.searcher.encode([Query(text="a dog on a skateboard")])
    work = lambda: opened.search(text="a dog on a skateboard")
elif what == "add":
    import av, lancedb, pyarrow.dataset
    import numpy as np
    import impart.video.decode.decoder, impart.video.index.indexer
    getattr(encoder, "base", encoder).encode_images([np.zeros((224, 224, 3), np.uint8)])  # loads the model
    work = lambda: list(opened.add(rest))
elif what == "none":
    work = lambda: opened.use_references(None)
else:
    from impart import load_encoder
    from impart.blending.encoder import default_augmented
    bundled = default_augmented(load_encoder("mini"))
    work = lambda: opened.use_references(bundled.references, bundled.blender.settings)
before_rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
began, cpu = time.perf_counter(), time.process_time()
found = work()
took, cpu = time.perf_counter() - began, time.process_time() - cpu
warm = []
if what == "cold":
    for text in ("a red car", "a man plays guitar", "waves on a beach", "two cats", "a dog on a skateboard"):
        opened.searcher.encode([Query(text=text)])
        again = time.perf_counter()
        opened.search(text=text)
        warm.append(time.perf_counter() - again)
over.set()
print(json.dumps({
    "wall_s": took, "cpu_s": cpu, "anonymous_mb": peak[0] / 1e3, "loaded_mb": before_rss / 1e3,
    "resident_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    "warm_ms": 1e3 * min(warm) if warm else 0.0,
    "hits": [[str(hit.path), hit.start_s, hit.score] for hit in found] if what == "cold" else [],
}))
'''
SEED = 0


def linked(index: Path, copy: Path) -> None:
    """Copy an index without its cache; files of tables, which are never changed, by hard links where possible."""

    def link(source: str, target: str) -> None:
        try:
            os.link(source, target)
        except OSError:
            shutil.copy2(source, target)

    for path in index.iterdir():
        if path.suffix == ".lance":
            shutil.copytree(path, copy / path.name, copy_function=link)
        elif path.is_dir() and path.name != "cache":
            shutil.copytree(path, copy / path.name)
        elif path.is_file() and path.name != ".lock":
            shutil.copy2(path, copy / path.name)


def clips(folder: Path) -> Iterator[Path]:
    """Write clips of two seconds that all differ."""
    rng = np.random.default_rng(SEED)
    number = 0
    while True:
        path = folder / f"clip {number:03d}.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
            image = rng.integers(0, 255, (12, 16, 3), np.uint8).repeat(20, axis=0).repeat(20, axis=1)
            for frame in range(50):
                moved = np.roll(image, 4 * frame, axis=1)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(moved, format="rgb24")))
            container.mux(stream.encode())
        yield path
        number += 1


def run(checkout: Path, *arguments: str) -> dict[str, float]:
    """Run the worker with the code of a checkout; times and CPU of the whole process are added."""
    environment = os.environ | {"PYTHONPATH": str(checkout / "src")}
    used, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", WORKER, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{checkout}: {done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    measured["process_s"] = time.perf_counter() - began
    measured["process_cpu_s"] = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    return measured


def row(what: str, measured: dict[str, list[float]], unit: str, names: list[str]) -> None:
    """Print median and spread of each build, and the median of the ratios of neighbouring runs."""
    texts = []
    for name in names:
        values = measured[name]
        texts.append(f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})")
    ratio = ""
    if len(names) > 1:
        ratios = [one / other for one, other in zip(*(measured[name] for name in names), strict=True) if one]
        ratio = f"1/{1 / statistics.median(ratios):.3g}" if ratios else ""
    print(f"| {what}, {unit} | {' | '.join(reversed(texts))} | {ratio} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path)
    parser.add_argument("--baseline", type=Path, help="checkout of the build to compare with")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=["cold", "add", "switch"], nargs="*", default=["cold", "add", "switch"])
    parser.add_argument("--folder", type=Path, help="where copies are made; on the disk of the index")
    arguments = parser.parse_args()
    builds = {"this": Path(__file__).resolve().parents[1]}
    if arguments.baseline is not None:
        builds["baseline"] = arguments.baseline.resolve()
    names = list(builds)
    with tempfile.TemporaryDirectory(dir=arguments.folder or arguments.index.parent) as made:
        folder = Path(made)
        source = clips(folder)
        for name, checkout in builds.items():
            (folder / name).mkdir()
            linked(arguments.index, folder / name)
            run(checkout, "add", str(folder / name), str(next(source)))  # cleans up, and writes the cache
        print(f"load of the machine: {os.getloadavg()[0]:.1f}")
        print(f"| | {' | '.join(reversed(names))} | ratio |\n| --- |{' --- |' * (len(names) + 1)}")
        steps = {"cold": ["cold"], "add": ["add"], "switch": ["none", "bundled"]}
        for what in [step for name in arguments.only for step in steps[name]]:
            found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
            for _ in range(arguments.repeats):
                clip = next(source)
                for name, checkout in builds.items():
                    if what in ("none", "bundled"):  # from the other one
                        run(checkout, "none" if what == "bundled" else "bundled", str(folder / name))
                    found[name].append(run(checkout, what, str(folder / name), *([str(clip)] if what == "add" else [])))
            title = {
                "cold": "first search by moment",
                "add": "add a clip of 2 s",
                "none": "use no reference set",
                "bundled": "use the bundled reference set",
            }[what]
            keys = [("wall_s", "s"), ("cpu_s", "s of CPU"), ("resident_mb", "MB"), ("anonymous_mb", "MB without files")]
            if what == "cold":
                keys += [("loaded_mb", "MB before it"), ("warm_ms", "ms of a later search")]
                same = all(one["hits"] == found[names[0]][0]["hits"] for name in names for one in found[name])
                print(f"hits are {'equal' if same else 'NOT equal'}", file=sys.stderr)
            if what == "add":
                keys += [("process_s", "s of the process"), ("process_cpu_s", "s of CPU of all its processes")]
            for key, unit in keys:
                row(title, {name: [one[key] for one in found[name]] for name in names}, unit, names)


if __name__ == "__main__":
    main()
