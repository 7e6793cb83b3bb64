"""Heat: where a query lights up in a video, as the best frame score of each of a few equal bins of its time.

All videos of one call have one scale. It counts from the usual score of the index (0) to the best frame of these videos
(1), so that the strips of several hits can be compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from impart.encoders.base import Float32

__all__ = ["Heat", "binned", "scaled"]

_LEAST_RANGE = 1e-3  # of scores: below it, nothing stands out


@dataclass(frozen=True, kw_only=True)
class Heat:
    """The heat of one video.

    Attributes:
        video_id: of the video.
        start_s, step_s: bin i covers the time from `start_s + i * step_s` on.
        bins: from 0 to 1.
        best_s: time of its best frame.
    """

    video_id: str
    start_s: float
    step_s: float
    bins: tuple[float, ...]
    best_s: float


def binned(
    scores: Float32, start_s: npt.NDArray[np.float64], end_s: npt.NDArray[np.float64], *, bins: int
) -> tuple[Float32, float, float]:
    """Take the best score of each bin; a bin in which no frame starts has that of the frame that covers it.

    Args:
        scores, start_s, end_s: (n,) of the frames of one video, in order of time.
        bins: their number; a photo has one.

    Returns:
        (b,) best scores; start (s) of the first bin; length (s) of a bin.

    >>> times = np.arange(4.0)
    >>> values, first, step = binned(np.float32([0, 2, 1, 0]), times, times + 1, bins=2)
    >>> values.tolist(), first, step
    ([2.0, 1.0], 0.0, 2.0)
    """
    first = float(start_s[0])
    step = (float(end_s[-1]) - first) / bins
    if step <= 0:  # a photo
        return scores[:1].copy(), first, 0.0
    edges = first + step * np.arange(bins + 1)
    low = np.searchsorted(end_s, edges[:-1] + 1e-9, side="right")  # the first frame that ends in or behind the bin
    high = np.maximum(np.searchsorted(start_s, edges[1:] - 1e-9, side="left"), low + 1)
    low = np.minimum(low, len(scores) - 1)
    values = [scores[begin:stop].max() for begin, stop in zip(low.tolist(), high.tolist(), strict=True)]
    return np.array(values, np.float32), first, step


def scaled(values: Sequence[Float32], *, low: float, high: float) -> list[tuple[float, ...]]:
    """Bring the bins of several videos to 0 (the usual score, `low`) to 1 (`high`).

    >>> scaled([np.float32([0.1, 0.3, 0.5])], low=0.1, high=0.5)
    [(0.0, 0.5, 1.0)]
    """
    if high - low < _LEAST_RANGE:
        return [(0.0,) * len(one) for one in values]
    return [tuple(np.round(np.clip((one - low) / (high - low), 0, 1).astype(float), 3).tolist()) for one in values]
