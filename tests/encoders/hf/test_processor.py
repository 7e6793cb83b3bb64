"""Image processors of transformers: every supported kind against PIL's processor, and class defaults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch", reason="extra torch is not installed")
pytest.importorskip("transformers", reason="extra torch is not installed")

import transformers

from impart.encoders.hf.naflex import PatchConfig, patch_inputs
from impart.encoders.hf.processor import patch_settings, read_patches, read_squares, square_settings
from impart.encoders.preprocess import preprocess
from impart.errors import ConfigError, EncoderError

RNG = np.random.default_rng(0)
IMAGES = [
    Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)).resize((width * 5, height * 5))
    for height, width in ((20, 31), (48, 17), (32, 32), (5, 60), (11, 10))
]
SQUARE = {"height": 32, "width": 32}
PROCESSORS: list[dict[str, Any]] = [
    {"image_processor_type": "CLIPImageProcessor"},
    {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 40}, "crop_size": SQUARE, "resample": 2},
    {"feature_extractor_type": "CLIPFeatureExtractor", "size": 32, "crop_size": 32},
    {"image_processor_type": "ViTImageProcessor", "size": SQUARE},
    {"image_processor_type": "ViTImageProcessorFast", "size": 32},
    {"image_processor_type": "ViTImageProcessor", "size": SQUARE, "rescale_factor": 1 / 127.5, "image_mean": 1.0},
    {"image_processor_type": "ViTImageProcessor", "size": SQUARE, "do_normalize": False},
    {"image_processor_type": "SiglipImageProcessor", "size": SQUARE},
    {"image_processor_type": "ChineseCLIPImageProcessor", "size": SQUARE, "do_center_crop": False},
    {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 40}, "crop_size": SQUARE},
    {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 32}},
    {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 36}, "crop_pct": 0.95},
    {"image_processor_type": "ConvNextImageProcessor"},
    {"image_processor_type": "DeiTImageProcessor", "size": {"height": 40, "width": 40}, "crop_size": SQUARE},
    {
        "image_processor_type": "EfficientNetImageProcessor",
        "size": {"height": 40, "width": 40},
        "crop_size": SQUARE,
        "do_center_crop": True,
    },
    {
        "image_processor_type": "EfficientNetImageProcessor",
        "size": SQUARE,
        "do_normalize": False,
        "rescale_factor": 1 / 127.5,
        "rescale_offset": True,
        "include_top": False,
        "resample": 2,
    },
]


def write(folder: Path, **settings: object) -> Path:
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    (folder / "config.json").write_text('{"model_type": "clip"}')
    return folder


@pytest.mark.parametrize("settings", PROCESSORS, ids=lambda settings: "-".join(map(str, settings.values()))[:60])
def test_pixels_agree_with_transformers(tmp_path: Path, settings: dict[str, Any]) -> None:
    folder = write(tmp_path, **settings)
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    theirs = np.stack(processor(IMAGES, return_tensors="np")["pixel_values"])
    np.testing.assert_allclose(preprocess(IMAGES, read_squares(folder)), theirs, atol=1e-5)


@pytest.mark.parametrize("patches", [4, 20, 256])
def test_patches_agree_with_transformers(tmp_path: Path, patches: int) -> None:
    folder = write(tmp_path, image_processor_type="Siglip2ImageProcessor", patch_size=8, max_num_patches=patches)
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    theirs = processor(IMAGES, return_tensors="np")
    config = read_patches(folder)
    assert config.interpolation == "bilinear"
    pixels, mask, grids = patch_inputs(IMAGES, config)
    np.testing.assert_array_equal(grids, theirs["spatial_shapes"])
    np.testing.assert_array_equal(mask, theirs["pixel_attention_mask"])
    np.testing.assert_allclose(pixels, theirs["pixel_values"], atol=1e-5)
    assert (grids.prod(axis=1) <= patches).all()


def test_a_processor_of_two_files_and_of_one(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    settings = {"image_processor_type": "ViTImageProcessor", "size": SQUARE}
    write(tmp_path / "a", **settings)
    content = {"image_processor": settings, "processor_class": "CLIPProcessor"}
    (tmp_path / "b" / "processor_config.json").write_text(json.dumps(content))
    assert read_squares(tmp_path / "a") == read_squares(tmp_path / "b")
    assert read_squares(tmp_path / "a").interpolation == "bilinear"


def test_what_transformers_cannot_fill_in_is_refused_with_the_reason(tmp_path: Path) -> None:
    levels = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    whole = {"image_processor_type": "NoSuchProcessor", "size": SQUARE, "resample": 2, **levels}
    write(tmp_path, **whole)
    (tmp_path / "config.json").unlink()
    assert read_squares(tmp_path).interpolation == "bilinear"
    for key in ("resample", "size", "image_mean"):
        write(tmp_path, **{name: value for name, value in whole.items() if name != key})
        (tmp_path / "config.json").unlink()
        with pytest.raises(EncoderError, match=rf"preprocessor_config\.json: .*{key}.*transformers cannot fill in"):
            read_squares(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_mean": None}, "image_mean"),
        ({"size": None}, "no size"),
        ({"resample": None}, "no 'resample'"),
        ({"do_rescale": False}, "0..1"),
        ({"crop_size": 300}, "resizes to 224 px, but crops to 300"),
        ({"resample": 0}, "filter 0"),
        ({"do_center_crop": False}, "not supported"),
        ({"size": {"shortest_edge": 224, "longest_edge": 300}}, "not supported"),
        ({"do_flip_channel_order": True}, "do_flip_channel_order"),
        ({"do_pad": True}, "do_pad"),
    ],
)
def test_unsupported_image_processors(change: dict[str, object], message: str) -> None:
    clip = {
        "size": {"shortest_edge": 224},
        "crop_size": {"height": 224, "width": 224},
        "do_center_crop": True,
        "resample": 3,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    values = {key: value for key, value in {**clip, **change}.items() if value is not None}
    with pytest.raises(ConfigError, match=message):
        square_settings(values)


@pytest.mark.parametrize("name", ["patch_size", "max_num_patches", "resample", "image_std"])
def test_incomplete_patch_settings(name: str) -> None:
    values = {"patch_size": 8, "max_num_patches": 4, "resample": 2, "image_mean": 0.5, "image_std": 0.5}
    assert isinstance(patch_settings(values), PatchConfig)
    with pytest.raises(ConfigError, match=name):
        patch_settings({key: value for key, value in values.items() if key != name})
