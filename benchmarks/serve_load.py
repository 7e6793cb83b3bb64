"""Measure the server under load: 50 searchers without pauses on 100 hours, while an indexing job runs.

    python benchmarks/serve_load.py --data ../shared/data               # 10,000 searches; 12 GB of disk, 6 GB of memory
    python benchmarks/serve_load.py --data ../shared/data --work /tmp/load   # keeps the index for the next time

The index is made of random unit vectors in films of 20 minutes with scenes of 5 seconds, with the bundled reference set
in force. `impart serve` runs in a process of its own, and so does the indexing job, on clips of moving noise. Each
search is another caption of the development data: nothing can be answered from what was kept. A searcher sends the next
one when its answer has come. Memory is what the server's process has in use (RSS): what it holds itself, and the pages
of the index's files that it has read.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import numpy as np

from films import write_film
from impart.blending.base import Blend
from impart.encoders.base import l2_normalise
from impart.video.index.index import VideoIndex
from impart.video.index.store import VideoRecord, path_id
from impart.video.index.writer import SegmentChunk, Writer

FILM_S, SCENE_S, FPS = 1200, 5, 4
CLIPS, CLIP_S = 400, 20
SEARCHERS = 50
LIMIT = 24
PER = 1000
"""Requests whose times and memory are reported together."""
ALONE = 50
"""Searches of one searcher, before the load."""


@dataclass
class Measured:
    """Times, errors and memory of one run.

    Attributes:
        times_ms: of each request, in the order of their answers; ended_s: when it came; errors: what went wrong.
        memory: (time, MB) of the server.
        cpu_s: processor time of the server.
    """

    times_ms: list[float] = field(default_factory=list)
    ended_s: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)
    cpu_s: float = 0.0


def make_index(folder: Path, hours: float) -> None:
    """Write an index of random films."""
    index, rng = VideoIndex.open(folder), np.random.default_rng(0)
    for _ in index.add([]):
        pass
    manifest = index.manifest
    assert manifest.augmentation is not None
    count, per_scene, k = FILM_S * FPS, SCENE_S * FPS, manifest.augmentation.settings.k

    def vectors(width: int) -> np.ndarray:
        centres = np.repeat(rng.standard_normal((count // per_scene, width), np.float32), per_scene, axis=0)
        return l2_normalise(centres + rng.standard_normal((count, width), np.float32)).astype(np.float16)

    start_s = np.arange(count) / FPS
    scenes = tuple(range(0, count, per_scene))
    with Writer(index._store) as writer:
        for film in range(round(hours * 3600 / FILM_S)):
            path, revision = Path(f"/films/{film % 20:02d}/film {film:04d}.mp4"), f"film-{film}"
            ids, txt = np.full((count, k), -1, np.int32), np.zeros((count, k), np.float32)
            blended = rng.random(count) < 0.3
            ids[blended], txt[blended] = rng.integers(0, 1000, (int(blended.sum()), k)), 0.005
            chunk = SegmentChunk(
                first=0,
                start_s=start_s,
                end_s=start_s + 1 / FPS,
                weight=np.ones(count, np.int32),
                vectors=vectors(manifest.dim),
                retrieval=vectors(manifest.retrieval_dim),
                blend=Blend(ids, np.zeros_like(txt), txt, np.ones(count, np.float32)),
            )
            writer.add_segments(path_id(path), revision, chunk)
            record = VideoRecord(
                video_id=path_id(path),
                revision=revision,
                path=path,
                size_bytes=1,
                mtime_ns=1,
                content_hash=revision,
                duration_s=float(FILM_S),
                width=640,
                height=360,
                codec="h264",
                container="mp4",
                fps=24.0,
                samples=count,
                segments=count,
                scene_starts=scenes,
                problem=None,
                indexed_at=0.0,
                scene_start_s=tuple(start_s[list(scenes)].tolist()),
                scene_end_s=tuple((start_s[list(scenes)] + SCENE_S).tolist()),
                scene_kinds=("cut",) * len(scenes),
            )
            writer.commit(record)
        writer.compact(last=True)
        index._save_cache()


def make_clips(folder: Path) -> None:
    """Write clips for the indexing job: scenes of moving noise."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)

    def shot(seconds: int) -> Iterator[np.ndarray]:
        noise = np.kron(rng.integers(0, 255, (90, 160, 3), np.uint8), np.ones((4, 4, 1), np.uint8))
        for frame in range(seconds * 12):
            yield np.roll(noise, 8 * frame, axis=1)

    for number in range(4):
        write_film(folder / f"clip {number:03d}.mp4", [shot(CLIP_S // 4) for _ in range(4)], fps=12)
    for number in range(4, CLIPS):  # other bytes, so that each is indexed by itself
        data = (folder / f"clip {number % 4:03d}.mp4").read_bytes()
        free = (12).to_bytes(4, "big") + b"free" + number.to_bytes(4, "big")
        (folder / f"clip {number:03d}.mp4").write_bytes(data + free)


@contextmanager
def server(index: Path, clips: Path, scratch: Path) -> Iterator[tuple[str, int]]:
    """Run `impart serve`; yield its address and the number of its process."""
    command = [sys.executable, "-m", "impart", "serve", "--index", str(index), "--port", "0", "--root", str(clips)]
    environment = os.environ | {"IMPART_CACHE": str(scratch / "cache")}
    with (scratch / "serve.log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(command, stderr=log, env=environment)
    try:
        for _ in range(600):
            told = (scratch / "serve.log").read_text(encoding="utf-8")
            if " at http" in told:
                yield told.split(" at ")[1].split()[0].rstrip("/"), process.pid
                return
            if process.poll() is not None:
                raise SystemExit(f"the server ended: {told}")
            time.sleep(0.1)
        raise SystemExit("the server does not answer")
    finally:
        process.terminate()
        process.wait(60)


@contextmanager
def indexing(address: str, index: Path, clips: Path) -> Iterator[str]:
    """Run an indexing job: that of the server, or of the command line where it has none; yield which."""
    body = json.dumps({"paths": [str(clips)]}).encode()
    request = urllib.request.Request(
        f"{address}/api/v1/jobs/index", body, {"content-type": "application/json"}, method="POST"
    )
    process = None
    try:
        with urllib.request.urlopen(request) as answer:
            job = json.load(answer)["id"]
    except urllib.error.HTTPError as error:
        if error.code not in (404, 405):
            raise
        command = ["nice", "-n", "10", sys.executable, "-m", "impart", "index", str(clips), "--index", str(index)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield "job of the server" if process is None else "`nice -n 10 impart index`"
    finally:
        if process is None:
            urllib.request.urlopen(
                urllib.request.Request(f"{address}/api/v1/jobs/{job}/cancel", b"", method="POST")
            ).close()
        else:
            process.terminate()
            process.wait(120)


def watch_memory(pid: int, measured: Measured, stop: threading.Event) -> None:
    """Record the memory of a process once per second."""
    while not stop.wait(1):
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
        measured.memory.append((time.perf_counter(), pages * os.sysconf("SC_PAGE_SIZE") / 1e6))


def cpu_s(pid: int) -> float:
    """Read the processor time of a process."""
    values = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(values[11]) + int(values[12])) / os.sysconf("SC_CLK_TCK")


async def search(client: httpx2.AsyncClient, text: str, measured: Measured) -> None:
    """Send one search, and record its time and what is wrong with its answer."""
    began = time.perf_counter()
    try:
        answer = await client.post("/api/v1/search", json={"text": text, "limit": LIMIT})
        if answer.status_code != 200:
            measured.errors.append(f"{answer.status_code}: {answer.text[:200]}")
        elif not answer.json()["hits"]:
            measured.errors.append("no hits")
    except httpx2.HTTPError as error:
        measured.errors.append(f"{type(error).__name__}: {error}")
    ended = time.perf_counter()
    measured.times_ms.append(1000 * (ended - began))
    measured.ended_s.append(ended)


async def load(address: str, texts: Sequence[str], *, searchers: int, most_s: float, measured: Measured) -> None:
    """Let searchers ask all texts, each the next one when its answer has come."""
    waiting, until = iter(texts), time.monotonic() + most_s
    limits = httpx2.Limits(max_connections=searchers, max_keepalive_connections=searchers)
    async with httpx2.AsyncClient(base_url=address, limits=limits, timeout=60) as client:

        async def searcher() -> None:
            for text in waiting:
                if time.monotonic() > until:
                    return
                await search(client, text, measured)

        await asyncio.gather(*(searcher() for _ in range(searchers)))


def captions(data: Path, count: int) -> list[str]:
    """Draw distinct captions."""
    with gzip.open(data / "text" / "captions.txt.gz", "rt", encoding="utf-8") as lines:
        every = sorted({line.strip().partition(" ")[2] for line in lines})
    return random.Random(0).sample(every, count)


def table(measured: Measured, alone: Measured, *, began: float, videos: int, kind: str) -> str:
    """Write what was measured as markdown."""
    times = np.array(measured.times_ms)
    ends = np.array(measured.ended_s)
    lines = [
        f"{len(times):,} searches by {SEARCHERS} searchers, {len(measured.errors)} errors, "
        f"{len(times) / (ends[-1] - began):.0f} searches per second; {videos} videos were indexed meanwhile ({kind}). "
        f"The server took {1000 * measured.cpu_s / len(times):.1f} ms of processor time per search. "
        f"One searcher alone before: p50 {np.percentile(alone.times_ms, 50):.0f} ms.",
        "",
        "| requests | p50 | p95 | p99 | per second | memory (median) | memory (most) |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    medians, since = [], began
    for first in range(0, len(times), PER):
        part, until = times[first : first + PER], ends[min(first + PER, len(ends)) - 1]
        memory = [mb for at, mb in measured.memory if since <= at <= until] or [float("nan")]
        medians.append(float(np.median(memory)))
        p50, p95, p99 = np.percentile(part, (50, 95, 99))
        lines.append(
            f"| {first + 1:,} to {first + len(part):,} | {p50:.0f} ms | {p95:.0f} ms | {p99:.0f} ms "
            f"| {len(part) / (until - since):.0f} | {medians[-1]:.0f} MB | {max(memory):.0f} MB |"
        )
        since = until
    p50, p95, p99 = np.percentile(times, (50, 95, 99))
    lines.append(f"| all | **{p50:.0f} ms** | **{p95:.0f} ms** | {p99:.0f} ms | | | |")
    if len(medians) > 2:
        lines += [
            "",
            f"Memory of the last thousand to that of the second: {100 * (medians[-1] / medians[1] - 1):+.1f}%.",
        ]
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the development data: captions are taken from it")
    parser.add_argument("--hours", type=float, default=100)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--most-s", type=float, default=900, help="seconds after which no more requests are sent")
    parser.add_argument("--work", type=Path, help="folder of index and clips, kept for the next time")
    parser.add_argument("--out", type=Path, help="markdown file to write as well")
    options = parser.parse_args()
    texts = captions(options.data, options.requests + ALONE)
    with tempfile.TemporaryDirectory() as scratch:
        kept = options.work or Path(scratch)
        made, index, clips = kept / f"made-{options.hours:g}.impart", Path(scratch) / "library.impart", kept / "clips"
        if not (made / "manifest.json").exists():
            make_index(made, options.hours)
        if len(list(clips.glob("*.mp4"))) < CLIPS:
            make_clips(clips)
        shutil.copytree(made, index)
        measured, alone, stop = Measured(), Measured(), threading.Event()
        with server(index, clips, Path(scratch)) as (address, pid):
            asyncio.run(load(address, texts[:1], searchers=1, most_s=300, measured=Measured()))  # loads the index
            urllib.request.urlopen(f"{address}/api/v1/videos").close()  # as the page does; it loads the database
            time.sleep(60)  # what the server prepares in the background
            asyncio.run(load(address, texts[:ALONE], searchers=1, most_s=60, measured=alone))
            watcher = threading.Thread(target=watch_memory, args=(pid, measured, stop))
            watcher.start()
            before = len(VideoIndex.open(index).videos())
            with indexing(address, index, clips) as kind:
                began, spent = time.perf_counter(), cpu_s(pid)
                asyncio.run(load(address, texts[ALONE:], searchers=SEARCHERS, most_s=options.most_s, measured=measured))
                measured.cpu_s = cpu_s(pid) - spent
                videos = len(VideoIndex.open(index).videos()) - before
            stop.set()
            watcher.join()
    for error in measured.errors[:5]:
        print(error, file=sys.stderr)
    text = table(measured, alone, began=began, videos=videos, kind=kind)
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
