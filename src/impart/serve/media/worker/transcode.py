"""A span of a video as a file that every browser plays: H.264 in 8 bit with AAC sound, in an MP4 file.

Frames are made as the index makes them (`impart.video.decode.scaling`): upright, in square pixels, one field of an
interlaced frame, HDR as SDR. The start of the span is time 0 of the file, to the frame. The file is written whole, with
its index at the front: players seek badly in one that grows.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import math
from collections.abc import Callable
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation, VideoReformatter

from impart.errors import DataError
from impart.video.decode.frames.colour import has_alpha, is_converted, matrix_of
from impart.video.decode.frames.side_data import orientation
from impart.video.export.encoding import SoundSink, VideoCodec, VideoSink, choose_codec, sound_layout, sound_rate
from impart.video.export.source.facts import read_facts
from impart.video.export.source.frames import ShownFrame, SoundOfSpan, first_sound, frames_of_span, scaler_of

__all__ = ["FORM", "LONGEST_SIDE_PX", "MOST_FPS", "UNWRITABLE", "write_preview"]

FORM = 2  # part of the keys of kept previews: raised when the files change
LONGEST_SIDE_PX = 960  # a player on a page is hardly wider, and 1,280 takes nearly twice the time
MOST_FPS = 60
_ROUNDING_S = 0.001  # of times in Matroska: frames at 60 fps are 16 or 17 ms apart there
UNWRITABLE = frozenset({errno.ENOSPC, errno.EROFS, getattr(errno, "EDQUOT", errno.ENOSPC)})
"""Errors of the disk that is written; others are of the source."""
_X264 = {"preset": "veryfast", "crf": "23", "g": "48"}
_CHANNELS = 2
_WANTED: dict[str, Any] = {
    "format": "yuv420p", "dst_colorspace": Colorspace.ITU709, "dst_color_range": ColorRange.MPEG, "threads": 1
}  # fmt: skip


def write_preview(
    path: Path,
    start_s: float,
    end_s: float,
    target: Path,
    *,
    jumps: bool,
    on_progress: Callable[[], None] = lambda: None,
) -> None:
    """Write a span as an MP4 file.

    Args:
        start_s, end_s: of the span, in seconds after the start of the video.
        jumps: see `impart.video.export.source.frames.has_jumps`.
        on_progress: called before each frame.

    Raises:
        DataError: the file cannot be read, or has no frame there.
        OSError: the target cannot be written.
    """
    try:
        with (
            contextlib.closing(frames_of_span(path, start_s, end_s, jumps=jumps)) as frames,
            ExitStack() as stack,
        ):
            first = next(frames)
            out = stack.enter_context(av.open(str(target), "w", options={"movflags": "+faststart"}))
            images = _Images(first)
            video = VideoSink(
                out, images.frame(first), codec=_codec(), rate=_rate(first), aspect=Fraction(1), steady=False
            )
            sound = _sound(path, out, stack, start_s=start_s, jumps=jumps)
            last = -1
            least = math.floor((1 / (MOST_FPS + 1) - _ROUNDING_S) / video.time_base)
            shown: ShownFrame | None = first
            while shown is not None:
                on_progress()
                at = 0 if last < 0 else round((shown.time_s - start_s) / video.time_base)
                following = next(frames, None)
                until_s = (end_s if following is None else min(shown.end_s, end_s)) - start_s
                if last < 0 or at - last >= least:
                    video.put(images.frame(shown), at=at, duration=round(until_s / video.time_base) - at)
                    last = at
                if sound is not None:
                    source, sink = sound
                    sink.put(source.take(start_s + until_s))
                shown = following
            video.finish()
            if sound is not None:
                sound[1].finish()
    except (av.error.FFmpegError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in UNWRITABLE:
            raise OSError(error.errno, f"cannot write a preview: {error.strerror}") from error
        raise DataError(f"cannot make a preview of {path}: {getattr(error, 'strerror', error)}") from error


class _Images:
    """Makes frames of H.264 from frames of a source."""

    def __init__(self, like: ShownFrame) -> None:
        self._aspect = float(like.aspect)
        self._turned = orientation(like.frame) != (False, False, False)
        wide, high = max(1.0, like.frame.width * self._aspect), float(like.frame.height)
        factor = min(1.0, LONGEST_SIDE_PX / max(wide, high))
        self._scaler = scaler_of(like, short_side_px=max(2, round(min(wide, high) * factor)))
        self._size: dict[str, Any] = {"width": _even(wide * factor), "height": _even(high * factor)}
        self._direct = VideoReformatter()
        self._to_yuv = VideoReformatter()

    def frame(self, shown: ShownFrame) -> av.VideoFrame:
        """Convert one frame to 4:2:0 in 8 bit with the matrix of BT.709."""
        frame = shown.frame
        if self._turned or frame.interlaced_frame or is_converted(frame) or has_alpha(frame):
            made = self._by_rgb(frame)
        else:
            try:
                made = self._direct.reformat(
                    frame, **self._size, **_WANTED, src_colorspace=matrix_of(frame), interpolation=Interpolation.AREA
                )
            except av.error.FFmpegError:  # a colour matrix that swscale does not support
                made = self._by_rgb(frame)
        made.colorspace, made.color_range = Colorspace.ITU709, ColorRange.MPEG
        made.color_primaries, made.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        return made

    def _by_rgb(self, frame: av.VideoFrame) -> av.VideoFrame:
        image = self._scaler.image(frame)  # (h, w, 3) RGB
        height, width = (max(2, side - side % 2) for side in image.shape[:2])
        rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(image[:height, :width]), format="rgb24")
        return self._to_yuv.reformat(rgb, **_WANTED)


def _even(side_px: float) -> int:
    return max(2, round(side_px / 2) * 2)


def _codec() -> VideoCodec:
    codec = choose_codec(hdr=False)
    if codec.encoder == "mpeg4":
        raise DataError("this FFmpeg has no encoder for H.264: reinstall PyAV with pip install --force-reinstall av")
    return dataclasses.replace(codec, options=_X264) if codec.encoder == "libx264" else codec


def _rate(first: ShownFrame) -> Fraction:
    return min(max((first.rate or Fraction(25)).limit_denominator(1001), Fraction(1)), Fraction(MOST_FPS))


def _sound(
    path: Path, out: av.container.OutputContainer, stack: ExitStack, *, start_s: float, jumps: bool
) -> tuple[SoundOfSpan, SoundSink] | None:
    """Open the first sound stream of a file, in stereo at most; None where it has none."""
    facts = read_facts(path)
    if not facts.sound_channels:
        return None
    hz, layout = sound_rate(facts.sound_hz), sound_layout(min(facts.sound_channels, _CHANNELS))
    source = SoundOfSpan(path, first_sound(path), start_s=start_s, hz=hz, layout=layout, jumps=jumps)
    return stack.enter_context(source), SoundSink(out, hz=hz, layout=layout)
