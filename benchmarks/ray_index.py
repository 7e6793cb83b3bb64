"""Time indexing with workers on Ray, one of which is killed half-way, and compare every row with a local run.

    python benchmarks/ray_index.py DATA/videos/panda DATA/videos/misc [--clips 90] [--repeat 1] [--out FILE]

Ways, in turn: `local`; `1 worker`; `2 workers`; `2 workers, one killed`: the process of the first worker gets SIGKILL
when a third of the files are done. Ray is started anew for each way. Two times are reported: of the whole run, and
from the first worker that is ready to the last file. Memory is the peak resident size of this process, and of the
largest worker.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from impart.encoders.cluster.connection import RayEngine
from impart.video.index.events import IndexDone, VideoDone, VideoFailed, WorkerLost, WorkerReady
from impart.video.index.index import VideoIndex

WAYS = {"local": (0, False), "1 worker": (1, False), "2 workers": (2, False), "2 workers, one killed": (2, True)}


@dataclass(kw_only=True)
class Run:
    """Figures of one run."""

    way: str
    wall_s: float = 0.0
    work_s: float = 0.0
    files: int = 0
    failed: int = 0
    lost: int = 0
    given_again: int = 0
    own_mb: float = 0.0
    worker_mb: float = 0.0
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict, repr=False)


def measure(way: str, clips: list[Path], folder: Path) -> Run:
    """Index all clips in one way."""
    workers, kill = WAYS[way]
    run = Run(way=way)
    index = VideoIndex.open(folder / "index")
    pids: dict[int, int] = {}
    began = ready = time.perf_counter()
    for event in index.add(clips, engine=RayEngine(workers=workers) if workers else "local"):
        match event:
            case WorkerReady():
                ready = ready if pids else time.perf_counter()
                pids[event.worker] = event.pid
            case WorkerLost():
                run.lost += 1
                run.given_again += event.files
            case VideoDone() | VideoFailed():
                run.files += 1
                run.work_s = time.perf_counter() - ready
                run.worker_mb = max([run.worker_mb, *(peak_mb(pid) for pid in pids.values())])
                if kill and 3 * run.files >= len(clips):
                    os.kill(next(iter(pids.values())), signal.SIGKILL)
                    kill = False
            case IndexDone():
                run.failed = event.failed
    sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))
    from helpers.index_rows import rows_of  # type: ignore[import-not-found]

    run.wall_s, run.own_mb, run.rows = time.perf_counter() - began, peak_mb(os.getpid()), rows_of(index.path)
    return run


def peak_mb(pid: int) -> float:
    """Return the peak resident size; 0 if the system does not report it, or the process has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--clips", type=int, default=90)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--out", type=Path, help="markdown file to write as well")
    arguments = parser.parse_args()
    files = sorted(path for folder in arguments.folders for path in folder.iterdir())
    clips = [path for path in files if path.suffix in (".mp4", ".avi", ".gif")][: arguments.clips]
    runs: list[Run] = []
    loads = []
    for turn in range(arguments.repeat):
        for way in WAYS:
            loads.append(os.getloadavg()[0])
            with tempfile.TemporaryDirectory() as folder:
                runs.append(measure(way, clips, Path(folder)))
            print(f"{turn + 1} {runs[-1]}, load {loads[-1]:.1f}", file=sys.stderr)
    expected = runs[0].rows
    lines = [
        f"{len(clips)} clips, {len(expected['segments'])} segments, medians of {arguments.repeat} run(s) in turn, "
        f"{os.cpu_count()} cores, load {min(loads):.1f} to {max(loads):.1f}.",
        "",
        "| | wall s | s from the first worker on | clips per minute | rows that differ from the local run "
        "| failed | workers lost | files given again | peak MB | peak MB of a worker |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for way in WAYS:
        found = [run for run in runs if run.way == way]
        wall_s, work_s = (statistics.median(getattr(run, name) for run in found) for name in ("wall_s", "work_s"))
        differ = sum(len(rows_that_differ(run.rows, expected)) for run in found)
        shown = [f"{wall_s:.1f}", f"{work_s:.1f}", f"{60 * len(clips) / work_s:.0f}", str(differ)]
        shown += [str(sum(getattr(run, name) for run in found)) for name in ("failed", "lost", "given_again")]
        shown += [f"{max(getattr(run, name) for run in found):.0f}" for name in ("own_mb", "worker_mb")]
        lines.append(f"| {way} | {' | '.join(shown)} |")
    text = "\n".join(lines)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")


def rows_that_differ(
    found: dict[str, list[dict[str, Any]]], expected: dict[str, list[dict[str, Any]]]
) -> list[tuple[str, int]]:
    """List (table, row) of all rows that are not equal; a missing row counts once."""
    return [
        (name, number)
        for name, rows in expected.items()
        for number in range(max(len(rows), len(found[name])))
        if rows[number : number + 1] != found[name][number : number + 1]
    ]


if __name__ == "__main__":
    main()
