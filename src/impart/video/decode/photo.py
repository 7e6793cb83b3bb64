"""Photos: a still image as one segment without duration.

The pixels are those that `impart.images` gives to reference sets and to image queries.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from impart.config import DecodeSettings
from impart.encoders.preprocess import fitted
from impart.errors import DataError
from impart.images import DRAFT_SIDES, load_photo
from impart.video.decode.container import VideoInfo, failure, is_read_error
from impart.video.decode.content import ICON, ICON_PX
from impart.video.decode.sampler import DecodedSegment, DecodeFinished

__all__ = ["sample_photo"]


def sample_photo(
    path: Path, *, settings: DecodeSettings, short_side_px: int
) -> Iterator[DecodedSegment | DecodeFinished]:
    """Decode one photo.

    Args:
        short_side_px: short side of the image, at most.

    Yields:
        One segment at 0 s, then `DecodeFinished`.

    Raises:
        DecodeError: the file cannot be read, or is an icon; names the reason.
    """
    try:
        photo = load_photo(path, draft_px=DRAFT_SIDES * short_side_px)
    except DataError as error:
        cause = error.__cause__
        raise failure(path, str(error), lasting=cause is None or not is_read_error(cause)) from error
    width, height = photo.image.size
    if max(width, height) < ICON_PX:
        raise failure(path, ICON)
    image = np.asarray(fitted(photo.image, side_px=short_side_px, squash=settings.fit == "squash"))
    yield DecodedSegment(path, 0.0, 0.0, 1, np.ascontiguousarray(image), still=True)
    info = VideoInfo(
        duration_s=0.0,
        width=width,
        height=height,
        codec=photo.format,
        container="image",
        fps=0.0,
        kind="photo",
        recorded_at=photo.recorded_at,
    )
    yield DecodeFinished(path, info, 1, notes=photo.notes)
