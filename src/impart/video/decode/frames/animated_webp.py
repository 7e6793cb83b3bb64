"""Animated WebP, which FFmpeg 8.1 does not decode: Pillow reads it, and it is handed on as a video without loss."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
from PIL import Image, ImageSequence

from impart.encoders.preprocess import to_rgb

__all__ = ["as_video"]

TICKS_PER_S = 1000
MOST_PX = 1 << 29  # of all frames together: half a gigabyte without loss


def as_video(path: Path) -> io.BytesIO:
    """Decode an animated WebP to a Matroska file in memory; transparent parts become white.

    Raises:
        OSError: Pillow cannot decode it.
        ValueError: it is too large.
    """
    file = io.BytesIO()
    with Image.open(path) as image, av.open(file, "w", format="matroska") as container:
        if image.width * image.height * getattr(image, "n_frames", 1) > MOST_PX:
            raise ValueError(f"an animation of more than {MOST_PX:,} pixels")
        stream = container.add_stream("ffv1", rate=TICKS_PER_S)
        stream.width, stream.height, stream.pix_fmt = image.width, image.height, "bgr0"
        stream.codec_context.time_base = Fraction(1, TICKS_PER_S)
        ticks = 0
        for picture in ImageSequence.Iterator(image):
            frame = av.VideoFrame.from_image(to_rgb(picture))
            frame.pts, frame.time_base = ticks, Fraction(1, TICKS_PER_S)
            frame.duration = max(1, round(picture.info.get("duration", 0)))
            ticks += frame.duration
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    file.seek(0)
    return file
