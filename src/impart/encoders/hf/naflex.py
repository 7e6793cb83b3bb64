"""Preprocess images for NaFlex towers (SigLIP 2): patches of an image that keeps its aspect ratio.

An image is scaled so that it has at most `max_patches` patches, with both sides rounded up to whole patches. Fewer
patches are padded with zeros, and masked.

Source: Tschannen et al., SigLIP 2, 2025, section 2.4; after NaViT (Dehghani et al., 2023).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from impart.encoders.base import Float32, ImageInput
from impart.encoders.preprocess import Interpolation
from impart.images import to_rgb

__all__ = ["PatchConfig", "patch_grid", "patch_inputs"]

_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_SCALES, _SCALE_STEP = (1e-6, 100.0), 1e-5
"""Range and end of the search for the scale, as in transformers: another end gives another grid for some images."""


@dataclass(frozen=True, kw_only=True)
class PatchConfig:
    """Preprocessing settings of a NaFlex tower.

    Attributes:
        patch_px: side of a patch.
        max_patches: P, most patches per image.
        interpolation: `bicubic` or `bilinear`, both antialiased.
        mean: per channel, on the 0..1 scale.
        std: per channel, on the 0..1 scale.
    """

    patch_px: int
    max_patches: int
    interpolation: Interpolation
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def side_px(self) -> int:
        """Side of a square image with P patches."""
        return math.isqrt(self.max_patches) * self.patch_px

    def to_dict(self) -> dict[str, Any]:
        """Convert to JSON values."""
        return {
            "patch": self.patch_px,
            "max_patches": self.max_patches,
            "interpolation": self.interpolation,
            "mean": list(self.mean),
            "std": list(self.std),
        }


def patch_grid(height: int, width: int, config: PatchConfig) -> tuple[int, int]:
    """Compute rows and columns of patches of an image of this size in pixels.

    >>> config = PatchConfig(patch_px=16, max_patches=256, interpolation="bilinear", mean=(0.5,) * 3, std=(0.5,) * 3)
    >>> patch_grid(480, 640, config), patch_grid(100, 100, config)
    ((14, 18), (16, 16))
    """

    def grid(scale: float) -> tuple[int, int]:
        rows, columns = (math.ceil(side * scale / config.patch_px) for side in (height, width))
        return max(rows, 1), max(columns, 1)

    low, high = _SCALES
    while high - low >= _SCALE_STEP:
        middle = (low + high) / 2
        rows, columns = grid(middle)
        low, high = (middle, high) if rows * columns <= config.max_patches else (low, middle)
    return grid(low)


def patch_inputs(
    images: Sequence[ImageInput], config: PatchConfig
) -> tuple[Float32, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Preprocess B images to patches.

    Args:
        images: B PIL images of any mode, or RGB uint8 arrays (height, width, 3), of any sizes.
        config: of the model.

    Returns:
        patches (B, P, 3 * patch_px ** 2) float32, mask (B, P), and rows and columns of patches (B, 2).

    Raises:
        DataError: an image cannot be read.
    """
    side, total = config.patch_px, config.max_patches
    patches = np.zeros((len(images), total, 3 * side**2), dtype=np.float32)
    mask = np.zeros((len(images), total), dtype=np.int64)
    grids = np.zeros((len(images), 2), dtype=np.int64)
    mean, std = np.array(config.mean), np.array(config.std)
    for index, image in enumerate(images):
        opened = to_rgb(Image.fromarray(image) if isinstance(image, np.ndarray) else image)
        rows, columns = patch_grid(opened.height, opened.width, config)
        if opened.size != (columns * side, rows * side):
            opened = opened.resize((columns * side, rows * side), resample=_FILTERS[config.interpolation])
        pixels = (np.asarray(opened) / 255.0 - mean) / std  # (rows * side, columns * side, 3)
        squares = pixels.reshape(rows, side, columns, side, 3).swapaxes(1, 2)  # (rows, columns, side, side, 3)
        patches[index, : rows * columns] = squares.reshape(rows * columns, -1)
        mask[index, : rows * columns] = 1
        grids[index] = rows, columns
    return patches, mask, grids
