"""Render clips with known camera movement and known cuts, from photographs that are not evaluation data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageEnhance

SIZE = (480, 270)
FPS = 12


@dataclass(frozen=True)
class Shot:
    """Camera movement over one photograph; speeds are fractions of the image width per second."""

    photo: Path
    seconds: float
    pan: float = 0.0
    zoom: float = 0.0
    shake: float = 0.0  # standard deviation, fraction of the width
    flicker: float = 0.0  # standard deviation of the brightness
    mover: float = 0.0  # side of a patch that crosses the still image, fraction of the height

    def frames(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Yield uint8 (h, w, 3) images, FPS per second."""
        width, height = SIZE
        photo = Image.open(self.photo).convert("RGB")
        aspect = width / height
        window = min(photo.width, photo.height * aspect) * 0.75  # width of the part shown at first
        room = photo.width - window, photo.height - window / aspect
        direction = rng.uniform(0, 2 * np.pi)
        centre = np.array([room[0] / 2 + window / 2, room[1] / 2 + window / aspect / 2])
        patch = photo.resize((48, 48))
        for number in range(round(self.seconds * FPS)):
            time_s = number / FPS - self.seconds / 2
            shift = np.array([np.cos(direction), np.sin(direction)]) * self.pan * time_s * window
            shift = shift + rng.normal(0, 1, 2) * self.shake * window
            shown = min(window * (1 - self.zoom * time_s), photo.width, photo.height * aspect)
            half = np.array([shown, shown / aspect]) / 2
            middle = np.clip(centre + shift, half, np.array(photo.size) - half)
            box = (*(middle - half), *(middle + half))
            image = photo.resize(SIZE, Image.Resampling.BICUBIC, box=box)
            if self.flicker:
                image = ImageEnhance.Brightness(image).enhance(1 + rng.normal(0, self.flicker))
            if self.mover:
                side = round(self.mover * height)
                at = round((number / FPS / self.seconds) * (width + side)) - side
                image.paste(patch.resize((side, side)), (at, height // 2))
            yield np.asarray(image)


def render(path: Path, shots: list[Shot], *, seed: int, crf: int = 26, dissolve_s: float = 0.0) -> list[float]:
    """Write a sequence of shots as H.264.

    Args:
        dissolve_s: overlap of neighbouring shots; 0 = hard cuts.

    Returns:
        Times of the cuts (middle of a dissolve), seconds.
    """
    rng = np.random.default_rng(seed)
    overlap = round(dissolve_s * FPS)
    images: list[np.ndarray] = []
    cuts: list[float] = []
    for shot in shots:
        frames = list(shot.frames(rng))
        if images:
            cuts.append((len(images) - overlap / 2) / FPS)
            for i in range(overlap):
                part = (i + 1) / (overlap + 1)
                mixed = images[i - overlap] * (1 - part) + frames[i] * part
                images[i - overlap] = mixed.astype(np.uint8)
        images += frames[overlap if cuts else 0 :]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(FPS))
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.options = {"preset": "veryfast", "crf": str(crf)}
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return cuts


def random_shot(photo: Path, rng: np.random.Generator, *, seconds: float) -> Shot:
    """Draw a still, slow, quick, shaky, flickering or partly moving shot, with equal probabilities."""
    speed = float(10 ** rng.uniform(-2.7, -0.7))  # 0.2% to 20% of the width per second
    kinds = [
        {},
        {"pan": speed},
        {"zoom": min(speed, 0.1)},
        {"pan": speed, "zoom": min(speed, 0.1), "shake": 0.002},
        {"shake": float(10 ** rng.uniform(-3, -2))},
        {"flicker": float(10 ** rng.uniform(-2.5, -1.3))},
        {"mover": float(rng.uniform(0.05, 0.4))},
    ]
    return Shot(photo, seconds, **kinds[rng.integers(len(kinds))])


def photos(data: Path, count: int, rng: np.random.Generator) -> list[Path]:
    """Draw different photographs of flickr8k and openstax, half of each."""
    folders = [data / "images" / name for name in ("flickr8k", "openstax")]
    found = [sorted(path for path in folder.rglob("*") if path.suffix in (".jpg", ".png")) for folder in folders]
    chosen = [list(rng.choice(np.array(paths, dtype=object), count // 2 + 1, replace=False)) for paths in found]
    mixed = [path for pair in zip(*chosen, strict=True) for path in pair][:count]
    return [Path(path) for path in mixed]
