"""Scaling: decoded frames to small upright RGB images for an encoder, and to thumbnails for comparison.

swscale converts straight from the decoder's pixel format: a frame is never RGB at full size. It uses the colour matrix
and range that the stream declares; where none is declared, BT.601 limited range, as the ffmpeg command does. High
dynamic range is converted without tone mapping.
"""

from __future__ import annotations

from typing import Any

import av
import av.error
import numpy as np
from av.sidedata.sidedata import Type
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter

from impart.config import Fit

__all__ = ["MAX_ASPECT", "MIN_SIDE_PX", "THUMB_PX", "Scaler", "difference"]

MIN_SIDE_PX = 8  # a file with smaller frames is reported as failed
MAX_ASPECT = 4.0  # of a longer strip the middle is kept: a 1 x 10,000 image would need gigabytes
THUMB_PX = 32
WIDE_PX = 4096  # limit of swscale's filters; thumbnails of larger frames are made from the scaled image
BLOCKS = 4  # a thumbnail's side in blocks of 8 px


class Scaler:
    """Scales frames of one stream; keeps swscale's tables between frames, whose size may change.

    Args:
        short_side_px: short side of the images.
        fit: `squash` makes squares of whole frames, `crop` keeps their shape.
        aspect: sample aspect ratio (width of a pixel / its height).
        orientation: see `orientation`.
    """

    def __init__(
        self,
        short_side_px: int,
        *,
        fit: Fit = "crop",
        aspect: float = 1.0,
        orientation: tuple[bool, bool, bool] = (False, False, False),
    ) -> None:
        self._side, self._fit = short_side_px, fit
        self._aspect = aspect if 0.1 < aspect < 10 else 1.0
        self._orientation = orientation
        self._large = VideoReformatter()
        self._small = VideoReformatter()

    def image(self, frame: av.VideoFrame) -> np.ndarray:
        """Convert a frame to upright RGB, uint8 (h, w, 3), min(h, w) = short_side_px."""
        frame = self._within_aspect(frame)
        width, height = self._size(frame)
        rgb = _scale(self._large, frame, width=width, height=height, interpolation=Interpolation.BICUBIC)
        return _upright(rgb, self._orientation)

    def thumbnail(self, frame: av.VideoFrame) -> np.ndarray:
        """Shrink the whole frame to RGB, float32 (THUMB_PX, THUMB_PX, 3), 0..255, for `difference`."""
        if max(frame.width, frame.height) > WIDE_PX:
            width, height = self._size(frame)
            small = _scale(self._large, frame, width=width, height=height, interpolation=Interpolation.BICUBIC)
            frame = av.VideoFrame.from_ndarray(small, format="rgb24")
        thumb = _scale(self._small, frame, width=THUMB_PX, height=THUMB_PX, interpolation=Interpolation.AREA)
        return thumb.astype(np.float32)

    def _size(self, frame: av.VideoFrame) -> tuple[int, int]:
        shown = frame.width * self._aspect / frame.height
        if self._fit == "squash":
            return self._side, self._side
        if shown >= 1:
            return max(self._side, round(self._side * min(shown, MAX_ASPECT))), self._side
        return self._side, max(self._side, round(self._side / max(shown, 1 / MAX_ASPECT)))

    def _within_aspect(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Crop a strip longer than MAX_ASPECT to its middle (rare, so a conversion at full size is acceptable)."""
        shown = frame.width * self._aspect / frame.height
        if 1 / MAX_ASPECT <= shown <= MAX_ASPECT:
            return frame
        full = frame.to_ndarray(format="rgb24")
        width = min(frame.width, max(1, round(frame.height * MAX_ASPECT / self._aspect)))
        height = min(frame.height, max(1, round(frame.width * MAX_ASPECT * self._aspect)))
        top, left = (frame.height - height) // 2, (frame.width - width) // 2
        part = np.ascontiguousarray(full[top : top + height, left : left + width])
        return av.VideoFrame.from_ndarray(part, format="rgb24")


def difference(thumb: np.ndarray, other: np.ndarray) -> float:
    """Compute the difference of two thumbnails, in grey levels (0..255).

    It is the larger of the mean over the image and half the mean over the block that changed most, so that a small
    object that moves in a still scene counts.
    """
    apart = np.abs(thumb - other).mean(axis=2)  # (32, 32)
    step = THUMB_PX // BLOCKS
    blocks = apart.reshape(BLOCKS, step, BLOCKS, step).mean(axis=(1, 3))  # (4, 4)
    return float(max(blocks.mean(), blocks.max() / 2))


def orientation(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """Read how to turn a decoded frame upright: (transpose, flip left-right, flip top-bottom), in this order.

    The display matrix is `a b u c d v x y w`: a pixel at (x, y) is shown at (a x + c y, b x + d y).
    """
    data = frame.side_data.get(Type.DISPLAYMATRIX)
    if data is None:
        return False, False, False
    matrix = np.frombuffer(bytes(data), np.int32)
    a, b, c, d = (int(matrix[i]) for i in (0, 1, 3, 4))
    if abs(a) >= abs(b):
        return False, a < 0, d < 0
    return True, c < 0, b < 0


def _upright(image: np.ndarray, turn: tuple[bool, bool, bool]) -> np.ndarray:
    transpose, left_right, top_bottom = turn
    if transpose:
        image = image.transpose(1, 0, 2)
    if left_right:
        image = image[:, ::-1]
    if top_bottom:
        image = image[::-1]
    return np.ascontiguousarray(image)


def _scale(
    scaler: VideoReformatter, frame: av.VideoFrame, *, width: int, height: int, interpolation: Interpolation
) -> np.ndarray:
    wanted: dict[str, Any] = {
        "width": width,
        "height": height,
        "format": "rgb24",
        "interpolation": interpolation,
        "threads": 1,
    }
    try:
        scaled = scaler.reformat(frame, **wanted)
    except av.error.FFmpegError:
        # A colour matrix that swscale does not support, or an invalid one: slightly wrong colours, but an image.
        scaled = VideoReformatter().reformat(frame, src_colorspace=Colorspace.ITU601, **wanted)
    return np.asarray(scaled.to_ndarray())
