"""Tiny ONNX encoders on disk: they encode the mean colour of an image, and the mean word vector of a text.

The files have the two layouts that `impart.encoders.onnx.encoder` reads, with the variations of published exports.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

WORDS = ["<pad>", "<bos>", "<eos>", "<unk>", "a", "red", "green", "blue", "square", "dog", "photo", "of"]
SIZE_PX, DIM, RETRIEVAL_DIM, CONTEXT = 16, 4, 3, 8


def write_tokenizer(folder: Path, *, pad_file: bool = True) -> None:
    """Write a `tokenizer.json` with one token per word, between <bos> and <eos>."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    ids = {word: index for index, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", ids["<bos>"]), ("<eos>", ids["<eos>"])]
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    if pad_file:
        (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": {"content": "<pad>"}}))


def image_weights(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return the matrices (3, D) and (3, R) from mean colour to embedding and retrieval embedding."""
    rng = np.random.default_rng(seed)
    return (
        rng.standard_normal((3, DIM)).astype(np.float32),
        rng.standard_normal((3, RETRIEVAL_DIM)).astype(np.float32),
    )


def word_vectors(seed: int = 0) -> np.ndarray:
    """Return the word vectors (V, D)."""
    return np.random.default_rng(seed + 100).standard_normal((len(WORDS), DIM)).astype(np.float32)


def write_image_model(
    path: Path,
    *,
    batch: int | str = "batch",
    retrieval: bool = False,
    half: bool = False,
    name: str = "pixels",
    free: bool = False,
) -> None:
    """Write a model of mean colour times a matrix; a `free` model takes any width, and adds SIZE_PX - width."""
    from onnx import TensorProto, helper, numpy_helper, save

    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    number = np.float16 if half else np.float32
    heads = dict(zip(("embedding", "retrieval"), image_weights(), strict=True))
    heads = heads if retrieval else {"embedding": heads["embedding"]}
    nodes = [
        helper.make_node("GlobalAveragePool", [name], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        *(helper.make_node("MatMul", ["seen" if free else "flat", f"w_{head}"], [head]) for head in heads),
    ]
    numbers: dict[str, np.ndarray] = {}
    if free:
        numbers = {"third": np.array(3), "size": np.array(SIZE_PX, np.float32)}
        nodes[2:2] = [
            helper.make_node("Shape", [name], ["sides"]),
            helper.make_node("Gather", ["sides", "third"], ["width"]),
            helper.make_node("Cast", ["width"], ["number"], to=TensorProto.FLOAT),
            helper.make_node("Sub", ["size", "number"], ["missing"]),
            helper.make_node("Add", ["flat", "missing"], ["seen"]),
        ]
    side = "side" if free else SIZE_PX
    graph = helper.make_graph(
        nodes,
        "image",
        [helper.make_tensor_value_info(name, kind, [batch, 3, side, side])],
        [helper.make_tensor_value_info(head, kind, [batch, weight.shape[1]]) for head, weight in heads.items()],
        [
            *(numpy_helper.from_array(weight.astype(number), f"w_{head}") for head, weight in heads.items()),
            *(numpy_helper.from_array(value, title) for title, value in numbers.items()),
        ],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))


def write_text_model(
    path: Path,
    *,
    batch: int | str = "batch",
    length: int | str = "length",
    mask: bool = False,
    wide: bool = False,
    name: str = "text",
) -> None:
    """Write a model that sums the word vectors of all tokens, or, with `mask`, of those in an attention mask."""
    from onnx import TensorProto, helper, numpy_helper, save

    kind = TensorProto.INT64 if wide else TensorProto.INT32
    inputs = [helper.make_tensor_value_info(name, kind, [batch, length])]
    nodes = [helper.make_node("Gather", ["words", name], ["tokens"])]
    if mask:
        inputs.append(helper.make_tensor_value_info("attention_mask", kind, [batch, length]))
        nodes += [
            helper.make_node("Cast", ["attention_mask"], ["weights"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["weights", "last"], ["columns"]),
            helper.make_node("Mul", ["tokens", "columns"], ["kept"]),
            helper.make_node("ReduceSum", ["kept", "first"], ["embedding"], keepdims=0),
        ]
    else:
        nodes.append(helper.make_node("ReduceSum", ["tokens", "first"], ["embedding"], keepdims=0))
    graph = helper.make_graph(
        nodes,
        "text",
        inputs,
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [batch, DIM])],
        [
            numpy_helper.from_array(word_vectors(), "words"),
            numpy_helper.from_array(np.array([1], dtype=np.int64), "first"),
            numpy_helper.from_array(np.array([2], dtype=np.int64), "last"),
        ],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))


def preprocess_cfg() -> dict[str, object]:
    return {
        "size": [SIZE_PX, SIZE_PX],
        "mode": "RGB",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "interpolation": "bicubic",
        "resize_mode": "squash",
        "fill_color": 0,
    }


def write_layout(folder: Path, **text_options: object) -> Path:
    """Write an encoder in the `onnx:` layout."""
    write_image_model(folder / "visual" / "model.onnx", name="image")
    write_text_model(folder / "textual" / "model.onnx", **text_options)
    write_tokenizer(folder / "textual")
    (folder / "visual" / "preprocess_cfg.json").write_text(json.dumps(preprocess_cfg()))
    config = {"embed_dim": DIM, "vision_cfg": {"image_size": SIZE_PX}, "text_cfg": {"context_length": CONTEXT}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def write_mini(folder: Path, *, small: dict[str, int] | None = None) -> Path:
    """Write an encoder in the layout of the bundled model; `small` adds the settings for small images."""
    write_image_model(folder / "image.onnx", retrieval=True, free=small is not None)
    write_text_model(folder / "text.onnx", mask=True, wide=True, name="input_ids")
    write_tokenizer(folder, pad_file=False)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["padding"] = {
        "strategy": "BatchLongest",
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "<pad>",
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    model = {
        "id": "mini",
        "dim": DIM,
        "retrieval_dim": RETRIEVAL_DIM,
        "context_tokens": CONTEXT,
        "preprocess": {"size": SIZE_PX, "mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "shortest"},
    }
    (folder / "model.json").write_text(json.dumps(model | ({"small_pictures": small} if small else {})))
    return folder
