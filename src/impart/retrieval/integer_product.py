"""Product of whole numbers of 8 bits, by the kernels of ONNX Runtime (VNNI, NEON). NumPy has none.

The graph has one node, `MatMulInteger`. It is written here byte by byte, since the package `onnx` is not needed to
search.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["ZERO", "integer_product"]

ZERO = 128
"""The number that stands for 0 in rows of bytes."""

_UINT8, _INT8, _INT32 = 2, 3, 6  # of `TensorProto.DataType`
_IR_VERSION, _OPSET = 8, 13


def integer_product(rows: npt.NDArray[np.uint8], columns: npt.NDArray[np.int8]) -> npt.NDArray[np.int32]:
    """Multiply rows, less `ZERO`, with columns, on one thread.

    Args:
        rows: (m, W).
        columns: (W, T) from -64 to 63: pairs of larger products do not fit the 16 bits of processors without VNNI. Up
            to 16 columns take the time of one.

    Returns:
        (m, T).

    >>> integer_product(np.array([[128, 130]], np.uint8), np.array([[5], [3]], np.int8)).tolist()
    [[6]]
    """
    zero, none = np.array(ZERO, np.uint8), np.array(0, np.int8)
    found: npt.NDArray[np.int32] = _session().run(None, {"a": rows, "b": columns, "za": zero, "zb": none})[0]
    return found


@cache
def _session() -> Any:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.log_severity_level = 3
    settings.enable_cpu_mem_arena = False
    return onnxruntime.InferenceSession(_graph(), settings, providers=["CPUExecutionProvider"])


def _graph() -> bytes:
    """Write the graph as protocol buffers (onnx.proto)."""
    node = _text(1, "a") + _text(1, "b") + _text(1, "za") + _text(1, "zb") + _text(2, "y") + _text(4, "MatMulInteger")
    inputs = (
        _value("a", _UINT8, "m", "w"),
        _value("b", _INT8, "w", "t"),
        _value("za", _UINT8),
        _value("zb", _INT8),
    )
    graph = _field(1, node) + _text(2, "product") + b"".join(_field(11, one) for one in inputs)
    graph += _field(12, _value("y", _INT32, "m", "t"))
    opset = _text(1, "") + _number(2, _OPSET)
    return _number(1, _IR_VERSION) + _field(7, graph) + _field(8, opset)


def _value(name: str, kind: int, *dimensions: str) -> bytes:
    """Write a `ValueInfoProto`."""
    shape = b"".join(_field(1, _text(2, one)) for one in dimensions)
    return _text(1, name) + _field(2, _field(1, _number(1, kind) + _field(2, shape)))


def _field(number: int, content: bytes) -> bytes:
    """Write a field of bytes; those of this graph are shorter than 2 ** 14."""
    length = len(content)
    size = bytes([length]) if length < 128 else bytes([length & 127 | 128, length >> 7])
    return bytes([number << 3 | 2]) + size + content


def _text(number: int, text: str) -> bytes:
    return _field(number, text.encode())


def _number(number: int, value: int) -> bytes:
    return bytes([number << 3, value])
