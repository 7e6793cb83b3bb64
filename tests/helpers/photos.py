"""Images with the statistics of a photograph, and films of them: for tests in which solid colours are too simple."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from helpers.clips import write_frames
from helpers.tiny_encoder import COLOURS


def photo_like(number: int, *, size: tuple[int, int] = (160, 120)) -> np.ndarray:
    """Make an image of patches, uint8 (h, w, 3), with a mean colour of its own; `size` is (width, height)."""
    rng = np.random.default_rng(number)
    colour = np.array(list(COLOURS.values())[number % len(COLOURS)])
    small = Image.fromarray((rng.integers(0, 128, (9, 12, 3)) + colour // 2).astype(np.uint8))
    return np.asarray(small.resize(size, Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(1)))


def write_shots(path: Path, lengths: Sequence[int], *, fps: float = 25.0, dissolve: int = 0, **options: str) -> Path:
    """Write still shots of different images, of `lengths` frames, joined by cuts or dissolves of `dissolve` frames."""
    images: list[np.ndarray] = []
    for number, length in enumerate(lengths):
        image = photo_like(number)
        if images:
            before = images[-1].astype(np.float32)
            for i in range(dissolve):
                part = (i + 1) / (dissolve + 1)
                images.append((before * (1 - part) + image * part).astype(np.uint8))
        images += [image] * length
    return write_frames(path, images, times_s=[i / fps for i in range(len(images))], last_s=1 / fps, **options)
