"""Export of a RAM in torch as the graph `ram.onnx`, compared with the module."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from impart.blending.ram_onnx import GRAPH_INPUTS
from impart.encoders.onnx.session import OnnxSession
from impart.encoders.torch_towers import quiet
from impart.errors import EncoderError, MissingExtraError

__all__ = ["export_graph"]

_TOLERANCE = 1e-4  # largest difference between a module and its export, relative to the largest number


def export_graph(
    module: nn.Module,
    path: Path,
    sample: dict[str, Tensor],
    *,
    outputs: Sequence[str],
    check: dict[str, Tensor],
    shapes: Any = None,
) -> None:
    """Write a module as ONNX, run it on `check`, and compare its outputs with those of the module.

    Args:
        module: on the CPU, float32.
        path: of the graph.
        sample: inputs by name, to export with.
        outputs: names.
        check: inputs by name, to compare on.
        shapes: dynamic axes, as torch's exporter takes them; None = none.

    Raises:
        EncoderError: torch cannot export it, or the outputs differ.
        MissingExtraError: the exporter's packages are not installed.
    """
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("onnxscript", extra="train", purpose="export to ONNX") from error
    with quiet():
        try:
            program = torch.onnx.export(
                module,
                tuple(sample.values()),
                input_names=[GRAPH_INPUTS.get(name, name) for name in sample],
                output_names=list(outputs),
                dynamic_shapes=shapes,
                opset_version=18,
                dynamo=True,
                verbose=False,
            )
            assert program is not None
            for node in program.model.graph.all_nodes():
                node.metadata_props.clear()  # the exporter writes paths of this machine
            program.save(str(path), external_data=False)
        except Exception as error:  # many kinds, from three packages
            raise EncoderError(f"torch cannot export the RAM to {path}: {error}") from error
    _check_export(module, path, check)


def _check_export(module: nn.Module, path: Path, sample: dict[str, Tensor]) -> None:
    session = OnnxSession(path)
    feeds = {GRAPH_INPUTS.get(name, name): tensor.numpy() for name, tensor in sample.items()}
    got = session.run([item.name for item in session.outputs], feeds)
    with torch.no_grad():
        found = module(*sample.values())
    want = (found,) if isinstance(found, Tensor) else found
    apart = max(float((torch.from_numpy(a) - b).abs().max()) for a, b in zip(got, want, strict=True))
    size = max(1.0, *(float(b.abs().max()) for b in want))
    if not apart <= _TOLERANCE * size:
        raise EncoderError(f"the export {path} differs from the RAM by {apart:.2g}: do not use it")
