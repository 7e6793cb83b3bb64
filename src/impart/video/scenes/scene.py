"""Scenes with their vectors and representative frames, of an indexed video or of a file."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from impart.encoders.base import l2_normalise
from impart.video.scenes.bounds import SceneBounds

__all__ = ["Scene", "scene_vectors", "scenes_of"]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A scene of a video.

    Attributes:
        number: from 1, in order of time.
        start_s, end_s: seconds after the start of the file. A hard cut is exact: the first frame of the scene is shown
            at `start_s`. Of a dissolve or fade it is the middle.
        kind: how it begins: `cut`, `dissolve` or `fade`; `cut` for the first scene.
        best_s: time of its representative frame: that of the segment whose vector is nearest to `vector`.
        vector: (D,) mean of the embeddings of its frames, L2-normalised.
    """

    number: int
    start_s: float
    end_s: float
    kind: str
    best_s: float
    vector: npt.NDArray[np.float32] = field(repr=False, compare=False)


def scene_vectors(
    vectors: npt.NDArray[np.floating], weights: npt.NDArray[np.integer], first: npt.NDArray[np.integer]
) -> npt.NDArray[np.float32]:
    """Compute the mean embedding of each scene.

    Args:
        vectors: (n, D) of segments; weights: (n,) sampled frames of each.
        first: (S,) number of the first segment of each scene.

    Returns:
        (S, D), L2-normalised.

    >>> scene_vectors(np.eye(2), np.array([3, 1]), np.array([0, 1])).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    weighted = np.asarray(vectors, np.float32) * np.asarray(weights, np.float32)[:, None]
    return l2_normalise(np.add.reduceat(weighted, np.asarray(first, np.int64), axis=0))


def scenes_of(
    bounds: SceneBounds,
    vectors: npt.NDArray[np.floating],
    *,
    starts_s: npt.NDArray[np.floating],
    weights: npt.NDArray[np.integer],
) -> list[Scene]:
    """Add vectors and representative frames to the bounds of the scenes of one video.

    Args:
        vectors: (n, D) embeddings of its segments, L2-normalised.
        starts_s: (n,) seconds; weights: (n,) sampled frames of each.
    """
    if not bounds.first:
        return []
    rows = np.asarray(vectors, np.float32)
    means = scene_vectors(rows, weights, np.array(bounds.first))  # (S, D)
    stops = [*bounds.first[1:], len(rows)]
    scenes = []
    for number, (first, stop, start_s, end_s, kind, mean) in enumerate(
        zip(bounds.first, stops, bounds.start_s, bounds.end_s, bounds.kinds, means, strict=True), 1
    ):
        best = first + int(np.argmax(rows[first:stop] @ mean))
        best_s = min(max(float(starts_s[best]), start_s), end_s)
        scenes.append(Scene(number=number, start_s=start_s, end_s=end_s, kind=kind, best_s=best_s, vector=mean))
    return scenes
