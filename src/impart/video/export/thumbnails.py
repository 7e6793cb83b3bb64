"""Thumbnails of spans: the frame that stands for each, or the photo itself."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from impart.errors import DataError
from impart.files import read_ahead
from impart.images import load_image
from impart.video.export.source.frames import frame_image, has_jumps

__all__ = ["Thumbnail", "thumbnails"]

Thumbnail = Image.Image | DataError
_MOST_WORKERS = 4


def thumbnails(wanted: Sequence[tuple[Path, float, str]], *, size: tuple[int, int]) -> Iterator[Thumbnail]:
    """Make thumbnails, in order, in a few threads.

    Args:
        wanted: file, time of the frame (s), and `photo` or `video`.
        size: largest width and height in pixels.

    Yields:
        An RGB image per entry, or the error of a file that cannot be read.
    """

    def make(one: tuple[Path, float, str]) -> Thumbnail:
        path, time_s, kind = one
        try:
            if kind == "photo":
                image = load_image(path)[0]
            else:
                pixels = frame_image(path, time_s, short_side_px=min(size), jumps=has_jumps(path))
                image = Image.fromarray(pixels)
            image.thumbnail(size)
        except DataError as error:
            return error
        return image

    workers = min(_MOST_WORKERS, os.cpu_count() or 1)
    yield from read_ahead(wanted, make, workers=workers, ahead=4 * workers)
