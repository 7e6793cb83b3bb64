"""Scaling: decoded frames to small upright RGB images for an encoder, and to thumbnails for comparison.

swscale converts straight from the decoder's pixel format: a frame is never RGB at full size. It uses the colour matrix
and range that the stream declares. `impart.video.decode.frames.colour` chooses a matrix where none is declared, and
converts high dynamic range. Of an interlaced frame one field is scaled (`impart.video.decode.frames.fields`).
Transparent parts become black, as players show them.
"""

from __future__ import annotations

from typing import Any

import av
import av.error
import numpy as np
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter

from impart.config import Fit
from impart.video.decode.frames.colour import ground_of, has_alpha, is_converted, matrix_of, to_sdr
from impart.video.decode.frames.fields import FIELD_ASPECT, FieldFilter

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
        orientation: see `impart.video.decode.frames.side_data.orientation`.
        codec: FFmpeg's canonical name of the codec, for fields and transparent parts.
    """

    def __init__(
        self,
        short_side_px: int,
        *,
        fit: Fit = "crop",
        aspect: float = 1.0,
        orientation: tuple[bool, bool, bool] = (False, False, False),
        codec: str = "",
    ) -> None:
        self._side, self._fit = short_side_px, fit
        self._aspect = aspect if 0.1 < aspect < 10 else 1.0
        self._orientation = orientation
        self._fields, self._ground = FieldFilter(codec), ground_of(codec)
        self._large = VideoReformatter()
        self._small = VideoReformatter()

    def image(self, frame: av.VideoFrame) -> np.ndarray:
        """Convert a frame to upright RGB, uint8 (h, w, 3), min(h, w) = short_side_px."""
        field, aspect = self._field(frame)
        return _upright(self._image(field, aspect=aspect), self._orientation)

    def thumbnail(self, frame: av.VideoFrame) -> np.ndarray:
        """Shrink the whole frame to RGB, float32 (THUMB_PX, THUMB_PX, 3), 0..255, for `difference`."""
        field, aspect = self._field(frame)
        if max(field.width, field.height) > WIDE_PX:
            field = av.VideoFrame.from_ndarray(self._image(field, aspect=aspect), format="rgb24")
        thumb = _scale(
            self._small,
            field,
            width=THUMB_PX,
            height=THUMB_PX,
            ground=self._ground,
            interpolation=Interpolation.AREA,
        )
        return thumb.astype(np.float32)

    def _field(self, frame: av.VideoFrame) -> tuple[av.VideoFrame, float]:
        """Take one field of an interlaced frame; also returns its sample aspect."""
        field = self._fields.field(frame)
        return field, self._aspect * (FIELD_ASPECT if field is not frame else 1)

    def _image(self, frame: av.VideoFrame, *, aspect: float) -> np.ndarray:
        frame = _within_aspect(frame, aspect=aspect, ground=self._ground)
        width, height = self._size(frame, aspect=aspect)
        return _scale(self._large, frame, width=width, height=height, ground=self._ground)

    def _size(self, frame: av.VideoFrame, *, aspect: float) -> tuple[int, int]:
        shown = frame.width * aspect / frame.height
        if self._fit == "squash":
            return self._side, self._side
        if shown >= 1:
            return max(self._side, round(self._side * min(shown, MAX_ASPECT))), self._side
        return self._side, max(self._side, round(self._side / max(shown, 1 / MAX_ASPECT)))


def difference(thumb: np.ndarray, other: np.ndarray) -> float:
    """Compute the difference of two thumbnails, in grey levels (0..255).

    It is the larger of the mean over the image and half the mean over the block that changed most, so that a small
    object that moves in a still scene counts.
    """
    apart = np.abs(thumb - other).mean(axis=2)  # (32, 32)
    step = THUMB_PX // BLOCKS
    blocks = apart.reshape(BLOCKS, step, BLOCKS, step).mean(axis=(1, 3))  # (4, 4)
    return float(max(blocks.mean(), blocks.max() / 2))


def _within_aspect(frame: av.VideoFrame, *, aspect: float, ground: int) -> av.VideoFrame:
    """Crop a strip longer than MAX_ASPECT to its middle (rare, so a conversion at full size is acceptable)."""
    shown = frame.width * aspect / frame.height
    if 1 / MAX_ASPECT <= shown <= MAX_ASPECT:
        return frame
    full = _scale(VideoReformatter(), frame, width=frame.width, height=frame.height, ground=ground)
    width = min(frame.width, max(1, round(frame.height * MAX_ASPECT / aspect)))
    height = min(frame.height, max(1, round(frame.width * MAX_ASPECT * aspect)))
    top, left = (frame.height - height) // 2, (frame.width - width) // 2
    part = np.ascontiguousarray(full[top : top + height, left : left + width])
    return av.VideoFrame.from_ndarray(part, format="rgb24")


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
    scaler: VideoReformatter,
    frame: av.VideoFrame,
    *,
    width: int,
    height: int,
    ground: int,
    interpolation: Interpolation = Interpolation.BICUBIC,
) -> np.ndarray:
    """Scale to RGB in the range and primaries of SDR, uint8 (height, width, 3)."""
    wide, clear = is_converted(frame), has_alpha(frame)
    wanted: dict[str, Any] = {
        "width": width,
        "height": height,
        "format": {(False, False): "rgb24", (False, True): "rgba", (True, False): "rgb48le", (True, True): "rgba64le"}[
            wide, clear
        ],
        "interpolation": interpolation,
        "threads": 1,
    }
    try:
        scaled = scaler.reformat(frame, src_colorspace=matrix_of(frame), **wanted)
    except av.error.FFmpegError:
        # A colour matrix that swscale does not support, or an invalid one: slightly wrong colours, but an image.
        matrix = Colorspace.BT2020 if wide else Colorspace.ITU601
        scaled = VideoReformatter().reformat(frame, src_colorspace=matrix, **wanted)
    pixels = np.asarray(scaled.to_ndarray())
    rgb = pixels[..., :3]
    if wide:
        rgb = to_sdr(rgb.astype(np.uint16, copy=False), transfer=frame.color_trc, primaries=frame.color_primaries)
    if clear:
        opaque = pixels[..., 3:].astype(np.float32) / (65535 if wide else 255)
        rgb = np.rint(ground + (rgb.astype(np.float32) - ground) * opaque).astype(np.uint8)
    return rgb
