"""Samples: what is known of each sampled frame of one video, to find its scenes.

A segment is a run of sampled frames that are nearly the same. Here each sampled frame has its own row again, with its
own time; of the frames within a long still only those near its ends have one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["THUMB_PX", "Samples", "grey_thumbnail"]

THUMB_PX = 16
STILL_SAMPLES = 12  # rows of a still: six near each end, more than any transition reaches


@dataclass(frozen=True)
class Samples:
    """Sampled frames of one video, in order of time.

    Attributes:
        times_s: (m,) seconds after the container's start.
        segment: (m,) number of the segment of each.
        retrieval: (m, R) retrieval embeddings, L2-normalised.
        thumbs: (m, THUMB_PX, THUMB_PX) grey levels, uint8.
    """

    times_s: npt.NDArray[np.float64]
    segment: npt.NDArray[np.int64]
    retrieval: npt.NDArray[np.floating]
    thumbs: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.times_s)

    @classmethod
    def of_segments(
        cls,
        retrieval: npt.NDArray[np.floating],
        thumbs: npt.NDArray[np.uint8],
        *,
        starts_s: Sequence[float] | npt.NDArray[np.floating],
        weights: Sequence[int] | npt.NDArray[np.integer],
        fps: float,
    ) -> Samples:
        """Expand n segments to their sampled frames.

        Args:
            retrieval: (n, R); thumbs: (n, THUMB_PX, THUMB_PX).
            starts_s: (n,) seconds; weights: (n,) sampled frames per segment.
            fps: sampled frames per second.

        Raises:
            ValueError: the lengths differ.
        """
        if not len(retrieval) == len(thumbs) == len(starts_s) == len(weights):
            lengths = f"{len(retrieval)} embeddings, {len(thumbs)} thumbnails, {len(starts_s)} starts, {len(weights)}"
            raise ValueError(f"{lengths} weights: one of each per segment")
        steps: list[npt.NDArray[np.int64]] = []
        for weight in np.asarray(weights, np.int64):
            numbers = np.arange(weight)
            if weight > STILL_SAMPLES:
                numbers = np.concatenate([numbers[: STILL_SAMPLES // 2], numbers[-(STILL_SAMPLES // 2) :]])
            steps.append(numbers)
        segment = np.repeat(np.arange(len(steps)), [len(numbers) for numbers in steps])
        offsets = np.concatenate([np.zeros(0, np.int64), *steps])
        times = np.asarray(starts_s, np.float64)[segment] + offsets / fps
        return cls(times, segment, np.asarray(retrieval)[segment], np.asarray(thumbs)[segment])


def grey_thumbnail(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Shrink an image (h, w, 3) to (THUMB_PX, THUMB_PX) grey levels."""
    small = Image.fromarray(image).resize((THUMB_PX, THUMB_PX), Image.Resampling.BOX).convert("L")
    return np.asarray(small)
