"""Stills: one decoded frame of a video file, at a time, for the images of a name."""

from __future__ import annotations

from pathlib import Path

import av
import av.error
import numpy as np
import numpy.typing as npt

from impart.config import DecodeSettings
from impart.errors import QueryError
from impart.video.decode.container import failure, open_video
from impart.video.decode.frames.side_data import orientation
from impart.video.decode.sampler import DecodedSegment, DecodeFinished, sample_video
from impart.video.decode.scaling import Scaler
from impart.video.decode.streams import choose_stream, origin_s
from impart.video.search.hits import timecode

__all__ = ["still_at"]

_EPS_S = 1e-4  # rounding of clocks
_AFTER_END_S = 0.5  # a time that far behind the last frame still gives it


def still_at(path: Path, at_s: float, *, short_side_px: int, stream: int = 0) -> npt.NDArray[np.uint8]:
    """Decode the frame that is shown at a time.

    Args:
        at_s: seconds after the start of the container.
        short_side_px: short side of the image.
        stream: number of the video stream, see `choose_stream`.

    Returns:
        uint8 (h, w, 3) RGB, upright.

    Raises:
        DecodeError: the file cannot be read or has no frame.
        QueryError: the video is shorter.
    """
    if not 0 <= at_s < float("inf"):
        raise QueryError(f"{path}@{at_s:g}: the time must be 0 s or later")
    found = _by_seeking(path, at_s, short_side_px=short_side_px, number=stream)
    return _from_the_start(path, at_s, short_side_px=short_side_px, number=stream) if found is None else found


def _by_seeking(path: Path, at_s: float, *, short_side_px: int, number: int) -> npt.NDArray[np.uint8] | None:
    """Seek to the key frame before the time and decode from there; None where that cannot be trusted."""
    with open_video(path) as container:
        stream = choose_stream(path, container, number=number).stream
        zero_s = origin_s(container, stream)
        held: av.VideoFrame | None = None
        try:
            if at_s > 0:
                container.seek(round((zero_s + at_s) * 1e6))
            for frame in container.decode(stream):
                if frame.time is None:  # such as AVI: times follow from the count of frames
                    return None
                if frame.time - zero_s > at_s + _EPS_S:
                    break
                held = frame
            else:
                return None  # behind the last frame: the end of the file decides
        except av.error.FFmpegError:
            return None
        if held is None:  # the key frame is later than the time
            return None
        codec = stream.codec_context.codec.canonical_name
        aspect = float(stream.sample_aspect_ratio or 1)
        return Scaler(short_side_px, aspect=aspect, orientation=orientation(held), codec=codec).image(held)


def _from_the_start(path: Path, at_s: float, *, short_side_px: int, number: int) -> npt.NDArray[np.uint8]:
    """Decode from the start, as an index does."""
    settings = DecodeSettings(stream=number, fit="crop", reuse_threshold=0.0)
    last: DecodedSegment | None = None
    for item in sample_video(path, settings=settings, short_side_px=short_side_px):
        if isinstance(item, DecodeFinished):
            break
        last = item
        if item.end_s > at_s + _EPS_S:
            return item.image
    if last is None:
        raise failure(path, "has no frame")
    if at_s > last.end_s + _AFTER_END_S:
        raise QueryError(f"{at_s:g} s is outside {path}: it ends at {timecode(last.end_s)}")
    return last.image
