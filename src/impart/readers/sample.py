"""Describe one image with its texts or labels, as a reader finds it, before the image is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

__all__ = ["IMAGE_SUFFIXES", "ImagePlace", "Listener", "ImageSample", "count_suffixes"]

ImagePlace: TypeAlias = "Path | bytes | Callable[[], bytes]"
"""Place of an image: a file, its bytes, or a function that reads its bytes."""

Listener: TypeAlias = "Callable[[str], None]"
"""Receives one note about what a reader left out or merged."""

IMAGE_SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
        *(".ppm", ".pgm", ".pnm", ".avif", ".heic", ".heif", ".hif", ".jp2", ".j2k"),
    }
)
"""File suffixes of images, in lower case, in folders and shards."""


@dataclass(frozen=True, kw_only=True)
class ImageSample:
    """One image with its captions and labels, not read yet.

    Attributes:
        image: its place; None = the source has no image for it.
        path: place relative to the source; the name in failure lists.
        location: place from which training reads the image (absolute path, or `shard.tar::member`).
        captions: its captions, without empty ones.
        labels: class numbers, codes or names, as stored.
        named: whether the labels are names that the source gives for its classes; others may be numbers or codes.
        source: collection.
        licence: as stated.
        problem: reason why the sample has no text; empty = none.
    """

    image: ImagePlace | None
    path: str
    location: str
    captions: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    named: bool = False
    source: str = ""
    licence: str = ""
    problem: str = ""


def count_suffixes(counts: Counter[str]) -> str:
    """Describe how many files have which suffix, the most frequent first.

    >>> count_suffixes(Counter({".svg": 1, ".npy": 2, "": 1}))
    '2 .npy, 1 .svg, 1 without a suffix'
    """
    return ", ".join(f"{count} {suffix or 'without a suffix'}" for suffix, count in counts.most_common())
