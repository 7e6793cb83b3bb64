"""Changes between consecutive decoded frames: the steps at which all of the image changes at once.

A hard cut is such a step. So is much else: a flash, a quick object, movement on every second frame. Steps are
candidates; `impart.video.scenes.bounds` decides with the retrieval embeddings which of them are cuts.

The measure is the mean absolute difference of two thumbnails. A step counts where it is several times what the
movement around it explains, and where the images on its two sides stay different: after a flash they do not. Movement
counts per second, since frames may be skipped and the rate may vary. "Around" is also a matter of time: where a file
has no frames for still images, the next frames may be many seconds away, with cuts of their own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Step", "StepFinder"]

Thumbnail = npt.NDArray[np.float32]

SIDE_FRAMES = 6  # on either side of a step
MIN_CHANGE = 4.0  # grey levels
MIN_RATIO = 2.5  # of a step to the median difference around it, to which one grey level is added
SLIDE_S = 0.2  # frames so far apart are slides: all of their changes are steps
MIN_STAYS = 0.5  # least difference of any frame before to any frame after, as a share of the step
FLASH_FRAMES = 2  # a flash is this long at most
FRAME_S = 0.04  # usual time between two frames, where those of a step are nearer to each other
SPREAD = 1.5  # frames that are not evenly spaced take this many times as long at most
_EPS_S = 1e-6


@dataclass(frozen=True)
class Step:
    """A step between two decoded frames.

    Attributes:
        before_s, after_s: times of the two frames, seconds after the container's start.
        change: mean absolute difference of their thumbnails, in grey levels (0..255).
        calm: third largest difference among the `SIDE_FRAMES` on either side, in grey levels, each scaled to the time
            between the two frames; longer ones count as several.
    """

    before_s: float
    after_s: float
    change: float
    calm: float

    @property
    def slides(self) -> bool:
        """Whether the two frames are slides: other slides around them are no movement."""
        return _are_slides(self.after_s - self.before_s)


class StepFinder:
    """Finds steps in a sequence of frames, `SIDE_FRAMES` frames after they occur.

    >>> finder = StepFinder()
    >>> black, white = (np.full((32, 32, 3), level, np.float32) for level in (0, 255))
    >>> for number, thumb in enumerate([black] * 8 + [white] * 8):
    ...     finder.add(number / 25, thumb)
    >>> [step.after_s for step in finder.finish()]
    [0.32]
    """

    def __init__(self) -> None:
        self._thumbs: deque[Thumbnail] = deque(maxlen=2 * SIDE_FRAMES + 2)
        self._times: deque[float] = deque(maxlen=2 * SIDE_FRAMES + 2)
        self._changes: deque[float] = deque(maxlen=2 * SIDE_FRAMES + 1)
        self._steps: list[Step] = []

    def add(self, time_s: float, thumb: Thumbnail) -> None:
        """Add the next frame.

        Args:
            thumb: (h, w, 3), 0..255, of one size for all frames.
        """
        if self._thumbs:
            self._changes.append(float(np.abs(thumb - self._thumbs[-1]).mean()))
        self._thumbs.append(thumb)
        self._times.append(time_s)
        if len(self._changes) > SIDE_FRAMES:
            self._judge(len(self._changes) - 1 - SIDE_FRAMES)

    def finish(self) -> list[Step]:
        """Return all steps, in order of time; no frame follows."""
        for number in range(max(0, len(self._changes) - SIDE_FRAMES), len(self._changes)):
            self._judge(number)
        return self._steps

    def _judge(self, number: int) -> None:
        """Append the step between frames `number` and `number` + 1 of the window, if it is one."""
        change = self._changes[number]
        if change < MIN_CHANGE:
            return
        near = range(max(0, number - SIDE_FRAMES), min(len(self._changes), number + SIDE_FRAMES + 1))
        gap_s = self._gap_s(number)
        side_s = SIDE_FRAMES * _longest_s(gap_s)
        around = [other for other in near if other != number and self._between_s(number, other) <= side_s]
        usual, calm = self._movement(around, gap_s=gap_s)
        step = Step(self._times[number], self._times[number + 1], change, calm)
        if around and not step.slides and change < MIN_RATIO * (usual + 1):
            return
        flash_s = FLASH_FRAMES * _longest_s(0 if step.slides else gap_s)
        if self._stays(number, flash_s=flash_s) >= MIN_STAYS * change:
            self._steps.append(step)

    def _movement(self, around: Sequence[int], *, gap_s: float) -> tuple[float, float]:
        """Measure movement by the changes between neighbouring frames: the median over time, and the third largest.

        Beside frames that are no slides, a slide is a still image: all of its change is in the moment when it ends.

        Returns:
            In grey levels per `gap_s`. The second one is 0 where the neighbours take no more than two `gap_s`.
        """
        found = [(self._changes[other], self._gap_s(other)) for other in around]
        slides = _are_slides(gap_s)
        rates = sorted((0.0 if _are_slides(one_s) and not slides else change / one_s, one_s) for change, one_s in found)
        until_s = np.cumsum([one_s for _, one_s in rates])
        if not rates:
            return 0.0, 0.0
        median = int(np.searchsorted(until_s, until_s[-1] / 2 + _EPS_S))
        third_s = until_s[-1] - 2.5 * gap_s
        third = int(np.searchsorted(until_s, third_s))
        return rates[median][0] * gap_s, rates[third][0] * gap_s if third_s > 0 else 0.0

    def _stays(self, number: int, *, flash_s: float) -> float:
        """Measure how much the images before a step differ at least from those after it, in grey levels.

        Args:
            flash_s: a flash is shown for this long at most. Each frame is shown until the next one.
        """
        at_s, first, last = self._times[number + 1], number - FLASH_FRAMES, number + 1 + FLASH_FRAMES
        before = [number, *(i for i in range(max(0, first), number) if at_s - self._times[i + 1] <= flash_s)]
        rest = range(number + 2, min(len(self._thumbs), last + 1))
        after = [number + 1, *(i for i in rest if self._times[i] - at_s <= flash_s)]
        pairs = ((self._thumbs[one], self._thumbs[other]) for one in before for other in after)
        return min(float(np.abs(one - other).mean()) for one, other in pairs)

    def _between_s(self, number: int, other: int) -> float:
        """Measure the time between two steps, from the end of the first one to the begin of the second one."""
        first, last = sorted((number, other))
        return max(self._times[last] - self._times[first + 1], 0.0)

    def _gap_s(self, number: int) -> float:
        return max(self._times[number + 1] - self._times[number], 1e-3)


def _longest_s(gap_s: float) -> float:
    """Tell how long a frame near a step takes at most, from the time between the two frames of the step."""
    return SPREAD * max(gap_s, FRAME_S)


def _are_slides(gap_s: float) -> bool:
    """Whether frames so far apart are slides."""
    return gap_s >= SLIDE_S - _EPS_S
