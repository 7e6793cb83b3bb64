"""Render films of known shots, each with a sentence that describes it: joined real clips, or moving photographs.

`clip_films` joins clips of a folder with `captions.csv`. `photo_films` shows photographs of Flickr8k with camera
movement (`motion.py`); every fourth shot changes from one part of its photograph to another. The photographs are no
evaluation data, so constants are chosen on them.
"""

from __future__ import annotations

import csv
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import chain
from pathlib import Path

import av
import numpy as np
from PIL import Image

from motion import FPS as PHOTO_FPS
from motion import random_shot

CLIP_FPS, CLIP_SIZE = 25, (640, 360)
SHOTS = 20
"""Shots per film."""


@dataclass(frozen=True)
class Told:
    """A sentence, and the span (s) of the film that it describes."""

    film: Path
    sentence: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Films:
    """Films with their sentences, and the clips that are in none of them.

    Attributes:
        dissolve_s: length of each transition; 0 = hard cuts.
    """

    told: list[Told]
    others: list[Path]
    dissolve_s: float

    @property
    def paths(self) -> list[Path]:
        return list(dict.fromkeys(one.film for one in self.told))


def write_film(
    path: Path, shots: Iterable[Iterable[np.ndarray]], *, fps: int, dissolve_s: float = 0.0, crf: int = 23
) -> list[tuple[float, float]]:
    """Write shots, each an iterable of uint8 (h, w, 3) images, as H.264.

    Args:
        dissolve_s: overlap of neighbouring shots; 0 = hard cuts. A shot is longer than two overlaps.

    Returns:
        Start and end (s) of each shot; within a dissolve, its middle.
    """
    overlap = round(dissolve_s * fps)
    joins: list[float] = [0.0]
    count = 0
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps))
        stream.pix_fmt, stream.options = "yuv420p", {"preset": "veryfast", "crf": str(crf)}

        def put(image: np.ndarray) -> None:
            if not count:
                stream.height, stream.width = image.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))

        tail: deque[np.ndarray] = deque()  # the last frames of the shot before, not yet written
        for number, shot in enumerate(shots):
            if number:
                joins.append((count + len(tail) / 2) / fps)
            before = list(tail)
            tail.clear()
            for position, image in enumerate(shot):
                if position < len(before):
                    part = (position + 1) / (len(before) + 1)
                    image = (before[position] * (1 - part) + image * part).astype(np.uint8)
                tail.append(image)
                if len(tail) > overlap:
                    put(tail.popleft())
                    count += 1
        for image in tail:
            put(image)
            count += 1
        container.mux(stream.encode(None))
    return list(zip(joins, [*joins[1:], count / fps], strict=True))


def clip_frames(path: Path) -> Iterator[np.ndarray]:
    """Decode a clip at `CLIP_FPS`, each image by its presentation time."""
    with av.open(str(path)) as container:
        shown = 0
        last: np.ndarray | None = None
        first: float | None = None
        for frame in container.decode(video=0):
            first = frame.time if first is None else first
            while last is not None and first + shown / CLIP_FPS < frame.time - 1e-6:
                yield last
                shown += 1
            last = frame.to_ndarray(format="rgb24", width=CLIP_SIZE[0], height=CLIP_SIZE[1])
        if last is not None:
            yield last


def clip_films(clips: Path, folder: Path, *, films: int, dissolve_s: float, seed: int) -> Films:
    """Join the clips of a folder in random order into films of `SHOTS`."""
    rows = list(csv.DictReader((clips / "captions.csv").open(encoding="utf-8")))
    order = np.random.default_rng(seed).permutation(len(rows))
    folder.mkdir(parents=True, exist_ok=True)
    told: list[Told] = []
    for film in range(films):
        chosen = [rows[number] for number in order[film * SHOTS : (film + 1) * SHOTS]]
        path = folder / f"film {film + 1}{f', dissolves {dissolve_s:g} s' if dissolve_s else ''}.mp4"
        shots = (clip_frames(clips / row["file"]) for row in chosen)
        spans = write_film(path, shots, fps=CLIP_FPS, dissolve_s=dissolve_s)
        told += [Told(path, row["caption"], *span) for row, span in zip(chosen, spans, strict=True)]
    return Films(told, [clips / rows[number]["file"] for number in order[films * SHOTS :]], dissolve_s)


def photo_films(
    data: Path, folder: Path, *, films: int, singles: int, dissolve_s: float, seed: int, split: str = "val"
) -> Films:
    """Show photographs of Flickr8k as films of `SHOTS` and as single clips.

    Args:
        singles: further photographs, each a clip of its own. Their sentences are `Told` as well.
    """
    flickr = data / "images" / "flickr8k"
    captions: dict[str, str] = {}
    for row in csv.DictReader((flickr / "captions.csv").open(encoding="utf-8")):
        if row["split"] == split:
            captions.setdefault(row["file"], row["caption"])
    rng = np.random.default_rng(seed)
    names = list(rng.permutation(sorted(captions)))[: films * SHOTS + singles]
    folder.mkdir(parents=True, exist_ok=True)
    told: list[Told] = []
    groups = [names[film * SHOTS : (film + 1) * SHOTS] for film in range(films)] + [[n] for n in names[films * SHOTS :]]
    with tempfile.TemporaryDirectory() as scratch:
        for number, group in enumerate(groups):
            path = folder / f"{'film' if len(group) > 1 else 'clip'} {seed}-{number}.mp4"
            shots = [partial(_photo_frames, flickr / "images" / name, rng, Path(scratch)) for name in group]
            spans = write_film(path, (shot() for shot in shots), fps=PHOTO_FPS, dissolve_s=dissolve_s)
            told += [Told(path, captions[name], *span) for name, span in zip(group, spans, strict=True)]
    return Films(told, [], dissolve_s)


def _photo_frames(photo: Path, rng: np.random.Generator, scratch: Path) -> Iterator[np.ndarray]:
    """Yield the frames of a shot of 2.5 to 12 s; one in four is two parts of the photograph, one after the other."""
    seconds = float(np.exp(rng.uniform(np.log(2.5), np.log(12))))
    if rng.random() >= 0.25:
        return random_shot(photo, rng, seconds=seconds).frames(rng)
    image = Image.open(photo).convert("RGB")
    parts = []
    for number, (left, right) in enumerate(((0.0, 0.65), (0.35, 1.0))):
        parts.append(scratch / f"{number}.png")
        image.crop((round(left * image.width), 0, round(right * image.width), image.height)).save(parts[-1])
    share = float(rng.uniform(0.3, 0.7))
    halves: Sequence[float] = (share * seconds, (1 - share) * seconds)
    both = zip(parts, halves, strict=True)
    return chain.from_iterable(random_shot(part, rng, seconds=half).frames(rng) for part, half in both)
