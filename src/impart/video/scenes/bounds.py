"""Scene bounds: hard cuts to the frame, dissolves and fades, from what was seen while a video was decoded.

A hard cut is a step between two decoded frames (`impart.video.decode.frames.changes`) whose sampled frames on both
sides have retrieval embeddings with a low cosine. How low depends on how far the step stands out: quick movement makes
steps of its own, so that beside other steps the embeddings must differ more. Gradual transitions are searched for
between the hard cuts (`impart.video.scenes.gradual`).

The constants were chosen on rendered films, see `benchmarks/scenes.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from impart.video.decode.frames.changes import Step
from impart.video.scenes.gradual import find_gradual
from impart.video.scenes.samples import Samples

__all__ = ["SceneBounds", "find_scenes"]

MARGINS = ((5.0, 0.3), (2.5, 0.1), (1.5, -0.3))
"""Least ratio of a step to the movement around it (`Step.calm`), and what is added to the threshold there."""
SLIDE_MARGIN = 0.1  # least that is added for slides: other slides around them are no movement
NEAR_CUT_S = 0.5  # a gradual transition so near to a hard cut is part of it
_EPS_S = 1e-4


@dataclass(frozen=True)
class SceneBounds:
    """Scenes of one video, in order of time.

    Attributes:
        first: number of the first segment of each.
        start_s, end_s: bounds in seconds; the first frame of a scene is shown at `start_s`.
        kinds: how each begins: `cut`, `dissolve` or `fade`; the first one with a `cut`.
    """

    first: tuple[int, ...]
    start_s: tuple[float, ...]
    end_s: tuple[float, ...]
    kinds: tuple[str, ...]


def find_scenes(samples: Samples, steps: Iterable[Step], *, end_s: float, threshold: float) -> SceneBounds:
    """Split a video into scenes. Each has at least one segment.

    Args:
        samples: of the video.
        steps: between its decoded frames.
        end_s: end of the last segment.
        threshold: cosine of retrieval embeddings below which frames belong to two scenes
            (`IndexSettings.cut_threshold`).

    >>> rows = np.repeat([[1.0, 0.0], [0.0, 1.0]], 4, axis=0)  # two shots of a second
    >>> flat = np.zeros((8, 16, 16), np.uint8)
    >>> samples = Samples.of_segments(rows, flat, starts_s=np.arange(8) / 4, weights=[1] * 8, fps=4)
    >>> step = Step(before_s=0.88, after_s=0.92, change=60.0, calm=1.0)
    >>> find_scenes(samples, [step], end_s=2.0, threshold=0.55)
    SceneBounds(first=(0, 4), start_s=(0.0, 0.92), end_s=(0.92, 2.0), kinds=('cut', 'cut'))
    """
    if not len(samples):
        return SceneBounds((), (), (), ())
    cuts = _hard_cuts(samples, steps, threshold=threshold)
    bounds = [(time_s, "cut") for _, time_s in cuts]
    edges = [0, *(at for at, _ in cuts), len(samples)]
    for first, stop in itertools.pairwise(edges):
        for one in find_gradual(samples, first, stop, threshold=threshold):
            if all(abs(one.time_s - time_s) >= NEAR_CUT_S for _, time_s in cuts):
                bounds.append((one.time_s, one.kind))
    return _scenes(samples, sorted(bounds), end_s=end_s)


def _hard_cuts(samples: Samples, steps: Iterable[Step], *, threshold: float) -> list[tuple[int, float]]:
    """Find the first sample behind each hard cut, and the time of the cut."""
    best: dict[int, Step] = {}
    for step in steps:
        at = int(np.searchsorted(samples.times_s, step.after_s - _EPS_S))
        if 0 < at < len(samples) and (at not in best or step.change > best[at].change):
            best[at] = step
    if not best:
        return []
    places = np.array(sorted(best))
    before, after = (samples.retrieval[at].astype(np.float32) for at in (places - 1, places))  # (c, R) each
    cosines: npt.NDArray[np.float32] = np.einsum("cr,cr->c", before, after)
    margins = np.array([_margin(best[at]) for at in places.tolist()])
    kept = cosines < threshold + margins
    return [(int(at), best[int(at)].after_s) for at in places[kept]]


def _margin(step: Step) -> float:
    """Tell what is added to the threshold at a step; -inf = it is no cut, whatever the embeddings."""
    ratio = step.change / (step.calm + 1)
    margin = next((margin for least, margin in MARGINS if ratio >= least), -np.inf)
    return max(margin, SLIDE_MARGIN) if step.slides else margin


def _scenes(samples: Samples, bounds: Sequence[tuple[float, str]], *, end_s: float) -> SceneBounds:
    starts_s, firsts, kinds = [float(samples.times_s[0])], [0], ["cut"]
    for time_s, kind in bounds:
        at = int(np.searchsorted(samples.times_s, time_s - _EPS_S))
        first = int(samples.segment[at - 1]) + 1  # of a dissolve, one segment may contain the middle
        if first > firsts[-1] and first <= samples.segment[-1]:
            starts_s.append(time_s)
            firsts.append(first)
            kinds.append(kind)
    ends_s = (*starts_s[1:], max(end_s, starts_s[-1]))
    return SceneBounds(tuple(firsts), tuple(starts_s), ends_s, tuple(kinds))
