"""Frames of the whole index as one array, and blocks of them for a first, coarse search.

A block is the mean of up to sixteen neighbouring segments of one scene. A hundred hours are 1.4 million segments, but
less than a quarter of a million blocks: one product with a clip's frames takes a tenth of a second.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from impart.encoders.base import Float32, l2_normalise
from impart.video.copies.background import MOST, CopyBackground

__all__ = ["Blocks", "FrameRun", "IndexedFrames"]

_SEGMENTS = 16  # of a block
_ROWS = 65_536  # rows converted at once
_EACH = 2  # background frames per video, at least
_WANTED = 200  # background frames of an index with few videos


@dataclass(frozen=True)
class FrameRun:
    """Frames of one video, or of a part of it, in order of time.

    Attributes:
        rows: (n, R) retrieval embeddings, L2-normalised.
        levels: (n,), see `CopyBackground`.
        starts_s, ends_s: (n,) seconds.
    """

    rows: Float32
    levels: Float32
    starts_s: npt.NDArray[np.float64]
    ends_s: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Blocks:
    """Blocks of all videos.

    Attributes:
        first, stop: (b,) segments [first, stop) of each block.
        rows: (b, R) unit means.
        levels: (b,)
        video: (b,) number of the video.
        middle_s: (b,) seconds.
    """

    first: npt.NDArray[np.int64]
    stop: npt.NDArray[np.int64]
    rows: Float32
    levels: Float32
    video: npt.NDArray[np.int64]
    middle_s: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.first)


class IndexedFrames:
    """Frames of an index, with their blocks.

    Args:
        retrieval: (n, R) retrieval embeddings, L2-normalised, of any float type; may be memory-mapped.
        starts_s, ends_s: (n,) seconds.
        offsets: (V + 1,) the segments of video i are [offsets[i], offsets[i + 1]).
        scenes: (S,) first segment of each scene.
        images: (M, R) retrieval embeddings of unrelated images, L2-normalised; M may be 0.
        flat_rows: (F, R), see `CopyBackground`.
    """

    def __init__(
        self,
        retrieval: npt.NDArray[np.floating],
        *,
        starts_s: npt.NDArray[np.float64],
        ends_s: npt.NDArray[np.float64],
        offsets: npt.NDArray[np.int64],
        scenes: npt.NDArray[np.int64],
        images: Float32,
        flat_rows: Float32,
    ) -> None:
        self._retrieval = retrieval
        self._starts_s, self._ends_s = starts_s, ends_s
        self.offsets = offsets
        own = self._retrieval[_even_rows(offsets, scenes, most=max(0, MOST - len(images)))]
        self.background = CopyBackground(np.concatenate([images, l2_normalise(own.astype(np.float32))]), flat_rows)
        self.blocks = self._make_blocks(scenes)
        self._levels = np.repeat(self.blocks.levels, self.blocks.stop - self.blocks.first)  # (n,)

    def clip(self, first: int, stop: int) -> FrameRun:
        """Read the segments [first, stop)."""
        part = slice(first, stop)
        rows = l2_normalise(self._retrieval[part].astype(np.float32))
        return FrameRun(rows, self._levels[part], self._starts_s[part], self._ends_s[part])

    def window(self, video: int, start_s: float, end_s: float) -> FrameRun:
        """Read the segments of a video that lie in a span, in part or whole."""
        first, stop = int(self.offsets[video]), int(self.offsets[video + 1])
        low = first + int(np.searchsorted(self._ends_s[first:stop], start_s, side="right"))
        high = first + int(np.searchsorted(self._starts_s[first:stop], end_s, side="left"))
        return self.clip(min(low, stop - 1), max(high, min(low, stop - 1) + 1))

    def length_s(self, video: int) -> float:
        """Return the end of the last segment of a video."""
        return float(self._ends_s[int(self.offsets[video + 1]) - 1])

    def _make_blocks(self, scenes: npt.NDArray[np.int64]) -> Blocks:
        total = int(self.offsets[-1])
        bounds = np.unique(np.concatenate([scenes, self.offsets[:-1]]))
        lengths = np.diff(np.append(bounds, total))
        per_scene = -(-lengths // _SEGMENTS)  # blocks
        number = np.arange(int(per_scene.sum())) - np.repeat(np.cumsum(per_scene) - per_scene, per_scene)
        begin, length, count = (np.repeat(values, per_scene) for values in (bounds, lengths, per_scene))
        first, stop = begin + number * length // count, begin + (number + 1) * length // count
        rows = np.empty((len(first), self._retrieval.shape[1]), np.float32)
        for low, high in _runs(first, stop):
            part = self._retrieval[first[low] : stop[high - 1]].astype(np.float32)
            rows[low:high] = np.add.reduceat(part, first[low:high] - first[low], axis=0)
        rows = l2_normalise(rows)
        levels = np.concatenate(
            [np.zeros(0, np.float32), *(self.background.levels(rows[i : i + 8192]) for i in range(0, len(rows), 8192))]
        )
        video = np.searchsorted(self.offsets, first, side="right") - 1
        middle_s = (self._starts_s[first] + self._ends_s[stop - 1]) / 2
        return Blocks(first, stop, rows, levels, video, middle_s)


def _runs(first: npt.NDArray[np.int64], stop: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Group blocks so that each group has about `_ROWS` segments."""
    low = 0
    while low < len(first):
        high = max(low + 1, int(np.searchsorted(stop, first[low] + _ROWS, side="right")))
        yield low, high
        low = high


def _even_rows(offsets: npt.NDArray[np.int64], scenes: npt.NDArray[np.int64], *, most: int) -> npt.NDArray[np.int64]:
    """Choose background frames: middles of scenes, equally many per video as far as there are."""
    videos = len(offsets) - 1
    if not videos or most <= 0:
        return np.zeros(0, np.int64)
    each = max(_EACH, -(-_WANTED // videos))
    step = max(1, -(-videos * each // most))  # every `step`-th video
    stops = np.append(scenes[1:], offsets[-1])
    middles = (scenes + stops) // 2
    of_video = np.searchsorted(scenes, offsets)
    chosen = []
    for video in range(0, videos, step):
        own = middles[of_video[video] : of_video[video + 1]]
        take = np.unique(np.linspace(0, len(own) - 1, min(each, len(own))).round().astype(np.int64))
        chosen.append(own[take])
    return np.concatenate(chosen)[:most]
