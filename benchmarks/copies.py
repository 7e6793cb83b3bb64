"""Measure how well copies of clips are found, how exactly they are aligned, and how long it takes.

    python benchmarks/copies.py --data DATA               # copies of panda: about ten minutes on two cores
    python benchmarks/copies.py --data DATA --study       # the same on rendered films: for choosing constants
    python benchmarks/copies.py --speed --hours 100       # random vectors with planted copies; 3 GB of disk

Copies are cut from the sources at random and changed in one way each, all seeded. Each copy is looked for in the index
of all sources, and as a stranger in that index without its own source. The films of the study are camera movements over
photos of flickr8k and openstax, which are not evaluation data.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw

from impart import VideoIndex, load_encoder
from impart.config import DecodeSettings
from impart.video.copies.duplicates import duplicate_groups
from impart.video.copies.finder import find
from impart.video.copies.frames import FrameRun, IndexedFrames
from impart.video.copies.library import SHARED_S, indexed_frames, views_of
from impart.video.copies.matching import COPY
from impart.video.copies.query_clip import read_clip
from impart.video.index.store import Store
from impart.video.search.state.load import load_snapshot
from motion import photos, random_shot, render

KINDS = {
    "crop": "cropped to 60% of the area",
    "mirror": "mirrored",
    "logo": "logo and caption laid over",
    "quality": "256x144, H.264 crf 38; with --milder 320x180, crf 32",
    "slow": "played at 0.8x to 0.95x",
    "fast": "played at 1.05x to 1.25x",
    "inside": "inside another film",
    "all": "crop, mirror, logo, speed and 320x180, crf 32, together",
}
SIZE, FPS = (640, 360), 24
QUALITY = {False: ((256, 144), 38), True: ((320, 180), 32)}  # size and crf of kind "quality"; True with --milder
SIDE = 0.6**0.5  # of a crop, as fraction of the width and height


@dataclass(frozen=True)
class Part:
    """A part of a source, and what its copy changes.

    Attributes:
        speed: seconds of the source per second of the copy.
        crop: left and top edge as fractions, or None.
        logo: seed of the logo and caption, or None.
    """

    source: Path
    start_s: float
    length_s: float
    speed: float = 1.0
    crop: tuple[float, float] | None = None
    mirror: bool = False
    logo: int | None = None
    size: tuple[int, int] = SIZE
    crf: int = 23

    @property
    def shown_s(self) -> float:
        return self.length_s / self.speed

    def images(self) -> Iterator[Image.Image]:
        """Yield the images of the copy, FPS per second."""
        with av.open(str(self.source)) as container:
            frames = [
                (frame.time, frame.reformat(*SIZE, format="rgb24").to_image()) for frame in container.decode(video=0)
            ]
        times = np.array([time_s for time_s, _ in frames]) - frames[0][0]
        for number in range(max(1, round(self.shown_s * FPS))):
            at_s = self.start_s + number / FPS * self.speed
            image = frames[max(0, int(np.searchsorted(times, at_s + 1e-6, side="right")) - 1)][1]
            width, height = image.size
            if self.crop is not None:
                left, top = self.crop
                box = (left * width, top * height, (left + SIDE) * width, (top + SIDE) * height)
                image = image.resize(SIZE, Image.Resampling.BICUBIC, box=box)
            if self.mirror:
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            if self.logo is not None:
                image = with_logo(image, self.logo)
            yield image


@dataclass(frozen=True)
class Rendered:
    """A copy on disk: `part` of its source is shown from `at_s` on."""

    path: Path
    kind: str
    part: Part
    at_s: float


def with_logo(image: Image.Image, seed: int) -> Image.Image:
    """Draw a coloured logo into a corner, and a caption on a black band of an eighth of the height."""
    rng = np.random.default_rng(seed)
    image = image.copy()
    draw = ImageDraw.Draw(image)
    width, height = image.size
    colour = tuple(int(value) for value in rng.integers(0, 256, 3))
    side = rng.uniform(0.1, 0.18) * width
    x, y = (0.03 * width if rng.random() < 0.5 else 0.97 * width - side), 0.04 * height
    draw.ellipse((x, y, x + side, y + side * 0.6), fill=colour)
    draw.text((x + side * 0.2, y + side * 0.15), "TV 5", fill="white", font_size=side * 0.25)
    words = " ".join(rng.choice(["more", "news", "from", "our", "garden", "today", "at", "eight"], 5))
    draw.rectangle((0, 0.82 * height, width, 0.95 * height), fill=(0, 0, 0))
    draw.text((0.1 * width, 0.82 * height + 4), words, fill="white", font_size=0.09 * height)
    return image


def length_s(path: Path) -> float:
    with av.open(str(path)) as container:
        return float(container.duration / av.time_base)


def write(path: Path, parts: list[Part]) -> None:
    """Write parts one after another, in the size and quality of the first one."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(FPS))
        (stream.width, stream.height), stream.pix_fmt = parts[0].size, "yuv420p"
        stream.options = {"preset": "veryfast", "crf": str(parts[0].crf)}
        for part in parts:
            for image in part.images():
                shown = image if image.size == parts[0].size else image.resize(parts[0].size)
                container.mux(stream.encode(av.VideoFrame.from_image(shown)))
        container.mux(stream.encode(None))


def make_copies(
    folder: Path, sources: list[Path], hosts: list[Path], *, each: int, seed: int, milder: bool = False
) -> list[Rendered]:
    """Render `each` copies of each kind. Hosts are the films around the copies of kind `inside`."""
    rng = np.random.default_rng(seed)
    order = list(rng.permutation(len(sources)))
    made = []
    for number in range(each * len(KINDS)):
        kind, source = list(KINDS)[number % len(KINDS)], sources[order[number % len(order)]]
        whole_s = length_s(source)
        taken_s = float(rng.uniform(min(2, whole_s), min(10, whole_s)))
        part = Part(source, float(rng.uniform(0, max(0, whole_s - taken_s))), taken_s)
        if kind in ("crop", "all"):
            part = replace(part, crop=(float(rng.uniform(0, 1 - SIDE)), float(rng.uniform(0, 1 - SIDE))))
        if kind in ("mirror", "all"):
            part = replace(part, mirror=True)
        if kind in ("logo", "all"):
            part = replace(part, logo=int(rng.integers(1000)))
        if kind == "quality":
            size, crf = QUALITY[milder]
            part = replace(part, size=size, crf=crf)
        speeds = {"slow": (0.8, 0.95), "fast": (1.05, 1.25), "all": (0.8, 1.25)}
        if kind in speeds:
            part = replace(part, speed=float(rng.uniform(*speeds[kind])))
        if kind == "all":
            part = replace(part, size=(320, 180), crf=32)
        parts, at_s = [part], 0.0
        if kind == "inside":
            before, after = (_piece(hosts[place], rng) for place in rng.choice(len(hosts), 2, replace=False))
            parts, at_s = [before, part, after], before.shown_s
        path = folder / f"{number:03d}_{kind}.mp4"
        write(path, parts)
        made.append(Rendered(path, kind, part, at_s))
    return made


def _piece(path: Path, rng: np.random.Generator) -> Part:
    whole_s = length_s(path)
    taken_s = min(whole_s, float(rng.uniform(2, 6)))
    return Part(path, float(rng.uniform(0, whole_s - taken_s)), taken_s)


def opened(folder: Path, paths: list[Path]) -> tuple[IndexedFrames, list[Path], np.ndarray]:
    """Index videos; return their frames, the paths in the order of the index, and their lengths."""
    index = VideoIndex.open(folder, load_encoder("mini"))
    for _ in index.add(paths):
        pass
    snapshot = load_snapshot(Store(index.path))
    return indexed_frames(snapshot, load_encoder("mini")), list(snapshot.paths), snapshot.durations_s


def detection(sources: list[Path], hosts: list[Path], *, each: int, least: float, milder: bool = False) -> str:
    """Look for all copies, with and without their sources; return a table."""
    encoder = load_encoder("mini")
    rows: dict[str, list[tuple[bool, float, float, float]]] = defaultdict(list)
    wrong, strangers_found, strangers = [], [], 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        copies = make_copies(folder, sources, hosts, each=each, seed=0, milder=milder)
        frames, paths, _ = opened(folder / "sources.impart", sources)
        for copy in copies:
            clip = read_clip(copy.path, encoder, DecodeSettings(), batch=16)
            source = paths.index(copy.part.source.resolve())
            views = views_of(clip, frames)
            found = find(views, frames, fps=4, least=least)
            spans = found.pop(source, [])
            span = spans[0] if spans else None
            starts = abs(span.video_start_s - copy.part.start_s) if span else np.nan
            there_s = copy.part.start_s + copy.part.speed * (max(span.start_s, copy.at_s) - copy.at_s) if span else 0
            shifts = abs(span.at(max(span.start_s, copy.at_s)) - there_s) if span else np.nan
            ends = abs(span.video_end_s - copy.part.start_s - copy.part.length_s) if span else np.nan
            rows[copy.kind].append((span is not None, starts, ends, shifts))
            wrong += [(copy.path.name, paths[video].name, spans[0].score) for video, spans in found.items()]
            if copy.kind != "all":
                strangers += 1
                allowed = np.arange(len(paths)) != source
                others = find(views, frames, fps=4, allowed=allowed, least=least)
                if others:
                    strangers_found.append(copy.path.name)
        pairs = paired(folder, sources, copies, least=least)
        takes = later_parts(folder, sources, least=least)
    lines = [
        "| copy | found | median error of start, s | of end, s | of the alignment, s |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    every = [row for kind, own in rows.items() if kind != "all" for row in own]
    for name, own in [
        *((KINDS[kind], rows[kind]) for kind in KINDS if kind != "all"),
        ("**all of these**", every),
        (KINDS["all"], rows["all"]),
    ]:
        errors = np.nanmedian([row[1:] for row in own], axis=0)
        lines.append(
            f"| {name} | {sum(row[0] for row in own)} of {len(own)} | " + " | ".join(f"{e:.2f}" for e in errors) + " |"
        )
    hits = sum(row[0] for row in every)
    lines += [
        "",
        f"Among {len(sources)} sources; wrong videos found for the copies: {len(wrong)}; for {strangers} strangers: "
        f"{len(strangers_found)} found. Precision {hits / max(1, hits + len(wrong) + len(strangers_found)):.3f} "
        f"(score {least:g} or more).",
        "",
        pairs,
        "",
        takes,
    ]
    for one in wrong:
        print("wrong:", *one)
    print("strangers found:", *strangers_found)
    return "\n".join(lines)


def paired(folder: Path, sources: list[Path], copies: list[Rendered], *, least: float) -> str:
    """Index sources and copies together, and look for duplicates."""
    files = [copy.path for copy in copies if copy.kind != "all"]
    frames, paths, lengths = opened(folder / "pairs.impart", [*sources, *files])
    began = time.perf_counter()
    groups = duplicate_groups(frames, paths, copies={}, durations_s=lengths, fps=4, least=least, min_length_s=SHARED_S)
    took_s = time.perf_counter() - began
    of = {copy.path.resolve(): copy.part.source.resolve() for copy in copies}
    pairs = [(pair.path, pair.other_path) for group in groups for pair in group.duplicates]
    right = {one if one in of else other for one, other in pairs if of.get(one) == other or of.get(other) == one}
    wrong = [pair for pair in pairs if of.get(pair[0], pair[0]) != of.get(pair[1], pair[1])]
    for pair in wrong:
        print("wrong pair:", *pair)
    return (
        f"Duplicates among these {len(sources)} sources and {len(files)} copies in one index: {len(right)} of "
        f"{len(files)} copies paired with their source, {len(wrong)} pairs of videos without a common source, "
        f"{took_s:.1f} s."
    )


def later_parts(folder: Path, sources: list[Path], *, least: float) -> str:
    """Index the first 45% of the longer sources, and look for the last 45%: the same scene, but no copy."""
    encoder = load_encoder("mini")
    first, last = [], []
    for source in sources:
        whole_s = length_s(source)
        if whole_s >= 8:
            first.append(folder / f"first_{source.stem}.mp4")
            last.append(folder / f"last_{source.stem}.mp4")
            write(first[-1], [Part(source, 0.0, 0.45 * whole_s)])
            write(last[-1], [Part(source, 0.55 * whole_s, 0.45 * whole_s)])
    frames, _, _ = opened(folder / "first.impart", first)
    found = []
    for path in last:
        clip = read_clip(path, encoder, DecodeSettings(), batch=16)
        found += [path] if find(views_of(clip, frames), frames, fps=4, least=least) else []
    return (
        f"Later parts of the {len(last)} clips of 8 s or longer, where the first part is indexed (the same scene, no "
        f"copy): {len(found)} found."
    )


def rendered_sources(folder: Path, data: Path, count: int) -> list[Path]:
    """Render films of one to three shots over photos that are not evaluation data."""
    rng = np.random.default_rng(7)
    paths = []
    for number in range(count):
        chosen = photos(data, int(rng.choice([1, 1, 2, 3])), rng)
        paths.append(folder / f"{number:03d}.mp4")
        render(paths[-1], [random_shot(photo, rng, seconds=float(rng.uniform(2, 7))) for photo in chosen], seed=number)
    return paths


def speed(hours: float, queries: int, *, pairs: bool) -> str:
    """Measure queries and duplicates over random vectors, without decoding and encoding."""
    rng = np.random.default_rng(0)
    width, scene, videos = 256, 20, max(2, round(hours * 3))
    per_video = round(hours * 3600 * 4 / videos / scene) * scene
    total = per_video * videos
    with tempfile.TemporaryDirectory() as scratch:
        stored = np.lib.format.open_memmap(
            Path(scratch) / "retrieval.npy", mode="w+", dtype=np.float16, shape=(total, width)
        )
        kinds = rng.standard_normal((40, width), dtype=np.float32)  # scenes of one kind are alike, cosine 0.5
        for first in range(0, total, 20_000):
            scenes = -(-min(20_000, total - first) // scene)
            means = rng.standard_normal((scenes, width), dtype=np.float32) + kinds[rng.integers(0, 40, scenes)]
            rows = np.repeat(means, scene, axis=0) + 0.4 * rng.standard_normal(
                (scenes * scene, width), dtype=np.float32
            )
            stored[first : first + len(rows)] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        planted = [(int(a), int(b)) for a, b in rng.choice(videos, (min(10, videos // 2), 2), replace=False)]
        for one, other in planted:  # half a minute of one is in the other
            stored[other * per_video + 400 : other * per_video + 520] = stored[
                one * per_video + 800 : one * per_video + 920
            ]
        times = np.tile(np.arange(per_video) / 4, videos)
        none = np.zeros((0, width), np.float32)
        began = time.perf_counter()
        frames = IndexedFrames(
            stored,
            starts_s=times,
            ends_s=times + 0.25,
            offsets=np.arange(videos + 1) * per_video,
            scenes=np.arange(0, total, scene),
            images=none,
            flat_rows=none,
        )
        lines = [
            f"{hours:g} hours: {videos} videos, {total} segments, {len(frames.blocks)} blocks, read and grouped in "
            f"{time.perf_counter() - began:.1f} s."
        ]
        took, used, right = [], [], 0
        for _ in range(queries):
            video, at = int(rng.integers(videos)), int(rng.integers(per_video - 40))
            rows = stored[video * per_video + at : video * per_video + at + 40].astype(np.float32)
            rows += 0.02 * rng.standard_normal(rows.shape, dtype=np.float32)
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            spans = np.arange(40) / 4
            began, cpu = time.perf_counter(), time.process_time()
            views = [
                FrameRun(view, frames.background.levels(view), spans, spans + 0.25) for view in (rows, rows[:, ::-1])
            ]
            found = find(views, frames, fps=4)
            took.append(time.perf_counter() - began)
            used.append(time.process_time() - cpu)
            right += any(abs(span.video_start_s - at / 4) < 0.5 for span in found.get(video, []))
        p50, p95 = np.quantile(took, [0.5, 0.95]) * 1000
        lines.append(
            f"A clip of 10 s: p50 {p50:.0f} ms, p95 {p95:.0f} ms (CPU time p50 {np.median(used) * 1000:.0f} ms); "
            f"{right} of {queries} found at the right place."
        )
        if pairs:
            began, cpu = time.perf_counter(), time.process_time()
            paths = [Path(f"{video:04d}.mp4") for video in range(videos)]
            groups = duplicate_groups(
                frames,
                paths,
                copies={},
                durations_s=np.full(videos, per_video / 4),
                fps=4,
                least=COPY,
                min_length_s=SHARED_S,
            )
            found_pairs = {frozenset((pair.path, pair.other_path)) for group in groups for pair in group.duplicates}
            right = sum(frozenset((paths[one], paths[other])) in found_pairs for one, other in planted)
            lines.append(
                f"Duplicates over the library: {time.perf_counter() - began:.0f} s (CPU time "
                f"{time.process_time() - cpu:.0f} s); "
                f"{right} of {len(planted)} planted pairs, {len(found_pairs) - right} others."
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--study", action="store_true", help="on rendered films instead of panda")
    parser.add_argument("--milder", action="store_true", help="kind 'quality' at 320x180, crf 32")
    parser.add_argument("--each", type=int, default=15, help="copies per kind")
    parser.add_argument("--least", type=float, default=COPY, help="least score of a span")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--hours", type=float, default=100)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--no-pairs", action="store_true", help="leave the duplicates of --speed out")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.speed:
        text = speed(options.hours, options.queries, pairs=not options.no_pairs)
    elif options.study:
        with tempfile.TemporaryDirectory() as scratch:
            films = rendered_sources(Path(scratch), options.data, 120)
            text = detection(films[:100], films[100:], each=options.each, least=options.least, milder=options.milder)
    else:
        panda, misc = (sorted((options.data / "videos" / name).glob("*.mp4")) for name in ("panda", "misc"))
        text = detection(panda, misc, each=options.each, least=options.least, milder=options.milder)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
