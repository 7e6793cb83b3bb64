"""Measure how long indexing takes at 360p, 1080p and 4K, compared with another build.

    python benchmarks/index_1080p.py DATA/videos/panda --films DIR --baseline CHECKOUT [--kinds "4K HEVC"] [--turns 3]

One film of each kind of `KINDS` is made of the first clips of the folder, scaled, at 25 frames per second, with B
frames; films that are in DIR already are used again. Each way of `index_speed.py` that is measured here (decoding
alone, encoding alone, all of `VideoIndex.add`) runs in a new process, in turn with the other build. The figures are
medians of the turns, and in brackets the least and the largest ratio of a turn.

Both builds also index the film and search it for the captions of its clips. The report states how many segments and
scenes have the same times, the cosine of the embeddings of these segments, and how many of the ten best moments of
each caption are the same.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from index_speed import Run, measure

FPS = 25
CLIP_S = 5
"""Seconds taken of each clip."""
WAYS = ("decode", "encode", "pipeline")
TOP = 10


@dataclass(frozen=True)
class Kind:
    """A kind of film: encoder of FFmpeg with its options, size of the frames, and length."""

    codec: str
    width: int
    height: int
    seconds: int
    options: dict[str, str]


X265 = {"x265-params": "log-level=none"}
KINDS = {
    "360p H.264": Kind("libx264", 640, 360, 45, {"preset": "medium", "crf": "23"}),
    "1080p H.264": Kind("libx264", 1920, 1080, 45, {"preset": "medium", "crf": "18"}),
    "1080p H.264, 0.9 Mbit/s": Kind("libx264", 1920, 1080, 45, {"preset": "veryfast", "crf": "30"}),
    "1080p HEVC": Kind("libx265", 1920, 1080, 45, {"preset": "fast", "crf": "24", **X265}),
    "4K H.264": Kind("libx264", 3840, 2160, 10, {"preset": "veryfast", "crf": "22"}),
    "4K HEVC": Kind("libx265", 3840, 2160, 10, {"preset": "ultrafast", "crf": "25", **X265}),
}


def frames(clips: list[Path], kind: Kind) -> Iterator[av.VideoFrame]:
    """Decode `CLIP_S` of each clip at `FPS`, each frame by its presentation time, scaled."""
    for clip in clips:
        with av.open(str(clip)) as container:
            shown, first_s = 0, None
            for frame in container.decode(video=0):
                time_s = frame.time or 0.0
                first_s = time_s if first_s is None else first_s
                while first_s + shown / FPS <= time_s + 1e-6:
                    shown += 1
                    yield frame.reformat(width=kind.width, height=kind.height, format="yuv420p")
                if shown >= CLIP_S * FPS:
                    break


def make(path: Path, clips: list[Path], kind: Kind) -> None:
    """Write a film, if it is not there."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with av.open(str(part), "w", format="mp4") as container:
        stream = container.add_stream(kind.codec, rate=FPS)
        stream.width, stream.height, stream.pix_fmt, stream.options = kind.width, kind.height, "yuv420p", kind.options
        for number, frame in enumerate(itertools.islice(frames(clips, kind), kind.seconds * FPS)):
            frame.pts, frame.time_base, frame.pict_type = number, Fraction(1, FPS), 0
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    part.rename(path)


def rows(film: Path, captions: list[str], encoder_id: str) -> dict[str, Any]:
    """Index a film with the build that is imported; return its segments, scenes and hits."""
    import impart
    from impart.config import DecodeSettings
    from impart.video.decode.decoder import Decoder
    from impart.video.decode.sampler import DecodedSegment

    encoder = impart.load_encoder(encoder_id)
    with Decoder(DecodeSettings(), short_side_px=encoder.traits.image_size_px) as decoder:
        segments = [item for item in decoder.decode([film]) if isinstance(item, DecodedSegment)]
    vectors = encoder.encode_images([segment.image for segment in segments]).embeddings
    with tempfile.TemporaryDirectory() as folder:
        index = impart.VideoIndex.open(Path(folder) / "index", encoder)
        for _ in index.add([film]):
            pass
        scenes = [(scene.start_s, scene.end_s) for scene in index.scenes(film)]
        hits = [
            [(hit.start_s, hit.end_s) for hit in index.search(text=text, top=TOP, group="moment")] for text in captions
        ]
    times = [(segment.start_s, segment.end_s) for segment in segments]
    return {"times": times, "vectors": vectors.tolist(), "scenes": scenes, "hits": hits}


def rows_of(film: Path, captions: list[str], encoder_id: str, checkout: Path | None) -> dict[str, Any]:
    """Run `rows` in a process with a build."""
    command = [sys.executable, __file__, str(film), "--rows", json.dumps(captions), "--encoder", encoder_id]
    environment = dict(os.environ) if checkout is None else {**os.environ, "PYTHONPATH": str(checkout / "src")}
    done = subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def same(ours: list[list[float]], theirs: list[list[float]]) -> str:
    """Format how many spans are in both lists."""
    return f"{len(set(map(tuple, ours)) & set(map(tuple, theirs)))} of {len(theirs)}"


def comparison(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """Compare the rows of two builds: the cells of a line of the table."""
    at = {tuple(times): number for number, times in enumerate(theirs["times"])}
    pairs = [(number, at[tuple(times)]) for number, times in enumerate(ours["times"]) if tuple(times) in at]
    mine, other = (np.array(rows["vectors"]) for rows in (ours, theirs))
    cosines = np.array([mine[a] @ other[b] for a, b in pairs])
    first = sum(a[:1] == b[:1] for a, b in zip(ours["hits"], theirs["hits"], strict=True))
    both = [same(a, b).split(" of ") for a, b in zip(ours["hits"], theirs["hits"], strict=True)]
    return [
        same(ours["times"], theirs["times"]),
        f"{np.median(cosines):.4f} / {np.percentile(cosines, 5):.4f} / {cosines.min():.4f}",
        same(ours["scenes"], theirs["scenes"]),
        f"{first} of {len(both)}",
        f"{sum(int(a) for a, _ in both)} of {sum(int(b) for _, b in both)}",
    ]


def ratio(ours: list[Run], theirs: list[Run], name: str) -> str:
    """Format the two medians, and the median, least and largest ratio of a turn."""
    pairs = [(getattr(a, name), getattr(b, name)) for a, b in zip(ours, theirs, strict=True)]
    ratios = [a / b for a, b in pairs]
    mine, other = (statistics.median(column) for column in zip(*pairs, strict=True))
    return f"{other:.1f} to {mine:.1f}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, help="folder of clips with captions.csv")
    parser.add_argument("--films", type=Path, help="folder of the films that are made")
    parser.add_argument("--baseline", type=Path, help="checkout of the other build")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--encoder", default="mini")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--out", type=Path, help="markdown file to write as well")
    parser.add_argument("--rows", help=argparse.SUPPRESS)  # for the processes that index: the queries, as JSON
    arguments = parser.parse_args()
    if arguments.rows is not None:
        print(json.dumps(rows(arguments.clips, json.loads(arguments.rows), arguments.encoder)))
        return
    if not (arguments.films and arguments.baseline):
        parser.error("--films and --baseline are needed")
    told = {row["file"]: row["caption"] for row in csv.DictReader((arguments.clips / "captions.csv").open("r"))}
    clips = [arguments.clips / name for name in sorted(told)]
    speed = [
        "| film | wall s: other build, this one, ratio | CPU s | decoding alone, wall s | decoding alone, CPU s "
        "| encoding alone, CPU s | worker's peak MB |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    equal = [
        "| film | segments with the same times | cosine: median / 5% / least | scenes with the same times "
        "| same best moment | same among the ten best |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name in arguments.kinds:
        kind = KINDS[name]
        film = arguments.films / name / "film.mp4"
        make(film, clips, kind)
        found: dict[tuple[str, bool], list[Run]] = {}
        for way in WAYS:
            for turn in range(arguments.turns):
                for other in (True, False):
                    checkout = arguments.baseline if other else None
                    run = measure(way, film.parent, arguments.encoder, checkout=checkout)
                    found.setdefault((way, other), []).append(run)
                    whose = "other" if other else "this"
                    print(
                        f"{name}, {way}, turn {turn + 1}, {whose}: {run.wall_s:.2f} s, CPU {run.cpu_s:.2f} s",
                        file=sys.stderr,
                    )
        cells = [
            ratio(found[way, False], found[way, True], figure)
            for way, figure in (
                ("pipeline", "wall_s"),
                ("pipeline", "cpu_s"),
                ("decode", "wall_s"),
                ("decode", "cpu_s"),
                ("encode", "cpu_s"),
                ("pipeline", "worker_mb"),
            )
        ]
        speed.append(f"| {name}, {kind.seconds} s | {' | '.join(cells)} |")
        captions = [told[clip.name] for clip in clips[: kind.seconds // CLIP_S]]
        both = [rows_of(film, captions, arguments.encoder, one) for one in (None, arguments.baseline)]
        equal.append(f"| {name} | {' | '.join(comparison(*both))} |")
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
        text = "\n".join([*speed, "", *equal, "", f"{os.cpu_count()} cores; load average at the end {load:.1f}."])
        if arguments.out:
            arguments.out.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
