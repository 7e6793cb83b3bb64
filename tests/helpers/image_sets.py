"""Small files in the formats of published image data sets."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from helpers.tiny_encoder import COLOURS

__all__ = ["class_folders", "image", "python2_pickle"]


def image(path: Path, colour: str = "red", size: tuple[int, int] = (20, 16)) -> Path:
    """Write an image of one colour, and make the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, COLOURS[colour]).save(path)
    return path


def class_folders(root: Path, names: Iterable[str], *, each: int = 2, suffix: str = ".png") -> Path:
    """Write one folder of images per class; a class without a colour has red images."""
    for name in names:
        for number in range(each):
            image(root / name / f"{number}{suffix}", name if name in COLOURS else "red")
    return root


def python2_pickle(value: Mapping[str, object]) -> bytes:
    """Pickle a dictionary as Python 2 did (protocol 2): texts are byte strings, as in the published batches."""
    return b"\x80\x02" + _pickled(value) + b"."


def _pickled(value: object) -> bytes:
    if isinstance(value, Mapping):
        return b"}(" + b"".join(_pickled(key) + _pickled(one) for key, one in value.items()) + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(_pickled(one) for one in value) + b"e"
    if isinstance(value, str):
        return b"T" + struct.pack("<i", len(value.encode())) + value.encode()
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    assert isinstance(value, np.ndarray)
    return _pickled_array(value)


def _pickled_array(array: npt.NDArray[np.uint8]) -> bytes:
    data = array.tobytes()
    shape = b"(" + b"".join(_pickled(int(size)) for size in array.shape) + b"t"
    dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNN" + _pickled(-1) * 2 + b"K\x00tb"
    state = b"(K\x01" + shape + dtype + b"\x89T" + struct.pack("<i", len(data)) + data + b"tb"
    return b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R" + state
