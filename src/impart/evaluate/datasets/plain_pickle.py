"""Load pickles of plain data without running code.

A pickle can run code when it is loaded, and CIFAR batches and MSVD captions are published as pickles. The unpickler
here accepts arrays, texts, numbers, lists and dictionaries, of all protocols and of both names of NumPy's modules, and
refuses everything else.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np
import numpy.typing as npt

from impart.errors import DataError

__all__ = ["load_plain_pickle"]

_BROKEN_PICKLE = (  # errors that damaged pickles raise
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    TypeError,
    ValueError,
)


def _latin1(text: str, encoding: str) -> bytes:
    """Encode bytes that Python 3 wrote for Python 2, as `_codecs.encode` does; no other codec."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes encoded as {encoding!r}")
    return text.encode("latin1")


def _frombuffer(data: bytes, dtype: Any, shape: Any, order: Any, axes: Any = None) -> npt.NDArray[Any]:
    """Make an array from a buffer, as protocol 5 does; NumPy refuses arrays of objects here."""
    array = np.frombuffer(data, dtype=dtype)
    if order == "K" and axes is not None:  # since NumPy 2.3
        return array.reshape(shape).transpose(axes)
    return array.reshape(shape, order=order)


def _scalar(dtype: Any, data: Any = b"") -> Any:
    """Make a NumPy number or text from its bytes; NumPy's own function also takes objects."""
    if not isinstance(dtype, np.dtype) or dtype.hasobject:
        raise pickle.UnpicklingError("it has a scalar of objects")
    data = data.encode("latin1") if isinstance(data, str) else data
    return np.frombuffer(data, dtype=dtype, count=1)[0]


def _bytearray(content: Any = b"", encoding: str = "latin1") -> bytearray:
    """Make a bytearray of bytes or Latin-1 text; never of a length, which could fill the memory."""
    if isinstance(content, str):
        content = _latin1(content, encoding.replace("-", ""))
    if not isinstance(content, bytes | bytearray):
        raise pickle.UnpicklingError("it has a bytearray of something else than bytes")
    return bytearray(content)


class _PlainUnpickler(pickle.Unpickler):
    """Unpickler of plain data; other content could run code."""

    def find_class(self, module: str, name: str) -> Any:
        """Return one of the allowed functions and classes.

        Raises:
            UnpicklingError: the pickle refers to anything else.
        """
        plain: dict[tuple[str, str], Any] = {
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("_codecs", "encode"): _latin1,
            ("collections", "OrderedDict"): dict,
            ("builtins", "bytearray"): _bytearray,
            ("__builtin__", "bytearray"): _bytearray,
        }
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return np.empty(0).__reduce__()[0]  # numpy's module has two names
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "scalar":
            return _scalar
        if module in ("numpy.core.numeric", "numpy._core.numeric") and name == "_frombuffer":
            return _frombuffer
        if (module, name) in plain:
            return plain[module, name]
        raise pickle.UnpicklingError(f"it refers to {module}.{name}, which plain data does not need")


def load_plain_pickle(data: bytes, *, where: str) -> Any:
    """Load a pickle of arrays and plain values; texts of Python 2 become bytes.

    Args:
        data: content of the pickle.
        where: its file, for messages.

    Raises:
        DataError: the pickle is damaged, or refers to other content than plain data (which is not run).
    """
    try:
        return _PlainUnpickler(io.BytesIO(data), encoding="bytes").load()
    except _BROKEN_PICKLE as error:
        raise DataError(f"{where} is not a pickle of plain data ({error}): download it again") from error
