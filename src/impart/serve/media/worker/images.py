"""Frame images: the frame of a video at a time, or a photo, as WebP.

A frame is decoded from the key frame before it; on the way, frames that no other refers to are left out. It is upright,
in square pixels and in SDR, as the index sees it.
"""

from __future__ import annotations

import io

from PIL import Image

from impart.images import load_image
from impart.serve.media.worker.source import MediaSource
from impart.video.decode.frames.side_data import orientation
from impart.video.decode.scaling import MAX_ASPECT
from impart.video.export.source.frames import ShownFrame, scaler_of, shown_frame

__all__ = ["FORM", "frame_webp"]

FORM = 1  # part of the keys of kept images: raised when they change
QUALITY = 78
METHOD = 2  # of libwebp: half the time of the default, files 3% larger
TALLEST = 4  # height over width of the tallest image


def frame_webp(source: MediaSource, time_s: float, *, width_px: int) -> bytes:
    """Make the WebP image of the frame that is shown at a time, or of a photo.

    Args:
        time_s: from the start of the video; behind its end, the last frame is taken.
        width_px: of the image; smaller ones are not enlarged.

    Raises:
        DataError, DecodeError: the file is gone, or cannot be decoded.
    """
    if source.kind == "photo":
        image = load_image(source.path, draft_px=width_px)[0]
    else:
        image = _frame(shown_frame(source.path, time_s, jumps=source.jumps), width_px=width_px)
    image.thumbnail((width_px, TALLEST * width_px), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    image.save(content, "WEBP", quality=QUALITY, method=METHOD)
    return content.getvalue()


def _frame(shown: ShownFrame, *, width_px: int) -> Image.Image:
    """Scale a frame to a width, upright and in SDR."""
    wide, high = max(1.0, shown.frame.width * float(shown.aspect)), float(shown.frame.height)
    if orientation(shown.frame)[0]:
        wide, high = high, wide
    short_px = min(wide, high) * min(1.0, width_px / min(wide, MAX_ASPECT * high))
    return Image.fromarray(scaler_of(shown, short_side_px=max(1, round(short_px))).image(shown.frame))
