"""Measure what the sync of each commit costs: indexing of real clips and of photos, beside a checkout without it.

    python benchmarks/sync_cost.py --data ../shared/data --baseline CHECKOUT [--clips 90] [--photos 1000] [--turns 3]

The two checkouts index the same files with `mini` in turns, each into a new index. The photos are random noise of
640 x 480. The share of the sync is also measured directly: the time within it, of the time of the run.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent


def index_once(index: Path, files: list[Path]) -> None:
    """Index files; print the seconds of the run, the seconds within the sync, and the number of its calls."""
    from impart.video.index.index import VideoIndex

    spent, calls = 0.0, 0
    try:
        from impart.video.index.durable.sync import TableSync
    except ImportError:  # the baseline
        pass
    else:
        sync = TableSync._sync

        def timed(self: TableSync, paths: object) -> None:
            nonlocal spent, calls
            began = time.perf_counter()
            sync(self, paths)  # type: ignore[arg-type]
            spent, calls = spent + time.perf_counter() - began, calls + 1

        TableSync._sync = timed  # type: ignore[method-assign]
    opened = VideoIndex.open(index)
    opened.encoder  # noqa: B018 - loaded before the clock starts
    began = time.perf_counter()
    for _ in opened.add(files):
        pass
    print(time.perf_counter() - began, spent, calls, len(opened.videos()))


def noise(folder: Path, count: int) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = [folder / f"{number:04d}.jpg" for number in range(count)]
    for path in paths:
        small = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(small).resize((640, 480)).save(path)
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--baseline", type=Path, required=True, help="a checkout without the sync")
    parser.add_argument("--clips", type=int, default=90)
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--index", type=Path, help="index the files named on standard input once (internal)")
    args = parser.parse_args()
    if args.index is not None:
        index_once(args.index, [Path(line) for line in sys.stdin.read().splitlines()])
        return
    with tempfile.TemporaryDirectory() as made:
        work = Path(made)
        clips = sorted(path for path in (args.data / "videos").rglob("*") if path.suffix in (".mp4", ".mkv", ".webm"))
        loads = {"clips": clips[: args.clips], "photos": noise(work, args.photos)}
        for name, files in loads.items():
            walls: dict[str, list[float]] = {"without": [], "with": []}
            shares: list[float] = []
            for turn in range(args.turns):
                for kind, checkout in (("without", args.baseline), ("with", ROOT)):
                    command = [sys.executable, __file__, "--data", ".", "--baseline", ".", "--index"]
                    done = subprocess.run(
                        [*command, str(work / f"{name} {kind} {turn}")],
                        env={**os.environ, "PYTHONPATH": str(checkout / "src")},
                        input="\n".join(map(str, files)),
                        stdout=subprocess.PIPE,
                        text=True,
                        check=True,
                    )
                    wall, spent, calls, count = map(float, done.stdout.split())
                    walls[kind].append(wall)
                    print(f"{name}, {kind} sync: {wall:.2f} s for {count:.0f} files", flush=True)
                    if kind == "with":
                        shares.append(100 * spent / wall)
                        print(f"  in the sync: {spent:.2f} s in {calls:.0f} calls, {shares[-1]:.2f}%", flush=True)
            before, after = (statistics.median(walls[kind]) for kind in ("without", "with"))
            spread = ", ".join(f"{kind} {min(times):.2f} to {max(times):.2f} s" for kind, times in walls.items())
            print(
                f"{name}: {len(files)} files, median {before:.2f} s without and {after:.2f} s with sync "
                f"({100 * (after / before - 1):+.1f}%; {spread}); in the sync {statistics.median(shares):.2f}%"
            )


if __name__ == "__main__":
    main()
