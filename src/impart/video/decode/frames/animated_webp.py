"""Animated WebP, which FFmpeg 8.1 does not decode: Pillow reads it, and it becomes a video without loss."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
from av.codec.context import Flags

from impart.images import animation_frames

__all__ = ["as_video"]

TICKS_PER_S = 1000
MOST_PX = 1 << 29  # of all frames together: half a gigabyte without loss


def as_video(path: Path) -> io.BytesIO:
    """Decode an animated WebP to a Matroska file in memory; transparent parts become white.

    Raises:
        OSError, SyntaxError: Pillow cannot decode it.
        ValueError: it is too large.
    """
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream, ticks = None, 0
        for image, duration_ms in animation_frames(path, most_px=MOST_PX):
            if stream is None:
                stream = container.add_stream("ffv1", rate=TICKS_PER_S)
                stream.width, stream.height, stream.pix_fmt = image.width, image.height, "bgr0"
                stream.codec_context.time_base = Fraction(1, TICKS_PER_S)
                stream.codec_context.flags |= Flags.frame_duration  # else the last frame has no duration
            frame = av.VideoFrame.from_image(image)
            frame.pts, frame.time_base = ticks, Fraction(1, TICKS_PER_S)
            frame.duration = max(1, duration_ms)
            ticks += frame.duration
            container.mux(stream.encode(frame))
        if stream is not None:
            container.mux(stream.encode(None))
    file.seek(0)
    return file
