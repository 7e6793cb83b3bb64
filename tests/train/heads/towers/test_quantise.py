"""The quantised backbone agrees with the float one, and computes in int8."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="training needs the extra `train`")
onnx = pytest.importorskip("onnx", reason="the export needs the extra `train`")
pytest.importorskip("onnxscript", reason="the export needs the extra `train`")

from impart.encoders.preprocess import PreprocessConfig, preprocess  # noqa: E402
from impart.train.heads.towers.quantise import BackboneSession, quantise_backbone  # noqa: E402

PREPROCESSING = PreprocessConfig(
    size_px=32, resize_mode="shortest", crop="center", interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3
)


class _Backbone(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Conv2d(3, 32, 3, padding=1), torch.nn.Conv2d(32, 48, 1)

    def forward(self, pixels):
        return torch.relu(self.second(torch.nn.functional.relu6(self.first(pixels)))).mean(dim=(2, 3))


@pytest.fixture
def images(tmp_path):
    rng = np.random.default_rng(0)
    paths = []
    for number in range(24):
        path = tmp_path / f"{number}.png"
        coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        coarse.resize((48, 48), Image.Resampling.BICUBIC).save(path)
        paths.append(path)
    return paths


def test_quantised_backbone_agrees_and_is_int8(tmp_path, images):
    torch.manual_seed(0)
    backbone, path = _Backbone().eval(), tmp_path / "backbone.onnx"
    quantise_backbone(backbone, images, path, preprocessing=PREPROCESSING)
    assert sorted(file.name for file in tmp_path.glob("*.onnx")) == ["backbone.onnx"]
    weights = [tensor for tensor in onnx.load(path).graph.initializer if tensor.name.endswith("_quantized")]
    assert {tensor.data_type for tensor in weights} <= {onnx.TensorProto.INT8, onnx.TensorProto.INT32}
    assert sum(len(tensor.dims) == 4 for tensor in weights) == 2
    session = BackboneSession(path, PREPROCESSING)
    opened = [Image.open(file).convert("RGB") for file in images[:7]]  # not a multiple of a piece
    found = session(opened)
    with torch.no_grad():
        expected = backbone(torch.from_numpy(preprocess(opened, PREPROCESSING))).numpy()
    cosines = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosines.min() > 0.99
    assert not np.array_equal(found, expected)


def test_the_key_depends_on_weights_and_preprocessing(tmp_path, images):
    keys = set()
    for number in range(2):
        torch.manual_seed(number)
        path = tmp_path / f"{number}.onnx"
        quantise_backbone(_Backbone().eval(), images[:8], path, preprocessing=PREPROCESSING)
        for size_px in (32, 64):
            keys.add(BackboneSession(path, dataclasses.replace(PREPROCESSING, size_px=size_px)).key)
    assert len(keys) == 4
