"""One graph for two sizes: each size uses its own weights, and shared weights are stored once."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="training needs the extra `train`")
onnx = pytest.importorskip("onnx", reason="the export needs the extra `train`")
pytest.importorskip("onnxscript", reason="the export needs the extra `train`")

from impart.encoders.onnx.session import OnnxTower, RuntimeOptions  # noqa: E402
from impart.encoders.preprocess import PreprocessConfig, preprocess  # noqa: E402
from impart.recipes.mini.two_sizes import join_sizes  # noqa: E402
from impart.train.heads.heads import Correction, ImageHead  # noqa: E402
from impart.train.heads.onnx_export import ImageTower, export_image  # noqa: E402
from impart.train.heads.towers.quantise import BackboneSession, quantise_backbone  # noqa: E402

LARGE = PreprocessConfig(
    size_px=32, resize_mode="shortest", crop="center", interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3
)
SMALL = dataclasses.replace(LARGE, size_px=16)
WIDTH = 48
INT8 = onnx.TensorProto.INT8


class _Backbone(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = torch.nn.Conv2d(3, 32, 3, padding=1), torch.nn.Conv2d(32, WIDTH, 1)

    def forward(self, pixels):
        return torch.relu(self.second(torch.nn.functional.relu6(self.first(pixels)))).mean(dim=(2, 3))


@pytest.fixture
def images() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    coarse = [Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)) for _ in range(24)]
    return [image.resize((48, 48), Image.Resampling.BICUBIC) for image in coarse]


def backbones(folder: Path, images: list[Image.Image]) -> tuple[Path, Path]:
    """Two backbones on disk; of the second the first kernel, the biases and the gains of the 1x1 kernel differ."""
    paths = []
    for number, image in enumerate(images):
        image.save(folder / f"{number}.png")
        paths.append(folder / f"{number}.png")
    large, small = _Backbone().eval(), _Backbone().eval()
    with torch.no_grad():
        small.first.weight.add_(0.2 * torch.randn_like(small.first.weight))
        small.second.weight.mul_(0.5 + torch.rand(WIDTH, 1, 1, 1))
        small.second.bias.add_(0.3)
    quantise_backbone(large, paths, folder / "large.onnx", preprocessing=LARGE)
    quantise_backbone(small, paths, folder / "small.onnx", preprocessing=SMALL, views=("small0",))
    return folder / "large.onnx", folder / "small.onnx"


def test_each_size_uses_its_own_weights(tmp_path: Path, images: list[Image.Image]) -> None:
    large, small = backbones(tmp_path, images)
    torch.manual_seed(0)
    head = ImageHead(
        torch.nn.Linear(WIDTH, 5),
        torch.nn.functional.normalize(torch.randn(5, 8), dim=-1),
        torch.zeros(WIDTH),
        torch.ones(WIDTH),
        top=3,
        temperature=1.0,
        correction=Correction(WIDTH, 4, 8),
    )
    heads = ImageTower(head.eval(), torch.randn(WIDTH, 6))
    joined = join_sizes(onnx.load(large), onnx.load(small), small_px=SMALL.size_px)
    onnx.save(joined, tmp_path / "backbone.onnx")
    export_image(heads, tmp_path / "backbone.onnx", tmp_path / "image.onnx", int8=False)
    tower = OnnxTower(tmp_path / "image.onnx", RuntimeOptions())
    for path, config in ((large, LARGE), (small, SMALL)):
        found = tower.run({"pixels": preprocess(images, config)})
        with torch.no_grad():
            want = heads(torch.from_numpy(BackboneSession(path, config)(images)))
        np.testing.assert_allclose(found["embedding"], want[0].numpy(), atol=5e-3)
        np.testing.assert_allclose(found["retrieval"], want[1].numpy(), atol=5e-2)


def test_shared_weights_are_stored_once(tmp_path: Path, images: list[Image.Image]) -> None:
    large, small = (onnx.load(path) for path in backbones(tmp_path, images))
    joined = join_sizes(large, small, small_px=SMALL.size_px)
    branches = [item.g for item in joined.graph.node[-1].attribute]
    assert not any(branch.initializer for branch in branches)
    kernels = [tuple(t.dims) for t in joined.graph.initializer if t.data_type == INT8 and len(t.dims) == 4]
    assert sorted(kernels) == [(32, 3, 3, 3), (32, 3, 3, 3), (WIDTH, 32, 1, 1)]  # the 1x1 kernel once
    assert joined.ByteSize() < large.ByteSize() + small.ByteSize() - WIDTH * 32
