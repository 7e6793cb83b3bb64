"""The output with the embeddings: chosen by name, or the only one that it can be; never silently the first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from impart.encoders.base import l2_normalise
from impart.encoders.onnx.encoder import load_onnx
from impart.errors import EncoderError

pytest.importorskip("onnx", reason="tiny models are written with the onnx package (extra torch)")
import onnx

from helpers import tiny_onnx

IMAGES = [np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8) for seed in range(3)]
TEXTS = ["a red square", "a dog"]


def with_outputs(path: Path, *names: str) -> None:
    """Replace the outputs of a tiny graph: the one in capital letters is the embedding, `*` has three dimensions."""
    model = onnx.load(path)
    graph = model.graph
    (kept,) = [item for item in graph.output if item.name == "embedding"]
    batch = kept.type.tensor_type.shape.dim[0].dim_param
    del graph.output[:]
    graph.initializer.append(onnx.numpy_helper.from_array(np.arange(4, dtype=np.float32), "ramp"))
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([1], dtype=np.int64), "second"))
    for name in names:
        title = name.strip("*").lower()
        shape = [batch, 1, 4] if "*" in name else [batch, 4]
        if name.isupper():
            graph.node.append(onnx.helper.make_node("Identity", ["embedding"], [title]))
        elif "*" in name:
            graph.node.append(onnx.helper.make_node("Unsqueeze", ["embedding", "second"], [title]))
        else:
            graph.node.append(onnx.helper.make_node("Add", ["embedding", "ramp"], [title]))
        graph.output.append(onnx.helper.make_tensor_value_info(title, onnx.TensorProto.FLOAT, shape))
    onnx.save(model, path)


@pytest.mark.parametrize(
    "names",
    [
        ("last_hidden_state*", "pooler_output", "IMAGE_EMBEDS"),
        ("pooler_output", "last_hidden_state*", "IMAGE_EMBEDS"),
        ("last_hidden_state*", "POOLER_OUTPUT"),
        ("some_output", "POOLER_OUTPUT", "another"),
        ("hidden*", "UNNAMED"),
        ("first", "IMAGE_FEATURES"),
        ("ANY",),
    ],
)
def test_image_tower(tmp_path: Path, names: tuple[str, ...]) -> None:
    expected = load_onnx(str(tiny_onnx.write_layout(tmp_path / "plain"))).encode_images(IMAGES).embeddings
    folder = tiny_onnx.write_layout(tmp_path / "many")
    with_outputs(folder / "visual" / "model.onnx", *names)
    found = load_onnx(str(folder)).encode_images(IMAGES).embeddings
    np.testing.assert_allclose(found, l2_normalise(expected), atol=1e-6)


@pytest.mark.parametrize(
    "names", [("last_hidden_state*", "TEXT_EMBEDS"), ("pooler_output", "TEXT_EMBEDS"), ("other", "POOLER_OUTPUT")]
)
def test_text_tower(tmp_path: Path, names: tuple[str, ...]) -> None:
    expected = load_onnx(str(tiny_onnx.write_layout(tmp_path / "plain"))).encode_texts(TEXTS)
    folder = tiny_onnx.write_layout(tmp_path / "many")
    with_outputs(folder / "textual" / "model.onnx", *names)
    np.testing.assert_allclose(load_onnx(str(folder)).encode_texts(TEXTS), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("names", "count"), [(("one", "TWO"), 2), (("last_hidden_state*",), 0), (("text_embeds", "other"), 2)]
)
def test_an_unclear_output_is_refused(tmp_path: Path, names: tuple[str, ...], count: int) -> None:
    folder = tiny_onnx.write_layout(tmp_path)
    with_outputs(folder / "visual" / "model.onnx", *names)
    with pytest.raises(EncoderError, match=rf"model\.onnx: {count} outputs could be the embedding .*'image_embeds'"):
        load_onnx(str(folder)).encode_images(IMAGES)
