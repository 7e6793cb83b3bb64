"""Augmented images: random crops, shrunk copies, mirrored copies.

Mode `pretrain` uses `random_crop_box`. Modes `heads` and `episodes`, and the recipe of `mini`, use named views:

    clean                 the image as it is
    crop0, crop1, ...     random crops, some of them mirrored
    small0, small1, ...   random crops shrunk to 32-64 px: the heads learn the features of tiny images

Every random choice is seeded by (seed, view, file name): a rerun, or a run with more images, gives the same views.
"""

from __future__ import annotations

import io
import logging
import math
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from impart.errors import DataError
from impart.images import load_image

__all__ = ["FILTERS", "random_crop_box", "open_view", "portable_name", "recompress", "try_open_view", "view"]

_log = logging.getLogger(__name__)
_SMALL_PX = (32, 64)
_CROPS = 10  # draws of a crop until one fits
FILTERS = (Image.Resampling.BOX, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)
"""Filters that images are shrunk with, drawn at random."""


def view(image: Image.Image, name: str, *, seed: int) -> Image.Image:
    """Return one view of an image.

    Args:
        image: RGB.
        name: `clean`, or `crop` or `small` followed by a number.
        seed: of this image and view.

    Raises:
        DataError: there is no such view.
    """
    if name == "clean":
        return image
    rng = np.random.default_rng(seed)
    kind = name.rstrip("0123456789")
    if kind not in {"crop", "small"}:
        raise DataError(f"no view {name!r}: there are clean, crop0, crop1, ..., small0, small1, ...")
    image = _random_crop(image, rng, area=(0.35, 1.0) if kind == "crop" else (0.5, 1.0))
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if kind == "small":
        low, high = _SMALL_PX
        side = round(low * (high / low) ** (rng.random() ** 2))  # more often near 32
        side = min(side, *image.size)
        image = image.resize((side, side), FILTERS[rng.integers(len(FILTERS))])
        if rng.random() < 0.3:
            image = recompress(image, quality=int(rng.integers(60, 96)))
    return image


def _random_crop(image: Image.Image, rng: np.random.Generator, *, area: tuple[float, float]) -> Image.Image:
    """Crop a nearly square part; `area` is the range of its share of the largest centre square."""
    width, height = image.size
    square = min(width, height)
    side = np.sqrt(rng.uniform(*area)) * square
    aspect = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)) / 2)
    w, h = min(width, max(1, round(side * aspect))), min(height, max(1, round(side / aspect)))
    # Centre-weighted (the mean of two uniform draws), since objects are near the centre.
    left = round((width - w) * (rng.random() + rng.random()) / 2)
    top = round((height - h) * (rng.random() + rng.random()) / 2)
    return image.crop((left, top, left + w, top + h))


def random_crop_box(
    size: tuple[int, int], smallest: float, rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """Draw a box (left, top, right, bottom) in pixels with at least a share of the area, sides at most 4:3."""
    width, height = size
    for _ in range(_CROPS):
        area = width * height * rng.uniform(smallest, 1)
        ratio = math.exp(rng.uniform(-math.log(4 / 3), math.log(4 / 3)))
        w, h = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if w <= width and h <= height:
            left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
            return left, top, left + w, top + h
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def recompress(image: Image.Image, *, quality: int) -> Image.Image:
    """Encode an image as JPEG and decode it again."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return load_image(buffer.getvalue())[0]


def portable_name(path: Path) -> str:
    """Return a name that does not depend on the location of the data: the last four parts of the path."""
    return "/".join(path.parts[-4:])


def open_view(job: tuple[Path, str, int]) -> Image.Image:
    """Open a view of an image file; the job is (file, view, seed).

    Raises:
        DataError: the image cannot be read.
    """
    path, name, seed = job
    try:
        rgb, _ = load_image(path)
    except DataError as error:
        raise DataError(f"cannot read image {path}: {error}") from error
    return view(rgb, name, seed=zlib.crc32(f"{seed}|{name}|{portable_name(path)}".encode()))


def try_open_view(job: tuple[Path, str, int]) -> Image.Image | None:
    """Open a view like `open_view`; log a warning and return None if the image cannot be read."""
    try:
        return open_view(job)
    except DataError as error:
        _log.warning("%s", error)
        return None
