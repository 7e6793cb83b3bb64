"""Changes between consecutive decoded frames: the steps at which all of the image changes at once.

A hard cut is such a step. So is much else: a flash, a quick object, movement on every second frame. Steps are
candidates; `impart.video.scenes.bounds` decides with the retrieval embeddings which of them are cuts.

The measure is the mean absolute difference of two thumbnails. A step counts where it is several times what the
movement around it explains, and where the images on its two sides stay different: after a flash they do not. Movement
counts per second, since frames may be skipped and the rate may vary.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Step", "StepFinder"]

Thumbnail = npt.NDArray[np.float32]

SIDE_FRAMES = 6  # on either side of a step
MIN_CHANGE = 4.0  # grey levels
MIN_RATIO = 2.5  # of a step to the median difference around it, to which one grey level is added
SLIDE_S = 0.2  # frames so far apart are slides: all of their changes are steps, and none is a flash
MIN_STAYS = 0.5  # least difference of any frame before to any frame after, as a share of the step
FLASH_FRAMES = 2  # a flash is this long at most
_EPS_S = 1e-6


@dataclass(frozen=True)
class Step:
    """A step between two decoded frames.

    Attributes:
        before_s, after_s: times of the two frames, seconds after the container's start.
        change: mean absolute difference of their thumbnails, in grey levels (0..255).
        calm: third largest difference among the `SIDE_FRAMES` on either side, in grey levels, each scaled to the time
            between the two frames.
    """

    before_s: float
    after_s: float
    change: float
    calm: float

    @property
    def slides(self) -> bool:
        """Whether the two frames are slides: other slides around them are no movement."""
        return self.after_s - self.before_s >= SLIDE_S - _EPS_S


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
        around = sorted(self._changes[other] * gap_s / self._gap_s(other) for other in near if other != number)
        calm = around[-3] if len(around) > 2 else 0.0
        step = Step(self._times[number], self._times[number + 1], change, calm)
        if around and not step.slides and change < MIN_RATIO * (around[len(around) // 2] + 1):
            return
        flash = 0 if step.slides else FLASH_FRAMES
        first, last = max(0, number - flash), min(len(self._thumbs), number + 2 + flash)
        before = [self._thumbs[i] for i in range(first, number + 1)]
        after = [self._thumbs[i] for i in range(number + 1, last)]
        stays = min(float(np.abs(one - other).mean()) for one in before for other in after)
        if stays < MIN_STAYS * change:
            return
        self._steps.append(step)

    def _gap_s(self, number: int) -> float:
        return max(self._times[number + 1] - self._times[number], 1e-3)
