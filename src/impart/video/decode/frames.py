"""Frames of a video as plain numbers, for whoever embeds them without keeping an index (evaluation)."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from impart.config import DecodeSettings, Fit
from impart.video.decode.sampler import DecodedSegment, DecodeFinished, sample_video

__all__ = ["sampled_frames"]


def sampled_frames(
    path: Path,
    *,
    short_side_px: int,
    fps: float = DecodeSettings.fps,
    reuse_threshold: float = DecodeSettings.reuse_threshold,
    fit: Fit = DecodeSettings.fit,
) -> Generator[tuple[float, float, npt.NDArray[np.uint8]], None, str | None]:
    """Frames at a steady rate by presentation time, as the index takes them.

    Args:
        path: the video.
        short_side_px: short side of the images; the encoder's `image_size_px` loses nothing.
        fps: frames sampled per second.
        reuse_threshold: neighbouring frames that differ by less (mean grey levels) are handed out once, shown for
            longer; 0 = every sampled frame.
        fit: `squash` = all of a frame as a square, `crop` = in its own shape (see `DecodeSettings`).

    Yields:
        From when to when it is shown (s), image (h, w, 3) RGB, in order of time. A video that is cut short or
        damaged yields what it has.

    Returns:
        Why this is not the whole video, or None.

    Raises:
        DecodeError: the file cannot be read or gives no frame.
    """
    settings = DecodeSettings(fps=fps, reuse_threshold=reuse_threshold, fit=fit)
    problem = None
    for event in sample_video(path, settings=settings, short_side_px=short_side_px):
        if isinstance(event, DecodedSegment):
            yield event.start_s, event.end_s, event.image
        elif isinstance(event, DecodeFinished):
            problem = event.problem
    return problem
