"""Right or wrong per test item as text, and the figures that are means over tests (`benchmarks/ra_clip_scratch.py`)."""

from __future__ import annotations

import base64

import numpy as np
import numpy.typing as npt

from ra_clip_report import ZEROSHOT

__all__ = ["MEANS", "pack", "unpack"]

Right = npt.NDArray[np.bool_]

MEANS: dict[str, tuple[str, ...]] = {
    "zeroshot": tuple(ZEROSHOT),
    "zeroshot@7": tuple(f"{name}@7" for name in ZEROSHOT),
    "probe": tuple(f"{name}/probe" for name in ("cifar10", "cifar100", "caltech101")),
    "coco": ("coco",),
    "flickr8k_r1": ("flickr8k_r1",),
    "flickr8k_r5": ("flickr8k_r5",),
    "panda_r1": ("panda_r1",),
    "panda_r5": ("panda_r5",),
}
"""Figures of the report, and the tests whose mean they are."""


def pack(right: Right) -> str:
    """Write m booleans as text, eight per byte.

    >>> unpack(pack(np.array([True, False, True]))).tolist()
    [True, False, True]
    """
    return f"{len(right)}:{base64.b64encode(np.packbits(right).tobytes()).decode()}"


def unpack(text: str) -> Right:
    """Read what `pack` wrote."""
    count, bits = text.split(":")
    return np.unpackbits(np.frombuffer(base64.b64decode(bits), dtype=np.uint8), count=int(count)).astype(bool)
