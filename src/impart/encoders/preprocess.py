"""Preprocess images for the image towers: resize, crop, normalise. All backends use this implementation.

Resizing uses PIL's antialiased filter, as OpenAI's CLIP, open_clip and the PIL processors of transformers do. PIL's
`reducing_gap` is not used: it changes the values.

- The long side after "shortest" resizing is `int(size * long / short)`, not rounded, in open_clip and transformers.
- The crop starts at `(extent - size) // 2` in transformers, and at `round((extent - size) / 2)`, half to even, in
  torchvision and therefore in open_clip: a difference of one pixel for every fourth extent (setting `crop_start`).

An image of any mode becomes upright 8-bit RGB first, by the rule of `impart.images`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from impart.encoders.base import Float32, ImageInput
from impart.errors import ConfigError, DataError
from impart.images import to_rgb

__all__ = [
    "CLIP_MEAN",
    "CLIP_STD",
    "PreprocessConfig",
    "fitted",
    "per_channel",
    "preprocess",
    "short_side",
    "square_pixels",
    "square_side",
    "squashed",
]

ResizeMode = Literal["shortest", "squash"]
Interpolation = Literal["bicubic", "bilinear"]
CropStart = Literal["floor", "round"]

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_WIDEST_ASPECT = 64
"""Above this aspect ratio only the middle is resized: a 1 x 20,000 image would become gigabytes otherwise."""


@dataclass(frozen=True, kw_only=True)
class PreprocessConfig:
    """Preprocessing settings of an image tower.

    The input is (3, S, S), RGB, channels first: `(pixel / 255 - mean) / std`.

    Attributes:
        size_px: S, side of the square input.
        resize_mode: `shortest` scales the short side to S and crops the centre; `squash` scales both sides to S.
        crop: `center`.
        interpolation: `bicubic` or `bilinear`, both antialiased.
        mean: per channel, on the 0..1 scale.
        std: per channel, on the 0..1 scale.
        crop_start: rounding of half a pixel of crop offset: `floor` (transformers) or `round` (open_clip).
        resize_px: side to scale to before the crop, where it is larger than S; None = S.

    Raises:
        ConfigError: a value is not supported.
    """

    size_px: int = 224
    resize_mode: ResizeMode = "shortest"
    crop: Literal["center"] = "center"
    interpolation: Interpolation = "bicubic"
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    crop_start: CropStart = "floor"
    resize_px: int | None = None

    def __post_init__(self) -> None:
        if self.size_px < 1:
            raise ConfigError(f"preprocessing size is {self.size_px} px: it must be at least 1")
        if self.resize_px is not None and self.resize_px <= self.size_px:
            raise ConfigError(f"preprocessing resizes to {self.resize_px} px, but crops to {self.size_px} px")
        for name, value, kind in (
            ("resize mode", self.resize_mode, ResizeMode),
            ("interpolation", self.interpolation, Interpolation),
            ("crop start", self.crop_start, CropStart),
        ):
            if value not in get_args(kind):
                raise ConfigError(f"preprocessing {name} is {value!r}: use {' or '.join(get_args(kind))}")
        if self.crop != "center":
            raise ConfigError(f"preprocessing crop is {self.crop!r}: only 'center' is supported")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ConfigError(
                f"preprocessing needs three means and three positive deviations, not {self.mean}, {self.std}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Convert to the keys of open_clip's `preprocess_cfg.json`, and `crop_start` and `resize_px`."""
        resized = {} if self.resize_px is None else {"resize_px": self.resize_px}  # digests of other models stay
        return {
            "size": self.size_px,
            "mode": "RGB",
            "mean": list(self.mean),
            "std": list(self.std),
            "interpolation": self.interpolation,
            "resize_mode": self.resize_mode,
            "crop_start": self.crop_start,
            **resized,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PreprocessConfig:
        """Convert the output of `to_dict`, or open_clip's `preprocess_cfg.json` (then with the crop of open_clip).

        Raises:
            ConfigError: a key is missing, or a value is not supported.
        """
        for name in ("size", "mean", "std"):
            if name not in values:
                raise ConfigError(
                    f"preprocessing settings have no {name!r}: without it embeddings would be silently wrong"
                )
        if values.get("mode", "RGB") != "RGB":
            raise ConfigError(f"preprocessing mode is {values['mode']!r}: only RGB is supported")
        interpolation: Any = values.get("interpolation") or "bicubic"
        return cls(
            size_px=square_side(values["size"], name="size"),
            resize_mode=values.get("resize_mode") or "shortest",
            # "random" of open_clip is a training augmentation; at inference it means bicubic.
            interpolation="bicubic" if interpolation == "random" else interpolation,
            mean=per_channel(values["mean"]),
            std=per_channel(values["std"]),
            crop_start=values.get("crop_start", "round"),
            resize_px=values.get("resize_px"),
        )


def preprocess(images: Sequence[ImageInput], config: PreprocessConfig) -> Float32:
    """Preprocess B images to one input batch.

    An image whose short side is S px is only cropped, and an array of S x S is only normalised: frames that the video
    decoder has scaled are not converted to PIL images.

    Args:
        images: B PIL images of any mode, or RGB uint8 arrays (height, width, 3), of any sizes.
        config: of the model.

    Returns:
        (B, 3, S, S) float32.

    Raises:
        DataError: an array has another shape or type, or an image cannot be read.
    """
    size = config.size_px
    batch = np.empty((len(images), 3, size, size), dtype=np.float32)
    # One table of 256 values per channel, computed in float64: exact, and one pass over the pixels.
    levels = np.arange(256, dtype=np.float64) / 255.0
    tables = [((levels - mean) / std).astype(np.float32) for mean, std in zip(config.mean, config.std, strict=True)]
    for row, image in zip(batch, images, strict=True):  # row: (3, S, S)
        pixels = square_pixels(image, config)  # (S, S, 3)
        for channel, table in enumerate(tables):
            np.take(table, pixels[:, :, channel], out=row[channel], mode="clip")
    return batch


def short_side(image: ImageInput) -> int:
    """Return the shorter side of an image in pixels."""
    return min(image.shape[:2]) if isinstance(image, np.ndarray) else min(image.size)


def square_pixels(image: ImageInput, config: PreprocessConfig) -> npt.NDArray[np.uint8]:
    """Resize and crop an image: (S, S, 3) uint8."""
    size = config.size_px
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
            raise DataError(
                f"expected RGB pixels of shape (height, width, 3) and type uint8, got {image.shape} {image.dtype}"
            )
        height, width = image.shape[:2]
    else:
        image = to_rgb(image)
        width, height = image.size
    new_width, new_height = _resized(width, height, config)
    if (new_width, new_height) != (width, height):
        image = _scaled(Image.fromarray(image) if isinstance(image, np.ndarray) else image, config)
    pixels = np.asarray(image)  # (new_height, new_width, 3)
    top, left = (_crop_start(extent, config) for extent in pixels.shape[:2])
    return pixels[top : top + size, left : left + size]


def squashed(image: ImageInput, *, side_px: int) -> ImageInput:
    """Resize a whole image to a square, as `DecodeSettings.fit = "squash"` does with frames.

    Args:
        image: PIL, or uint8 (height, width, 3). A square image is returned unchanged.
        side_px: of the square, at most; the short side of a smaller image is kept.

    Raises:
        DataError: the file behind the image is damaged.
    """
    pil_image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    if pil_image.width == pil_image.height:
        return image
    side = min(side_px, pil_image.width, pil_image.height)
    return to_rgb(pil_image).resize((side, side), Image.Resampling.BICUBIC)


def fitted(image: Image.Image, *, side_px: int, squash: bool) -> Image.Image:
    """Resize a photo before it is encoded, so that a large one need not be kept until then.

    An encoder of this size that resizes with the bicubic filter makes the same of the result as of the photo itself.

    Args:
        image: RGB, upright.
        side_px: short side of the result, at most.
        squash: make a square of the whole photo (`squashed`); else its shape is kept.
    """
    if squash:
        made = squashed(image, side_px=side_px)
        assert isinstance(made, Image.Image)
        image = made
    return _scaled(image, PreprocessConfig(size_px=side_px)) if short_side(image) > side_px else image


def _scaled(image: Image.Image, config: PreprocessConfig) -> Image.Image:
    """Resize an image; of a long one only the middle."""
    if config.resize_mode == "shortest" and max(image.size) > _WIDEST_ASPECT * min(image.size):
        image = _middle(image, aspect=_WIDEST_ASPECT)
    return image.resize(_resized(*image.size, config), resample=_FILTERS[config.interpolation])


def _resized(width: int, height: int, config: PreprocessConfig) -> tuple[int, int]:
    """Compute width and height after the resize, before the crop."""
    size = config.resize_px or config.size_px
    if config.resize_mode == "squash":
        return size, size
    if width <= height:
        return size, int(size * height / width)
    return int(size * width / height), size


def _crop_start(extent: int, config: PreprocessConfig) -> int:
    spare = extent - config.size_px
    return spare // 2 if config.crop_start == "floor" else round(spare / 2)


def _middle(image: Image.Image, *, aspect: int) -> Image.Image:
    """Crop the middle of a long image, to an aspect ratio of at most `aspect`."""
    width, height = image.size
    keep_width, keep_height = min(width, aspect * height), min(height, aspect * width)
    left, top = (width - keep_width) // 2, (height - keep_height) // 2
    return image.crop((left, top, left + keep_width, top + keep_height))


def square_side(size: Any, *, name: str) -> int:
    """Convert 224, [224], [224, 224] or {"height": 224, "width": 224} to 224.

    Raises:
        ConfigError: it is not a square.
    """
    if isinstance(size, Mapping):
        size = [size.get("height"), size.get("width")]
    sides = [size] if isinstance(size, int) else list(size)
    if not sides or len(set(sides)) != 1 or not isinstance(sides[0], int):
        raise ConfigError(f"preprocessing {name} is {size!r}: only squares are supported")
    return sides[0]


def per_channel(values: Any) -> tuple[float, float, float]:
    """Convert a number, or one number per channel, to three numbers.

    Raises:
        ConfigError: there are not three.
    """
    numbers = [float(values)] * 3 if isinstance(values, int | float) else [float(value) for value in values]
    if len(numbers) != 3:
        raise ConfigError(f"preprocessing needs one number per channel, got {values!r}")
    return numbers[0], numbers[1], numbers[2]
