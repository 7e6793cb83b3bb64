"""Preprocessing against the processors of transformers and open_clip, on real photos and unusual images."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from impart.encoders.preprocess import CLIP_MEAN, PreprocessConfig, preprocess
from impart.errors import ConfigError, DataError

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def photos() -> Iterator[Image.Image]:
    """Photos of scikit-image, whole and cropped to odd sizes, larger and smaller than the input of the tower."""
    data = pytest.importorskip("skimage.data", reason="scikit-image (extra demo) has the test photos")
    rng = np.random.default_rng(0)
    for name in ("astronaut", "chelsea", "coffee", "rocket", "camera"):
        photo = Image.fromarray(getattr(data, name)())
        yield photo
        for _ in range(8):
            width, height = (int(side) for side in rng.integers(40, 400, 2))
            yield photo.crop((5, 7, 5 + min(width, photo.width - 5), 7 + min(height, photo.height - 7)))


def largest_difference(processor: object, config: PreprocessConfig, images: Iterator[Image.Image]) -> float:
    differences = []
    for image in images:
        theirs = np.asarray(processor(image, return_tensors="np")["pixel_values"][0])  # type: ignore[operator]
        differences.append(np.abs(preprocess([image], config)[0] - theirs).max())
    assert len(differences) >= 40
    return float(max(differences))


@pytest.mark.parametrize("resample", [2, 3])
def test_agrees_with_transformers_clip(resample: int) -> None:
    module = pytest.importorskip("transformers.models.clip.image_processing_pil_clip", reason="transformers missing")
    processor = module.CLIPImageProcessorPil(resample=resample)
    from impart.encoders.hf.processor import square_settings

    config = square_settings(processor.to_dict())
    assert (config.resize_mode, config.size_px, config.mean) == ("shortest", 224, CLIP_MEAN)
    assert largest_difference(processor, config, photos()) < 1e-5


def test_agrees_with_transformers_siglip() -> None:
    module = pytest.importorskip(
        "transformers.models.siglip.image_processing_pil_siglip", reason="transformers missing"
    )
    processor = module.SiglipImageProcessorPil()
    from impart.encoders.hf.processor import square_settings

    config = square_settings(processor.to_dict())
    assert config.resize_mode == "squash"
    assert largest_difference(processor, config, photos()) < 1e-5


@pytest.mark.data
def test_agrees_with_transformers_on_development_photos(data_dir: Path) -> None:
    module = pytest.importorskip("transformers.models.clip.image_processing_pil_clip", reason="transformers missing")
    processor = module.CLIPImageProcessorPil()
    files = sorted((data_dir / "images" / "openstax").rglob("*.jpg"))[::25]
    from impart.encoders.hf.processor import square_settings

    config = square_settings(processor.to_dict())
    assert largest_difference(processor, config, (Image.open(file) for file in files)) < 1e-5


@pytest.mark.parametrize("resize_mode", ["shortest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_agrees_with_open_clip(resize_mode: str, interpolation: str) -> None:
    try:
        from open_clip.transform import PreprocessCfg, image_transform_v2
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"open_clip cannot be imported: {error}")
    settings = PreprocessCfg(resize_mode=resize_mode, interpolation=interpolation)
    transform = image_transform_v2(settings, is_train=False)
    config = PreprocessConfig.from_dict(dataclasses.asdict(settings))
    assert config.crop_start == "round"
    differences = [np.abs(preprocess([photo], config)[0] - transform(photo).numpy()).max() for photo in photos()]
    assert max(differences) < 1e-5


@pytest.mark.parametrize(
    ("crop_start", "starts"),
    # For 0 to 7 pixels more than the crop, as in transformers and in torchvision.
    [("floor", [0, 0, 1, 1, 2, 2, 3, 3]), ("round", [0, 0, 1, 2, 2, 2, 3, 4])],
)
def test_crop_starts_as_in_transformers_and_torchvision(crop_start: str, starts: list[int]) -> None:
    config = PreprocessConfig(size_px=8, crop_start=crop_start, **PLAIN)  # type: ignore[arg-type]
    for spare, start in enumerate(starts):
        across = np.broadcast_to(np.arange(8 + spare, dtype=np.uint8)[None, :, None], (8, 8 + spare, 3))
        assert round(float(preprocess([across], config)[0, 0, 0, 0]) * 255) == start
        down = across.transpose(1, 0, 2)
        assert round(float(preprocess([down], config)[0, 0, 0, 0]) * 255) == start


def test_batch_against_a_naive_loop() -> None:
    config = PreprocessConfig(size_px=32, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    rng = np.random.default_rng(1)
    frames = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((32, 57, 3), (32, 32, 3), (90, 32, 3))]
    batch = preprocess(frames, config)
    assert batch.shape == (3, 3, 32, 32)
    assert batch.dtype == np.float32
    for index, (frame, left, top) in enumerate(zip(frames, (12, 0, 0), (0, 0, 29), strict=True)):
        for channel in range(3):
            cut = frame[top : top + 32, left : left + 32, channel].astype(np.float64)
            expected = (cut / 255 - config.mean[channel]) / config.std[channel]
            np.testing.assert_allclose(batch[index, channel], expected, atol=1e-6)


def test_array_and_image_agree() -> None:
    rng = np.random.default_rng(2)
    pixels = rng.integers(0, 256, (70, 45, 3), dtype=np.uint8)
    for mode in ("shortest", "squash"):
        config = PreprocessConfig(size_px=32, resize_mode=mode)  # type: ignore[arg-type]
        np.testing.assert_array_equal(preprocess([pixels], config), preprocess([Image.fromarray(pixels)], config))


def test_read_only_and_strided_frames() -> None:
    frame = np.random.default_rng(3).integers(0, 256, (32, 64, 4), dtype=np.uint8)[:, ::2, :3]
    frame.flags.writeable = False
    config = PreprocessConfig(size_px=32)
    np.testing.assert_array_equal(preprocess([frame], config), preprocess([frame.copy()], config))


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (20000, 2), (3, 2)])
def test_extreme_shapes(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, (255, 255, 255))
    np.testing.assert_allclose(preprocess([image], PreprocessConfig(size_px=64, **PLAIN)), 1.0, atol=1e-6)


def test_wrong_arrays_are_refused() -> None:
    for wrong in (np.zeros((8, 8)), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3)), np.zeros((0, 8, 3), np.uint8)):
        with pytest.raises(DataError, match="uint8"):
            preprocess([wrong], PreprocessConfig(size_px=8))  # type: ignore[list-item]


def test_damaged_file_is_named(tmp_path: Path) -> None:
    whole = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(whole, "JPEG")
    path = tmp_path / "half.jpg"
    path.write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    with pytest.raises(DataError, match=r"half\.jpg"):
        preprocess([Image.open(path)], PreprocessConfig(size_px=8))


def test_settings_survive_a_round_trip() -> None:
    config = PreprocessConfig(size_px=96, resize_mode="squash", interpolation="bilinear", crop_start="round")
    assert PreprocessConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 8, "std": [1, 1, 1]}, "mean"),
        ({"size": [8, 9], "mean": [0, 0, 0], "std": [1, 1, 1]}, "squares"),
        ({"size": 8, "mean": [0, 0, 0], "std": [1, 1, 0]}, "positive"),
        ({"size": 8, "mean": [0, 0, 0], "std": [1, 1, 1], "resize_mode": "longest"}, "longest"),
        ({"size": 8, "mean": [0, 0, 0], "std": [1, 1, 1], "interpolation": "nearest"}, "nearest"),
        ({"size": 8, "mean": [0, 0, 0], "std": [1, 1, 1], "mode": "BGR"}, "BGR"),
        ({"size": 0, "mean": [0, 0, 0], "std": [1, 1, 1]}, "at least 1"),
    ],
)
def test_settings_that_cannot_work(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PreprocessConfig.from_dict(values)
