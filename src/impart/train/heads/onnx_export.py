"""Export trained towers to ONNX files with small weights and float32 arithmetic.

The backbone of the image tower is quantised beforehand (`train/heads/towers/quantise.py`) and computes in int8. The
weights of the heads and the text tower are stored as int8 with a scale per channel, or as float16. `Cast` and `Mul`
nodes turn them into float32, and ONNX Runtime folds these nodes on loading. The arithmetic is float32: a text's
embedding does not depend on the other texts of its batch, as it does with dynamically quantised activations. Word
embeddings stay int8 in memory: only the rows of the words of a text are converted.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import GraphProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn

from impart.train.heads.heads import ImageHead
from impart.train.heads.towers.sentences import CONTEXT_TOKENS, SentenceTower, copy_tokenizer

__all__ = [
    "ImageTower",
    "TextTower",
    "compress",
    "export_graph",
    "export_image",
    "export_model",
    "export_text",
    "quantise",
    "rename_values",
]

_SMALLEST = 4096
"""Smaller tensors are kept as they are."""


class ImageTower(nn.Module):
    """Features of the backbone to embedding and retrieval embedding.

    Args:
        head: features (B, F') to embeddings (B, D).
        components: (F, R) directions of the standardised pooled features; None = the embedding itself retrieves.
    """

    components: Tensor | None
    head: ImageHead

    def __init__(self, head: ImageHead, components: Tensor | None):
        super().__init__()
        self.head = head
        self.register_buffer("components", components)

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        embedding: Tensor = self.head(features)
        if self.components is None:
            return (embedding,)
        return embedding, self.head.standardise(features) @ self.components


class TextTower(nn.Module):
    """Token ids to embeddings.

    Args:
        sentences: ids and mask (T, L) to sentence embeddings (T, D).
        head: sentence embeddings to embeddings.
    """

    sentences: SentenceTower
    head: nn.Module

    def __init__(self, sentences: SentenceTower, head: nn.Module):
        super().__init__()
        self.sentences, self.head = sentences, head

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        y: Tensor = self.head(self.sentences(input_ids, attention_mask))
        return y


def export_model(
    folder: Path,
    image: ImageTower,
    text: TextTower,
    *,
    backbone: Path,
    int8: bool = True,
) -> None:
    """Write both towers and the tokenizer into a folder, in the layout of `mini`; the caller adds `model.json`.

    Args:
        folder: exists.
        image: heads of the image tower.
        text: tower and head.
        backbone, int8: see `export_image`.
    """
    export_image(image, backbone, folder / "image.onnx", int8=int8)
    export_text(text, folder / "text.onnx", int8=int8)
    copy_tokenizer(folder)


def export_image(tower: ImageTower, backbone: Path, path: Path, *, int8: bool = True) -> None:
    """Write the image tower: `pixels` (B, 3, S, S) to `embedding` (B, D) and, with components, `retrieval` (B, R).

    Args:
        tower: the heads.
        backbone: ONNX file, `pixels` to `features` (B, F').
        path: of the ONNX file with backbone and heads.
        int8: store the heads' matrices as int8 (else float16).
    """
    first = onnx.load(backbone)
    width = first.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    heads = path.with_suffix(".heads.onnx")
    outputs = ["embedding"] if tower.components is None else ["embedding", "retrieval"]
    export_graph(
        tower,
        (torch.zeros(2, width),),
        heads,
        inputs=["features"],
        outputs=outputs,
        shapes=({0: torch.export.Dim("B")},),
        int8=int8,
    )
    second = onnx.load(heads)
    heads.unlink()
    second.ir_version = first.ir_version = max(first.ir_version, second.ir_version)
    second = onnx.compose.add_prefix(second, "heads/")
    joined = onnx.compose.merge_models(first, second, io_map=[("features", "heads/features")])
    rename_values(joined.graph, {f"heads/{name}": name for name in outputs})
    onnx.checker.check_model(joined)
    onnx.save(joined, path)


def export_text(tower: TextTower, path: Path, *, int8: bool | None = True) -> None:
    """Write the text tower: `input_ids` and `attention_mask` (T, L) to `embedding` (T, D); `int8` as for a graph."""
    axes = {0: torch.export.Dim("T"), 1: torch.export.Dim("L", max=CONTEXT_TOKENS)}
    ids = torch.ones(2, 7, dtype=torch.int64)
    export_graph(
        TextTower(tower.sentences.without_unused(), tower.head),
        (ids, ids.clone()),
        path,
        inputs=["input_ids", "attention_mask"],
        outputs=["embedding"],
        shapes=(axes, axes),
        int8=int8,
    )


def export_graph(
    tower: nn.Module,
    example: tuple[Tensor, ...],
    path: Path,
    *,
    inputs: list[str],
    outputs: list[str],
    shapes: tuple[dict[int, torch.export.Dim], ...],
    int8: bool | None,
) -> None:
    """Write a module as ONNX.

    Args:
        tower: is put in evaluation mode and on the CPU.
        example: inputs to trace it with.
        path: of the file.
        inputs: names of the inputs.
        outputs: names of the outputs.
        shapes: axes of the inputs with any length.
        int8: store large weights as int8 or float16 (see `compress`); None leaves them in float32.
    """
    for name in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            tower.eval().cpu(),
            example,
            dynamo=True,
            input_names=inputs,
            output_names=outputs,
            dynamic_shapes=shapes,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    if int8 is not None:
        model = compress(model, int8=int8)
    for node in model.graph.node:  # the exporter's notes contain paths of this machine
        del node.metadata_props[:]
        node.doc_string = ""
    del model.graph.value_info[:]
    onnx.checker.check_model(model)
    onnx.save(model, path)


def quantise(values: npt.NDArray[np.float32], axis: int) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Quantise to symmetric int8 with one scale per index of `axis`.

    Returns:
        int8 of the same shape, and scales that broadcast against it; their product approximates `values`. The scales
        have float16 precision.
    """
    others = tuple(n for n in range(values.ndim) if n != axis)
    scale = np.maximum(np.abs(values).max(axis=others, keepdims=True) / 127, 1e-7)
    scale = scale.astype(np.float16).astype(np.float32)
    return np.clip(np.rint(values / scale), -127, 127).astype(np.int8), scale


def compress(model: onnx.ModelProto, *, int8: bool = True) -> onnx.ModelProto:
    """Store large float32 weights as int8 (matrices, 1x1 convolutions) or float16 (all others)."""
    graph = model.graph
    nodes: list[onnx.NodeProto] = []  # conversions of weights, before all others
    instead: dict[str, list[onnx.NodeProto]] = {}  # replacements, by the output of the replaced node
    initialisers: list[onnx.TensorProto] = []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < _SMALLEST:
            initialisers.append(tensor)
            continue
        name = tensor.name
        users = [node for node in graph.node if name in node.input]
        matrix = values.ndim == 2 or (values.ndim == 4 and values.shape[1] > 3)
        if int8 and matrix and len(users) == 1 and users[0].op_type == "Gather":
            initialisers += _quantised(values, name, axis=0)
            instead[users[0].output[0]] = _gather_rows(users[0], name)
        elif int8 and matrix:
            axes = (0,) if values.ndim == 4 else (0, 1)
            initialisers += _quantised(values, name, axis=min(axes, key=lambda axis: _error(values, axis)))
            nodes.append(helper.make_node("Cast", [f"{name}_i8"], [f"{name}_wide"], to=TensorProto.FLOAT))
            nodes.append(helper.make_node("Cast", [f"{name}_scale"], [f"{name}_step"], to=TensorProto.FLOAT))
            nodes.append(helper.make_node("Mul", [f"{name}_wide", f"{name}_step"], [name]))
        else:
            initialisers.append(numpy_helper.from_array(values.astype(np.float16), f"{name}_f16"))
            nodes.append(helper.make_node("Cast", [f"{name}_f16"], [name], to=TensorProto.FLOAT))
    kept = [new for node in graph.node for new in instead.get(node.output[0], [node])]
    del graph.node[:], graph.initializer[:]
    graph.node.extend([*nodes, *kept])
    graph.initializer.extend(initialisers)
    return model


def _quantised(values: npt.NDArray[np.float32], name: str, *, axis: int) -> list[onnx.TensorProto]:
    whole, scale = quantise(values, axis)
    return [
        numpy_helper.from_array(whole, f"{name}_i8"),
        numpy_helper.from_array(scale.astype(np.float16), f"{name}_scale"),
    ]


def _error(values: npt.NDArray[np.float32], axis: int) -> float:
    whole, scale = quantise(values, axis)
    return float(np.square(whole * scale - values).mean())


def _gather_rows(node: onnx.NodeProto, name: str) -> list[onnx.NodeProto]:
    """Build a `Gather` of int8 rows and their scales, to replace one of float32 rows."""
    out, ids = node.output[0], node.input[1]
    return [
        helper.make_node("Gather", [f"{name}_i8", ids], [f"{out}_i8"], axis=0),
        helper.make_node("Cast", [f"{out}_i8"], [f"{out}_wide"], to=TensorProto.FLOAT),
        helper.make_node("Gather", [f"{name}_scale", ids], [f"{out}_scale"], axis=0),
        helper.make_node("Cast", [f"{out}_scale"], [f"{out}_step"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{out}_wide", f"{out}_step"], [out]),
    ]


def rename_values(graph: GraphProto, names: dict[str, str]) -> None:
    """Rename values of a graph: `names` maps old to new names."""
    for value in (*graph.input, *graph.output):
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        for number, name in enumerate(node.input):
            node.input[number] = names.get(name, name)
        for number, name in enumerate(node.output):
            node.output[number] = names.get(name, name)
