"""A tiny deterministic encoder for unit tests: it encodes the mean colour of an image, and the colours in a text.

The text "red" finds red frames, and an image takes microseconds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from impart.encoders.base import Encoder, EncoderTraits, ImageEmbeddings, ImageInput, l2_normalise

COLOURS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "magenta": (255, 0, 255),
    "cyan": (0, 255, 255),
    "white": (255, 255, 255),
    "black": (0, 0, 0),
    "grey": (128, 128, 128),
    "orange": (255, 128, 0),
}
DIM = 16
RETRIEVAL_DIM = 8


class TinyEncoder:
    """Encoder that projects the mean colour with a fixed random matrix; `seed` selects the matrix and fingerprint."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self._project = rng.standard_normal((4, DIM)).astype(np.float32)
        self._retrieval = rng.standard_normal((4, RETRIEVAL_DIM)).astype(np.float32)
        self._seed = seed
        self.images_encoded = 0

    @property
    def traits(self) -> EncoderTraits:
        return EncoderTraits(
            id="tiny" if self._seed == 0 else f"tiny:{self._seed}",
            dim=DIM,
            retrieval_dim=RETRIEVAL_DIM,
            own_retrieval=True,
            image_size_px=32,
            context_tokens=64,
        )

    @property
    def fingerprint(self) -> str:
        return f"{self._seed:016x}"

    def encode_images(self, images: Sequence[ImageInput]) -> ImageEmbeddings:
        self.images_encoded += len(images)
        rows = [np.asarray(image if isinstance(image, np.ndarray) else image.convert("RGB")) for image in images]
        means = np.stack([_lift(row.reshape(-1, 3).mean(axis=0)) for row in rows])  # (B, 4)
        return ImageEmbeddings(l2_normalise(means @ self._project), l2_normalise(means @ self._retrieval))

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        rows = []
        for text in texts:
            named = [COLOURS[word] for word in re.findall("[a-z]+", text.lower()) if word in COLOURS]
            rows.append(_lift(np.mean(named, axis=0) if named else np.array([90.0, 60.0, 30.0])))
        return l2_normalise(np.stack(rows) @ self._project)


def _lift(rgb: np.ndarray) -> np.ndarray:
    """Map a mean colour (3,) in 0..255 to (4,): centred, with a constant, so that no colour is the zero vector."""
    return np.concatenate([rgb / 127.5 - 1.0, [0.5]]).astype(np.float32)


_: type[Encoder] = TinyEncoder
