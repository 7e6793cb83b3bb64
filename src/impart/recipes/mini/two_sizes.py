"""One graph with two sets of weights, for large and for small images (`recipes/mini/small_images.py`).

The size of the input selects the set. Matrices of both sets are stored once: the small set has other gains on them, and
the gain of a channel is a factor on its scale, not on its int8 numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper

from impart.train.heads.onnx_export import rename_values

__all__ = ["join_sizes"]

_UNSEEN = 1e-3
"""A difference of weights, in steps of the kernel's coarsest channel, that changes no output."""


def join_sizes(large: ModelProto, small: ModelProto, *, small_px: int) -> ModelProto:
    """Join two graphs of one architecture by an `If` on the width of the input.

    Args:
        large: one input and one output; used for every other width.
        small: with the same names of input, output and weights.
        small_px: input width of the small graph.

    Returns:
        A model with the same input, of any height and width, and the same output.
    """
    entry, result = large.graph.input[0].name, large.graph.output[0].name
    branches = {"large": onnx.compose.add_prefix(large, "large/"), "small": onnx.compose.add_prefix(small, "small/")}
    for title, model in branches.items():
        rename_values(model.graph, {f"{title}/{entry}": entry})
    shared = _share([model.graph for model in branches.values()])
    graphs = {
        title: helper.make_graph(
            model.graph.node,
            title,
            inputs=[],
            outputs=[helper.make_empty_tensor_value_info(model.graph.output[0].name)],
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
    _shorten(joined)
    onnx.checker.check_model(joined)
    return joined


def _share(graphs: Sequence[GraphProto]) -> list[TensorProto]:
    """Remove the initializers of both graphs and return each of them once.

    Shared are kernels that are equal except for rounding, and initializers that are equal byte for byte (zero points).
    """
    large, small = graphs
    own = {tensor.name.removeprefix("small/"): tensor for tensor in small.initializer}
    twins: dict[str, str] = {}  # small name to large name
    for tensor in large.initializer:
        name = tensor.name.removeprefix("large/")
        other, scale = own.get(name), own.get(name.replace("_quantized", "_scale"))
        if tensor.data_type == TensorProto.INT8 and other and scale and _same(tensor, other, scale):
            twins[other.name] = tensor.name
    kept: dict[tuple[int, tuple[int, ...], bytes], TensorProto] = {}
    for graph in graphs:
        names: dict[str, str] = {}
        for tensor in graph.initializer:
            if tensor.name not in twins:
                content = numpy_helper.to_array(tensor).tobytes()
                names[tensor.name] = kept.setdefault((tensor.data_type, tuple(tensor.dims), content), tensor).name
        del graph.initializer[:]
        rename_values(graph, names | twins)
    return list(kept.values())


def _shorten(model: ModelProto) -> None:
    """Give every value of the graph and its branches a short name: long names need more bytes than the biases."""
    graphs = [model.graph, *(item.g for node in model.graph.node for item in node.attribute if item.HasField("g"))]
    ends = {value.name for value in (*model.graph.input, *model.graph.output)}
    made = [tensor.name for graph in graphs for tensor in graph.initializer]
    made += [name for graph in graphs for node in graph.node for name in node.output]
    names = {name: f"v{number}" for number, name in enumerate(dict.fromkeys(made)) if name not in ends}
    for graph in graphs:
        rename_values(graph, names)
        for tensor in graph.initializer:
            tensor.name = names.get(tensor.name, tensor.name)
        for node in graph.node:
            node.name = ""


def _same(large: TensorProto, small: TensorProto, scale: TensorProto) -> bool:
    """Whether two kernels are equal except for rounding: a factor on weights and scale may round a half up or down.

    A channel with weights near zero has the quantiser's smallest scale. There the weights themselves are compared.
    """
    first, second = (numpy_helper.to_array(tensor).astype(np.int16) for tensor in (large, small))
    steps = numpy_helper.to_array(scale)  # (channels,)
    if first.ndim < 2 or first.shape != second.shape or steps.shape != first.shape[:1]:
        return False
    apart = np.abs(first - second).reshape(len(first), -1).max(1)  # (channels,), in steps
    return bool(((apart <= 1) | (apart * steps <= _UNSEEN * steps.max())).all())
