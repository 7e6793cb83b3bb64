"""Gradual transitions: dissolves and fades, from the sampled frames within one shot.

A dissolve mixes two images. In its middle, three things hold that do not hold in a pan or a zoom at the same time:

- the retrieval embeddings of the frames around it differ;
- the contrast is lower than on both sides: the variance of the mean of two unrelated images is half their own;
- the image is near to the mean of the images on both sides.

A fade passes through a flat image, mostly black. All three are measured on thumbnails, at three distances, for
transitions of 0.5 to 2 s.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from impart.video.scenes.samples import Samples

__all__ = ["Gradual", "find_gradual"]

Floats = npt.NDArray[np.float32]

REACHES = (1, 2, 4)  # samples from the middle of a transition to either side
MOST_DIP = 0.76  # of the contrast in the middle, as a share of the mean contrast on both sides
MOST_REST = {1: 0.3, 2: 0.35, 4: 0.5}  # of the image in the middle that no mix explains, by reach
MOST_LIKE = 0.95  # cosine of the middle and either side: above it, the change is not in the middle
FLAT_CONTRAST = 8.0  # grey levels; standard deviation of a flat image
FULL_CONTRAST = 16.0  # and of an image that is not
DARK = 24.0  # grey levels; mean of a black image
EDGE_SAMPLES = 10  # within which the images on both sides of a flat one have contrast
PAUSE_S = 1.0  # a longer flat pause belongs to the scene before it
APART_S = 1.0  # least time between two gradual transitions
_NOISE = 4.0  # grey levels squared, added to contrasts


@dataclass(frozen=True)
class Gradual:
    """A gradual transition: `dissolve` or `fade`, with the time of its middle (s), and its strength (lower = more)."""

    time_s: float
    kind: str
    rest: float


def find_gradual(samples: Samples, first: int, stop: int, *, threshold: float) -> list[Gradual]:
    """Find dissolves and fades among the samples [first, stop) between two hard cuts.

    Args:
        threshold: of the cosine of retrieval embeddings, as for hard cuts.

    Returns:
        In order of time.
    """
    if stop - first < 2 * REACHES[0] + 1:
        return []
    thumbs = samples.thumbs[first:stop].reshape(stop - first, -1).astype(np.float32)  # (m, P)
    level = thumbs.mean(axis=1)  # (m,)
    centred = thumbs - level[:, None]
    power = np.square(centred).mean(axis=1)  # (m,) variances
    rows, times = samples.retrieval[first:stop], samples.times_s[first:stop]
    found = [
        *_fades(rows, times, level, np.sqrt(power), threshold=threshold),
        *_dissolves(rows, times, level, centred, power, threshold=threshold),
    ]
    kept: list[Gradual] = []
    for one in sorted(found, key=lambda one: (one.kind != "fade", one.rest)):
        if all(abs(one.time_s - other.time_s) >= APART_S * (2 if other.kind == "fade" else 1) for other in kept):
            kept.append(one)
    return sorted(kept, key=lambda one: one.time_s)


def _fades(
    rows: npt.NDArray[np.floating],
    times: npt.NDArray[np.float64],
    level: Floats,
    contrast: Floats,
    *,
    threshold: float,
) -> list[Gradual]:
    flat = contrast < FLAT_CONTRAST
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flat, [False]]).astype(np.int8)))
    found = []
    for begin, end in zip(edges[::2], edges[1::2], strict=True):  # samples [begin, end) are flat
        before, after = contrast[max(0, begin - EDGE_SAMPLES) : begin], contrast[end : end + EDGE_SAMPLES]
        if min(before.max(initial=0), after.max(initial=0)) < FULL_CONTRAST:
            continue
        if level[begin:end].min() > DARK:
            one = rows[max(0, begin - 4) : max(1, begin - 1)].astype(np.float32).mean(axis=0)
            other = rows[end + 1 : end + 4].astype(np.float32)
            if not len(other) or _cosine(one, other.mean(axis=0)) >= threshold:
                continue
        pause_s = times[end - 1] - times[begin]
        time_s = times[end - 1] if pause_s > PAUSE_S else times[begin] + pause_s / 2
        found.append(Gradual(float(time_s), "fade", 0.0))
    return found


def _dissolves(
    rows: npt.NDArray[np.floating],
    times: npt.NDArray[np.float64],
    level: Floats,
    centred: Floats,
    power: Floats,
    *,
    threshold: float,
) -> list[Gradual]:
    found = []
    for reach in REACHES:
        if len(rows) < 2 * reach + 1:
            break
        middle = np.arange(reach, len(rows) - reach)
        before, after = middle - reach, middle + reach
        around = (power[before] + power[after]) / 2
        dip = (power[middle] + _NOISE) / (around + _NOISE)
        mix = np.square(centred[middle] - (centred[before] + centred[after]) / 2).mean(axis=1)
        rest = mix / (power[middle] + around / 2 + 2 * _NOISE)
        dark = (level[middle] < 0.5 * np.minimum(level[before], level[after])) & (dip < 0.5)
        for at in np.flatnonzero((dip < MOST_DIP) & ((rest < MOST_REST[reach]) | dark)):
            one = rows[max(0, before[at] - 1) : before[at] + 1].astype(np.float32).mean(axis=0)
            other = rows[after[at] : after[at] + 2].astype(np.float32).mean(axis=0)
            here = rows[middle[at]].astype(np.float32)
            like = max(_cosine(one, here), _cosine(here, other))
            if _cosine(one, other) < threshold and like < MOST_LIKE:
                kind = "fade" if dark[at] else "dissolve"
                found.append(Gradual(float(times[middle[at]]), kind, float(dip[at])))
    return found


def _cosine(one: npt.NDArray[np.floating], other: npt.NDArray[np.floating]) -> float:
    return float(one @ other / max(float(np.linalg.norm(one) * np.linalg.norm(other)), 1e-9))
