"""Moving textures, and an encoder that tells them apart: an image is its 8 x 8 grey levels, around their mean."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from helpers.clips import write_frames
from impart.encoders.base import EncoderTraits, ImageEmbeddings, ImageInput, l2_normalise

__all__ = ["TextureEncoder", "texture_images", "write_texture"]

FPS = 8
_GRID = 8


class TextureEncoder:
    """Encoder of grey levels; an image of one colour is a vector of its own."""

    fingerprint = "textures00000001"

    @property
    def traits(self) -> EncoderTraits:
        dim = _GRID * _GRID + 1
        return EncoderTraits(
            id="textures", dim=dim, retrieval_dim=dim, own_retrieval=True, image_size_px=32, context_tokens=64
        )

    def encode_images(self, images: Sequence[ImageInput]) -> ImageEmbeddings:
        rows = [_features(image) for image in images]
        made = l2_normalise(np.stack(rows))
        return ImageEmbeddings(made, made)

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        return l2_normalise(np.ones((len(texts), self.traits.dim), np.float32))


def _features(image: ImageInput) -> np.ndarray:
    shown = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    small = np.asarray(shown.convert("L").resize((_GRID, _GRID), Image.Resampling.BOX), np.float32).reshape(-1) / 64
    return np.append(small - small.mean(), 0.3).astype(np.float32)


def texture_images(seed: int, *, seconds: float, shot_s: float = 1.0) -> list[np.ndarray]:
    """Make images of shots that each move over a random texture of their own, `FPS` per second."""
    rng = np.random.default_rng(seed)
    images: list[np.ndarray] = []
    while len(images) < round(seconds * FPS):
        coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize((240, 180))
        for step in range(round(shot_s * FPS)):
            images.append(np.asarray(coarse.crop((step * 3, step * 2, step * 3 + 160, step * 2 + 120))))
    return images[: round(seconds * FPS)]


def write_texture(path: Path, images: Sequence[np.ndarray], *, speed: float = 1.0) -> Path:
    """Write images as a video, `FPS * speed` per second."""
    return write_frames(path, images, times_s=[number / FPS / speed for number in range(len(images))], last_s=0.1)
