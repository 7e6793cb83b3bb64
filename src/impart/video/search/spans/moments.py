"""Moments: the spans of a video that a query describes, from the scores of its parts and frames. No training.

This module has the parts and units; `scored` finds the spans for one query.

1. The parts of a video are its scenes; a long scene is cut into equal parts. Neighbouring scenes that look alike form a
   unit: one thing, filmed from two sides. A query has the score of a unit: the cosine with the unit mean of its frames,
   less its hubness. So a short clip has about the score of its mean, and one scene of a long film is not lost in the
   film's mean. The best unit ranks the video.
2. The best part of the unit is the seed of a span. Within its scene, the span reaches from the best frame as far as
   the frames' scores stay above the middle between the video's median and the best frame. What this cuts off the scene
   counts only from `LEAST_S` on: a true cut is more exact than the scores of frames.
3. Where the span reaches the end of its scene, neighbouring parts join it while they look alike and their own scores
   are above the middle as well.
4. Parts that the span contains are suppressed, and the next best part is the seed of the next span.

Proposals between shot boundaries and merged neighbours are those of training-free moment retrieval with CLIP (Diwan et
al., "Zero-shot Video Moment Retrieval With Off-the-Shelf Models", 2022). All constants were chosen on films of moving
photographs of Flickr8k (`benchmarks/moments.py --tune`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from impart.encoders.base import Float32, l2_normalise

__all__ = [
    "ALIKE",
    "GAP_S",
    "LEAST_S",
    "MOST",
    "REACH_S",
    "SHARE",
    "FoundSpan",
    "Parts",
    "Units",
    "join_alike",
    "split_scenes",
]

LONG_S, PART_S = 12.0, 8.0
"""A scene of at least `LONG_S` is cut into parts of about `PART_S`."""
LEAST_S = 1.0
"""Shortest span, and shortest piece that is cut off a scene."""
SHARE = 0.5
"""Height of the middle, between the median (0) and the best score (1) of a video."""
ALIKE = 0.5
"""Neighbouring scenes with at least this cosine of their unit means look alike."""
UNIT_S = 30.0
"""Longest unit of several scenes."""
GAP_S = 1.0
"""Frames with lower scores for up to this long do not end a span."""
REACH_S = 120.0
"""A span reaches at most this far from its part within one scene."""
MOST = 5
"""Spans per video."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """P parts of S scenes of V videos; they cover all n segments in order.

    Attributes:
        bounds: (P + 1,) part p has the segments from bounds[p] up to bounds[p + 1].
        offsets: (V + 1,) video v has the parts from offsets[v] up to offsets[v + 1].
        scene_of: (P,) number of the scene of each part.
        scenes: (S + 1,) scene s has the segments from scenes[s] up to scenes[s + 1].
        start_s, end_s: (n,) bounds of the segments.
    """

    bounds: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    scene_of: npt.NDArray[np.int64]
    scenes: npt.NDArray[np.int64]
    start_s: npt.NDArray[np.float64]
    end_s: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.scene_of)

    def of_video(self, video: int) -> range:
        """Numbers of the parts of a video."""
        return range(int(self.offsets[video]), int(self.offsets[video + 1]))

    def length_s(self, first: int, stop: int) -> float:
        """Length of the segments from `first` up to `stop`."""
        return float(self.end_s[stop - 1] - self.start_s[first]) if stop > first else 0.0


@dataclass(frozen=True, kw_only=True)
class FoundSpan:
    """Segments from `first` up to `stop` of one video; `best` is the segment with the highest score."""

    first: int
    stop: int
    best: int
    score: float


def split_scenes(
    scenes: npt.NDArray[np.int64],
    offsets: npt.NDArray[np.int64],
    start_s: npt.NDArray[np.float64],
    end_s: npt.NDArray[np.float64],
) -> Parts:
    """Cut long scenes into parts of equal lengths.

    Args:
        scenes: (S,) first segment of each scene, over all videos.
        offsets: (V + 1,) first segment of each video, and n.
        start_s, end_s: (n,) bounds of the segments.

    >>> quarter = np.arange(80) / 4
    >>> split_scenes(np.array([0, 8]), np.array([0, 80]), quarter, quarter + 0.25).bounds.tolist()
    [0, 8, 44, 80]
    """
    ends = np.append(scenes, len(start_s)).astype(np.int64)
    first, stop = ends[:-1], ends[1:]
    length_s = end_s[stop - 1] - start_s[first]
    cut = np.flatnonzero((length_s >= LONG_S) & (stop - first > 1))
    added: list[npt.NDArray[np.int64]] = []
    for scene in cut.tolist():
        a, b = int(first[scene]), int(stop[scene])
        count = max(1, round(float(length_s[scene]) / PART_S))
        inner = start_s[a] + length_s[scene] * np.arange(1, count) / count
        added.append(a + np.searchsorted(start_s[a:b], inner - 1e-6))
    bounds = np.unique(np.concatenate([ends, *added])).astype(np.int64)
    starts = bounds[:-1]
    return Parts(
        bounds=bounds,
        offsets=np.searchsorted(starts, offsets).astype(np.int64),
        scene_of=np.searchsorted(scenes, starts, side="right") - 1,
        scenes=ends,
        start_s=start_s,
        end_s=end_s,
    )


@dataclass(frozen=True, kw_only=True)
class Units:
    """U units of neighbouring parts.

    Attributes:
        offsets: (V + 1,) video v has the units from offsets[v] up to offsets[v + 1].
        of_part: (P,) number of the unit of each part.
        means: (U, D) unit means.
    """

    offsets: npt.NDArray[np.int64]
    of_part: npt.NDArray[np.int64]
    means: Float32

    @cached_property
    def first_parts(self) -> npt.NDArray[np.int64]:
        """(U + 1,) unit u has the parts from first_parts[u] up to first_parts[u + 1]."""
        return np.flatnonzero(np.diff(self.of_part, prepend=-1, append=self.of_part[-1:] + 1))


def join_alike(parts: Parts, means: Float32, weight: npt.NDArray[np.int32]) -> Units:
    """Join neighbouring scenes of a video that look alike to units, and leave parts of long scenes alone.

    Args:
        means: (P, D) unit means of the parts.
        weight: (n,) sampled frames per segment.
    """
    starts = parts.bounds[:-1]
    whole = np.diff(np.searchsorted(starts, parts.scenes))[parts.scene_of] == 1  # (P,) scenes of one part
    alike = np.einsum("pd,pd->p", means[:-1], means[1:]) >= ALIKE
    alike &= whole[:-1] & whole[1:]
    alike[parts.offsets[1:-1] - 1] = False
    first = np.append(True, ~alike)[: len(starts)]  # (P,) parts that begin a unit
    begin = 0
    for part in np.flatnonzero(~first).tolist():
        begin = part - 1 if first[part - 1] else begin
        if parts.length_s(int(parts.bounds[begin]), int(parts.bounds[part + 1])) > UNIT_S:
            first[part], begin = True, part
    units = np.flatnonzero(first)
    frames = np.add.reduceat(weight, starts).astype(np.float32)  # (P,)
    return Units(
        offsets=np.searchsorted(units, parts.offsets).astype(np.int64),
        of_part=np.cumsum(first) - 1,
        means=l2_normalise(np.add.reduceat(means * frames[:, None], units)),
    )
