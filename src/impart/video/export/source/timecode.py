"""Time code: rational frame rates, and frame numbers as HH:MM:SS:FF, with drop-frame counting.

Drop-frame (SMPTE ST 12-1) leaves out the numbers 00 and 01 (at 59.94 also 02 and 03) of every minute but each tenth,
so that the time code keeps step with the clock: 30000/1001 frames per second are counted as 30. No frame is dropped.
Drop-frame time codes have a `;` before the frames.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

__all__ = ["FRAME_RATES", "Timebase", "can_drop", "is_allowed", "timecode_rate"]

FRAME_RATES = tuple(
    Fraction(rate) for rate in ("24000/1001", "24", "25", "30000/1001", "30", "48", "50", "60000/1001", "60")
)
"""Frame rates that editors know. Whole numbers from 1 to 60 are kept as well."""

MOST = 60  # time codes have two digits for frames
_SAME = 1e-5  # containers round rates: 2997/100 is 30000/1001 to 1e-6, 23.98 is another rate than 24000/1001
_TEXT = re.compile(r"(\d+):(\d\d):(\d\d)([:;.,])(\d+)")


def can_drop(rate: Fraction) -> bool:
    """Whether drop-frame counting exists at this rate: 29.97 and 59.94."""
    return rate in (Fraction(30000, 1001), Fraction(60000, 1001))


def is_allowed(rate: Fraction) -> bool:
    """Whether a rate is one that time codes can count."""
    return rate in FRAME_RATES or (rate.denominator == 1 and 1 <= rate <= MOST)


def timecode_rate(average: Fraction | None, base: Fraction | None = None) -> Fraction:
    """Choose the rate at which a file's frames are counted.

    Rates that time codes can count are kept exactly. A higher one is halved until it fits, a lower one (12.5) doubled.
    Of a variable or odd rate the next known rate is taken: its frames are then found by their times.

    Args:
        average: of the stream; None = unknown.
        base: the rate that fits all its times, as FFmpeg guesses it; taken where it is known and near the average.

    Example:
        >>> timecode_rate(Fraction(2997, 100)), timecode_rate(Fraction(120)), timecode_rate(Fraction(25, 2))
        (Fraction(30000, 1001), Fraction(60, 1), Fraction(25, 1))
    """
    for rate in (average, base if base and average and average <= base < 2 * average else None):
        while rate is not None and rate > MOST:
            rate = rate / 2
        if not rate:
            continue
        near = [known for known in FRAME_RATES for one in (rate, 2 * rate) if abs(one / known - 1) < _SAME]
        if rate.denominator == 1 and is_allowed(rate):
            return rate
        if near:
            return near[0]
    wanted = min(average or Fraction(25), Fraction(MOST))
    return next(known for known in FRAME_RATES if known >= wanted)


@dataclass(frozen=True)
class Timebase:
    """A frame rate with its way of counting.

    Example:
        >>> ntsc = Timebase(Fraction(30000, 1001), drop=True)
        >>> ntsc.text(1799), ntsc.text(1800), ntsc.text(17982)
        ('00:00:59;29', '00:01:00;02', '00:10:00;00')
        >>> ntsc.frame("00:01:00;02")
        1800
    """

    rate: Fraction
    drop: bool = False

    @property
    def nominal(self) -> int:
        """Frames per second as they are counted: 30 for 29.97."""
        return round(self.rate)

    @property
    def ntsc(self) -> bool:
        """Whether 1001 seconds of the clock have 1000 times the nominal number of frames."""
        return self.rate.denominator == 1001

    @property
    def day(self) -> int:
        """Frames of 24 hours of time code."""
        return 24 * 6 * self._ten_minutes

    @property
    def _ten_minutes(self) -> int:
        return self.nominal * 600 - 9 * self._dropped

    @property
    def _dropped(self) -> int:
        return self.nominal // 15 if self.drop else 0

    def text(self, frame: int) -> str:
        """Format a frame number as HH:MM:SS:FF, or HH:MM:SS;FF with drop-frame; it wraps after 24 hours."""
        frame %= self.day
        tens, rest = divmod(frame, self._ten_minutes)
        minute = self.nominal * 60
        if self.drop:
            frame += 9 * self._dropped * tens
            if rest >= minute:
                frame += self._dropped * (1 + (rest - minute) // (minute - self._dropped))
        seconds, frames = divmod(frame, self.nominal)
        mark = ";" if self.drop else ":"
        return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{mark}{frames:02d}"

    def frame(self, text: str) -> int:
        """Parse HH:MM:SS:FF to a frame number, counted as this time base does.

        Raises:
            ValueError: it is no time code of this rate.
        """
        found = _TEXT.fullmatch(text.strip())
        if not found:
            raise ValueError(f"{text!r} is no time code")
        hours, minutes, seconds, frames = (int(found[i]) for i in (1, 2, 3, 5))
        if frames >= self.nominal or minutes > 59 or seconds > 59:
            raise ValueError(f"{text!r} is no time code of {self.nominal} frames per second")
        all_minutes = hours * 60 + minutes
        return (all_minutes * 60 + seconds) * self.nominal + frames - self._dropped * (all_minutes - all_minutes // 10)
