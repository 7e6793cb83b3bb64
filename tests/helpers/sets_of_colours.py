"""Small data sets in memory that the tiny encoder solves without error."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from helpers.tiny_encoder import COLOURS
from impart.errors import DataError, DecodeError
from impart.evaluate.datasets.types import CaptionSet, ClassSet, Images


def coloured(names: Sequence[str], *, size_px: tuple[int, int] = (20, 16)) -> Images:
    """Make one plain image per colour name; `broken` cannot be read."""

    def read(number: int) -> tuple[Image.Image, str]:
        if names[number] == "broken":
            raise DataError("is no image")
        return Image.new("RGB", size_px, COLOURS[names[number]]), f"hash of {names[number]}"

    keys = tuple(f"{number}-{name}.png" for number, name in enumerate(names))
    return Images(keys=keys, read=read, identity=lambda: "/".join(keys))


def class_set(names: Sequence[str], *, called: Sequence[str] | None = None, classes: Sequence[str]) -> ClassSet:
    """Make images of these colours with the labels `called`; None = their own names."""
    labels = np.array([list(classes).index(name) for name in called or names])
    return ClassSet(name="colours", images=coloured(names), labels=labels, classes=tuple(classes))


def caption_set(names: Sequence[str], captions: Sequence[tuple[int, str]]) -> CaptionSet:
    return CaptionSet(
        name="captioned",
        images=coloured(names),
        captions=tuple(text for _, text in captions),
        owners=np.array([owner for owner, _ in captions]),
    )


def colour_frames(path: Path) -> Iterator[tuple[float, float, np.ndarray]]:
    """Yield frames by the file name: `red4-blue6.avi` is red for 4 s, then blue for 6 s; `broken` cannot be read."""
    start_s = 0.0
    for part in path.stem.split("_")[0].split("-"):
        name, seconds = part.rstrip("0123456789"), part.lstrip("abcdefghijklmnopqrstuvwxyz")
        if name == "broken":
            raise DecodeError(f"cannot decode {path}: cannot be opened", reason="cannot be opened")
        for _ in range(4 * int(seconds)):
            yield start_s, start_s + 0.25, np.full((8, 8, 3), COLOURS[name], np.uint8)
            start_s += 0.25
