"""One graph that sees large and small pictures through two sets of weights (`train/small_pictures.py`).

Which set is used follows from the size of the input. The matrices that both sets have in common are stored once: the
small set has other gains on them, and a gain of a channel is a factor on its scale, not on its int8 numbers.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper

__all__ = ["join_sizes", "rename"]


def join_sizes(large: ModelProto, small: ModelProto, *, small_px: int) -> ModelProto:
    """Put two graphs of one architecture behind an `If` on the width of the input.

    Args:
        large: one input and one output; for every other width.
        small: with the same names for input, output and weights.
        small_px: width of the input that the small graph takes.

    Returns:
        A model with the same input, of free height and width, and the same output.
    """
    entry, result = large.graph.input[0].name, large.graph.output[0].name
    branches = {"large": onnx.compose.add_prefix(large, "large/"), "small": onnx.compose.add_prefix(small, "small/")}
    for title, model in branches.items():
        rename(model.graph, {f"{title}/{entry}": entry})
    shared = _share(branches["large"].graph, branches["small"].graph)
    graphs = {
        title: helper.make_graph(
            model.graph.node,
            title,
            inputs=[],
            outputs=[helper.make_empty_tensor_value_info(model.graph.output[0].name)],
            initializer=model.graph.initializer,
        )
        for title, model in branches.items()
    }
    nodes = [
        helper.make_node("Shape", [entry], ["sides"]),
        helper.make_node("Gather", ["sides", "third"], ["width"]),
        helper.make_node("Equal", ["width", "small_width"], ["is_small"]),
        helper.make_node("If", ["is_small"], [result], then_branch=graphs["small"], else_branch=graphs["large"]),
    ]
    numbers = {"third": np.array(3, np.int64), "small_width": np.array(small_px, np.int64)}
    shape = large.graph.output[0].type.tensor_type.shape.dim
    graph = helper.make_graph(
        nodes,
        "two sizes",
        inputs=[helper.make_tensor_value_info(entry, TensorProto.FLOAT, ["B", 3, "H", "W"])],
        outputs=[helper.make_tensor_value_info(result, TensorProto.FLOAT, ["B", shape[1].dim_value])],
        initializer=[*shared, *(numpy_helper.from_array(value, name) for name, value in numbers.items())],
    )
    joined = helper.make_model(graph, opset_imports=large.opset_import)
    joined.ir_version = max(large.ir_version, small.ir_version)
    onnx.checker.check_model(joined)
    return joined


def _share(large: GraphProto, small: GraphProto) -> list[TensorProto]:
    """Take the int8 kernels that are the same in both graphs out of them; both then name what is returned."""
    own = {tensor.name.removeprefix("small/"): tensor for tensor in small.initializer}
    shared: list[TensorProto] = []
    for tensor in large.initializer:
        name = tensor.name.removeprefix("large/")
        if tensor.data_type == TensorProto.INT8 and name in own and _same(tensor, own[name]):
            shared.append(tensor)
    for graph, title in ((large, "large/"), (small, "small/")):
        names = {title + tensor.name.removeprefix("large/") for tensor in shared}
        kept = [tensor for tensor in graph.initializer if tensor.name not in names]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        rename(graph, {name: "shared/" + name.removeprefix(title) for name in names})
    for tensor in shared:
        tensor.name = "shared/" + tensor.name.removeprefix("large/")
    return shared


def _same(one: TensorProto, other: TensorProto) -> bool:
    """Equal but for rounding: a factor on weights and scale alike may turn a half up or down."""
    first, second = (numpy_helper.to_array(tensor).astype(np.int16) for tensor in (one, other))
    return first.shape == second.shape and first.ndim > 1 and bool(np.abs(first - second).max() <= 1)


def rename(graph: GraphProto, names: dict[str, str]) -> None:
    """Give values of a graph other names."""
    for value in (*graph.input, *graph.output):
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        for number, name in enumerate(node.input):
            node.input[number] = names.get(name, name)
        for number, name in enumerate(node.output):
            node.output[number] = names.get(name, name)
