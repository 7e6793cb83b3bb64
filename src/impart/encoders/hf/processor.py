"""Read the settings of transformers' image processors, with the defaults of their classes.

A file may omit what its class sets: a ViT processor without `resample` is bilinear, a CLIP processor is bicubic. The
defaults come from transformers. Where it cannot make the class (some need torchvision), the file must state all.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from impart.encoders.hf.naflex import PatchConfig
from impart.encoders.preprocess import Interpolation, PreprocessConfig, ResizeMode, per_channel, square_side
from impart.encoders.tokens import read_json
from impart.encoders.torch_towers import quiet
from impart.errors import ConfigError, EncoderError

__all__ = ["patch_settings", "read_patches", "read_squares", "square_settings"]

_FILES = ("preprocessor_config.json", "processor_config.json")
_RESAMPLE: Mapping[int, Interpolation] = {2: "bilinear", 3: "bicubic"}
_STEPS = {"do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb", "do_reduce_labels"}
_UNCROPPED_PX = 384
"""ConvNeXt's processor crops below this size, and only squashes from there on."""


def read_squares(folder: Path) -> PreprocessConfig:
    """Read the preprocessing of a tower that takes squares.

    Raises:
        EncoderError: the file is missing, states too little, or needs steps that are not supported.
    """
    path, values, reason = _stated(folder)
    try:
        return square_settings(values)
    except ConfigError as error:
        raise EncoderError(f"{path}: {error}{reason}") from error


def read_patches(folder: Path) -> PatchConfig:
    """Read the preprocessing of a NaFlex tower.

    Raises:
        EncoderError: as `read_squares`.
    """
    path, values, reason = _stated(folder)
    try:
        return patch_settings(values)
    except ConfigError as error:
        raise EncoderError(f"{path}: {error}{reason}") from error


def square_settings(values: Mapping[str, Any]) -> PreprocessConfig:
    """Convert the complete settings of an image processor (CLIP, SigLIP, ViT, ConvNeXt, EfficientNet and similar).

    Raises:
        ConfigError: a key is missing, or a value is not supported.
    """
    if values.get("size") is None or not values.get("do_resize", True):
        raise ConfigError("the settings of the image processor have no size to resize to")
    interpolation = _interpolation(values)
    mode, size_px, resize_px = _sides(values)
    mean, std = _levels(values)
    return PreprocessConfig(
        size_px=size_px,
        resize_mode=mode,
        interpolation=interpolation,
        mean=mean,
        std=std,
        crop_start="floor",
        resize_px=None if resize_px == size_px else resize_px,
    )


def patch_settings(values: Mapping[str, Any]) -> PatchConfig:
    """Convert the complete settings of SigLIP 2's NaFlex processor.

    Raises:
        ConfigError: a key is missing, or a value is not supported.
    """
    for name in ("patch_size", "max_num_patches"):
        if not isinstance(values.get(name), int) or values[name] < 1:
            raise ConfigError(f"the settings of the image processor have no {name!r}")
    if not values.get("do_resize", True):
        raise ConfigError("the image processor does not resize, and other models are not supported")
    mean, std = _levels(values)
    return PatchConfig(
        patch_px=values["patch_size"],
        max_patches=values["max_num_patches"],
        interpolation=_interpolation(values),
        mean=mean,
        std=std,
    )


def _stated(folder: Path) -> tuple[Path, dict[str, Any], str]:
    """Read the settings of the processor with the defaults of its class.

    Returns:
        The file, its settings, and why they are without defaults: empty where they are complete.
    """
    import transformers

    path = next((folder / name for name in _FILES if (folder / name).is_file()), None)
    if path is None:
        raise EncoderError(
            f"{folder / _FILES[0]} is missing: without the model's size and normalisation the "
            "embeddings would be silently wrong; copy the file from the source of the model"
        )
    values = read_json(path)
    values = values.get("image_processor", values)
    with quiet():
        try:
            # `backend` is of transformers 5; version 4 makes PIL's processor by default.
            processor = transformers.AutoImageProcessor.from_pretrained(
                str(folder), local_files_only=True, backend="pil"
            )
            return path, processor.to_dict(), ""
        except Exception as error:  # noqa: BLE001 - ImportError of torchvision, ValueError of an unknown class, ...
            lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            return path, values, f" (transformers cannot fill in the defaults: {lines[0][:200]}); write the key there"


def _interpolation(values: Mapping[str, Any]) -> Interpolation:
    """Read the filter, and refuse steps that are not ours."""
    others = [name for name, value in values.items() if name.startswith("do_") and value and name not in _STEPS]
    if others:
        raise ConfigError(f"the image processor has steps that are not supported: {', '.join(others)}")
    resample = values.get("resample")
    if resample is None:
        raise ConfigError("the settings of the image processor have no 'resample'")
    if resample not in _RESAMPLE:
        raise ConfigError(
            f"image processor filter {resample!r} is not supported: only 2 (bilinear) and 3 (bicubic) are"
        )
    return _RESAMPLE[resample]


def _sides(values: Mapping[str, Any]) -> tuple[ResizeMode, int, int]:
    """Read resize mode, side of the input, and side before the crop."""
    size, crop = values["size"], values.get("crop_size")
    cropped = bool(values.get("do_center_crop", False))
    by_edge = isinstance(size, int) or "shortest_edge" in size
    if not by_edge:
        side = square_side(size, name="size")
        return "squash", square_side(crop, name="crop_size") if cropped and crop is not None else side, side
    edge = size if isinstance(size, int) else int(size["shortest_edge"])
    if values.get("crop_pct") and not cropped:  # ConvNeXt: the crop is a share of the resized image
        return ("shortest", edge, int(edge / values["crop_pct"])) if edge < _UNCROPPED_PX else ("squash", edge, edge)
    if not cropped or (isinstance(size, Mapping) and size.get("longest_edge")):
        raise ConfigError(f"an image processor with size {size} and do_center_crop={cropped} is not supported")
    return "shortest", edge if crop is None else square_side(crop, name="crop_size"), edge


def _levels(values: Mapping[str, Any]) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Read mean and deviation, on the 0..1 scale.

    EfficientNet's processor (ALIGN) may subtract 1 after the rescaling, and divide by the deviation once more:
    `x = 255 * factor * p - offset` for p in 0..1, then `(x - mean) / std`, then `x / std`.
    """
    if not values.get("do_rescale", True):
        raise ConfigError("the image processor does not scale pixels to 0..1, and other models are not supported")
    span = 255 * values.get("rescale_factor", 1 / 255)
    span = 1.0 if abs(span - 1) < 1e-4 else span
    offset = float(bool(values.get("rescale_offset", False)))
    normalised, again = bool(values.get("do_normalize", True)), bool(values.get("include_top", False))
    if (normalised or again) and (values.get("image_mean") is None or values.get("image_std") is None):
        raise ConfigError("the settings of the image processor have no image_mean and image_std")
    mean = per_channel(values["image_mean"]) if normalised else (0.0, 0.0, 0.0)
    std = per_channel(values["image_std"]) if normalised or again else (1.0, 1.0, 1.0)
    power = 2 if normalised and again else 1
    return (
        per_channel([(one + offset) / span for one in mean]),
        per_channel([one**power / span for one in std]),
    )
