"""Render films with known transitions from photographs that are not evaluation data, or by joining clips.

    film = photo_film(Path("film.mp4"), photos, kinds=("cut", "dissolve"), fps=25, seed=3)
    film.transitions        # (Transition("cut", 3.2, 0.0), ...)

A shot is a camera movement over one photograph. It may contain what is no transition: a flash of one frame, a fast pan,
shaking, a change of the exposure, a large object that crosses the image, movement on every second frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import av
import numpy as np
from PIL import Image

SIZE = (320, 180)
BLACK_S = 0.2  # between a fade to black and a fade from black
LENGTHS_S = (0.5, 1.0, 2.0)  # of dissolves and fades
TICKS = 12_800
SOURCES = ("flickr8k", "openstax", "imagenet_sample", "more/landmarks", "more/miniplaces")


@dataclass(frozen=True)
class Transition:
    """A transition at `time_s`: of the first frame behind a cut, of the middle of a dissolve or fade."""

    kind: str
    time_s: float
    length_s: float


@dataclass(frozen=True)
class Film:
    """A rendered file. `fps` is 0 for a variable rate; `frame_s` is the longest time between two frames at a cut."""

    path: Path
    transitions: tuple[Transition, ...]
    fps: float
    duration_s: float
    times_s: tuple[float, ...]


class Shot(Protocol):
    """Images of one shot by time."""

    seconds: float

    def image(self, time_s: float) -> np.ndarray: ...


class PhotoShot:
    """Camera movement over one photograph; speeds are fractions of the width per second."""

    KINDS = ("still", "pan", "zoom", "fast pan", "shake", "flash", "exposure", "object", "stutter", "slow pan")

    def __init__(self, photo: Path, rng: np.random.Generator, *, seconds: float, close: bool = False) -> None:
        image = np.asarray(Image.open(photo).convert("RGB").resize((480, 320)))
        self._canvas = Image.fromarray(np.concatenate([image, image[:, ::-1], image], axis=1))  # room for a pan
        self.seconds, self._rng = seconds, rng
        self.kind = str(rng.choice(self.KINDS))
        self._angle = float(rng.uniform(-0.3, 0.3)) + (np.pi if rng.random() < 0.5 else 0)
        self._speed = {
            "pan": float(rng.uniform(0.05, 0.25)),
            "slow pan": float(rng.uniform(0.01, 0.05)),
            "fast pan": float(rng.uniform(0.6, 1.5)),
            "stutter": 0.2,
            "object": 0.02,
        }.get(self.kind, 0.0)
        self._zoom = float(rng.uniform(0.03, 0.15)) if self.kind == "zoom" else 0.0
        self._window = 200.0 if close else 400.0
        self._centre = np.array([rng.uniform(620, 820), rng.uniform(0.4, 0.6) * 320])
        self._at_s = float(rng.uniform(0.3, 0.7)) * seconds
        self._shakes = rng.normal(0, 0.01, (4096, 2))
        self._patch = Image.fromarray(255 - image).resize((110, 110))
        self._flashed = False

    def image(self, time_s: float) -> np.ndarray:
        moved_s = time_s
        if self.kind == "stutter":
            moved_s = np.floor(time_s * 12) / 12
        if self.kind == "fast pan":  # quick in the middle of the shot, for half a second
            moved_s = float(np.clip(time_s - self._at_s, -0.25, 0.25))
        else:
            moved_s -= self.seconds / 2
        shift = np.array([np.cos(self._angle), np.sin(self._angle) * 0.3]) * self._speed * moved_s * self._window
        if self.kind == "shake":
            shift = shift + self._shakes[int(time_s * 60) % 4096] * self._window
        shown = min(self._window * (1 - self._zoom * moved_s), 460.0)
        half = np.array([shown, shown * SIZE[1] / SIZE[0]]) / 2
        middle = np.clip(self._centre + shift, half, np.array(self._canvas.size) - half)
        box = (*(middle - half), *(middle + half))
        image = self._canvas.resize(SIZE, Image.Resampling.BILINEAR, box=box)
        if self.kind == "object":
            at = round((time_s / self.seconds * 1.6 - 0.3) * SIZE[0])
            image.paste(self._patch, (at, 50))
        pixels = np.asarray(image, np.float32)
        if self.kind == "exposure":
            pixels = pixels * (1 - 0.5 * np.clip((time_s - self._at_s) / 0.6, 0, 1))
        if self.kind == "flash" and not self._flashed and time_s >= self._at_s:
            self._flashed = True
            pixels = pixels * 0.2 + 204
        return pixels


class ClipShot:
    """A clip of a real video, or its first seconds."""

    def __init__(self, path: Path, *, most_s: float = 8.0) -> None:
        self._images: list[np.ndarray] = []
        self._times: list[float] = []
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                if frame.time is None or frame.time - (self._times[0] if self._times else frame.time) > most_s:
                    break
                self._times.append(frame.time)
                self._images.append(frame.reformat(*SIZE, format="rgb24").to_ndarray())
        self.seconds = self._times[-1] - self._times[0]

    def image(self, time_s: float) -> np.ndarray:
        at = int(np.searchsorted(self._times, self._times[0] + time_s + 1e-6, side="right")) - 1
        return self._images[max(0, at)].astype(np.float32)


def join(
    path: Path,
    shots: Sequence[Shot],
    kinds: Sequence[tuple[str, float]],
    *,
    fps: float,
    seed: int,
    crf: int = 23,
    **options: str,
) -> Film:
    """Write shots, joined by transitions.

    Args:
        kinds: kind (cut, dissolve, fade) and length in seconds of the transition behind each shot but the last.
        fps: 0 = a variable rate, from 12 to 60 frames per second.
    """
    rng = np.random.default_rng(seed)
    starts, ends, found = [0.0], [shots[0].seconds], []
    for shot, (kind, length_s) in zip(shots[1:], kinds, strict=True):
        start_s = ends[-1] + {"cut": 0.0, "dissolve": -length_s, "fade": BLACK_S}[kind]
        found.append(Transition(kind, (start_s + ends[-1]) / 2, length_s))
        starts.append(start_s)
        ends.append(start_s + shot.seconds)
    if fps:
        times = np.arange(round(ends[-1] * fps)) / fps
    else:
        steps = rng.choice([1 / 60, 1 / 30, 1 / 24, 1 / 12], int(ends[-1] * 60), p=[0.3, 0.3, 0.3, 0.1])
        times = np.concatenate([[0.0], np.cumsum(steps)])
        times = times[times < ends[-1]]
    found = [
        Transition(one.kind, float(times[times >= one.time_s - 1e-6][0]), 0.0) if one.kind == "cut" else one
        for one in found
    ]
    _write(path, _images(shots, starts, ends, kinds, times), times, crf=crf, **options)
    return Film(path, tuple(found), fps, float(ends[-1]), tuple(float(time_s) for time_s in times))


def _images(
    shots: Sequence[Shot],
    starts: Sequence[float],
    ends: Sequence[float],
    kinds: Sequence[tuple[str, float]],
    times: np.ndarray,
) -> Iterator[np.ndarray]:
    for time_s in times:
        on = [i for i in range(len(shots)) if starts[i] - 1e-6 <= time_s < ends[i] - 1e-6]
        if not on:  # between two fades
            yield np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
            continue
        image = shots[on[0]].image(time_s - starts[on[0]])
        if len(on) > 1:
            part = (time_s - starts[on[1]]) / (ends[on[0]] - starts[on[1]])
            image = image * (1 - part) + shots[on[1]].image(time_s - starts[on[1]]) * part
        else:
            i = on[0]
            if i < len(kinds) and kinds[i][0] == "fade":
                image = image * np.clip((ends[i] - time_s) / kinds[i][1], 0, 1)
            if i and kinds[i - 1][0] == "fade":
                image = image * np.clip((time_s - starts[i]) / kinds[i - 1][1], 0, 1)
        yield np.clip(image, 0, 255).astype(np.uint8)


def _write(path: Path, images: Iterator[np.ndarray], times: np.ndarray, *, crf: int, **options: str) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.codec_context.time_base = Fraction(1, TICKS)
        stream.options = {"preset": "veryfast", "crf": str(crf), "threads": "1", **options}
        for image, time_s in zip(images, times, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = round(time_s * TICKS), Fraction(1, TICKS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def photo_film(
    path: Path, photos: Sequence[Path], *, kinds: Sequence[str], fps: float, seed: int, short: bool = False
) -> Film:
    """Render a film of one shot per photograph; every fifth shot is followed by a close-up of the same photograph.

    Args:
        kinds: of transitions, drawn with equal probabilities.
        short: a third of the shots have 8 frames.
    """
    rng = np.random.default_rng(seed)
    shots: list[Shot] = []
    for number, photo in enumerate(photos):
        seconds = float(rng.uniform(1.5, 4.5)) if kinds == ("cut",) else float(rng.uniform(4.5, 7))
        if short and number % 3 == 1:
            seconds = 8 / fps
        seconds = round(seconds * fps) / fps if fps else seconds
        shots.append(PhotoShot(photo, rng, seconds=seconds))
        if number % 5 == 4:
            shots.append(PhotoShot(photo, rng, seconds=seconds, close=True))
    joins = [(str(rng.choice(kinds)), float(rng.choice(LENGTHS_S))) for _ in shots[1:]]
    return join(path, shots, joins, fps=fps, seed=seed, crf=int(rng.integers(20, 34)))


def photos(data: Path, count: int, rng: np.random.Generator) -> list[Path]:
    """Draw different photographs, as many of each source."""
    chosen: list[list[Path]] = []
    for name in SOURCES:
        found = sorted(p for p in (data / "images" / name).rglob("*") if p.suffix.lower() in (".jpg", ".png", ".jpeg"))
        order = rng.permutation(len(found))[: count // len(SOURCES) + 1]
        chosen.append([found[i] for i in order])
    mixed = [path for group in zip(*chosen, strict=False) for path in group]
    return mixed[:count]
