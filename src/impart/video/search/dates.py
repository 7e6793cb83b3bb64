"""Dates and lengths as people write them: `2024-05`, `2024-05-01T18:30`, `90`, `10s`, `1h30m`, `1:30`.

A date without a time is a period (a year, a month, a day) on the clock of this machine.
"""

from __future__ import annotations

import calendar
import re
from datetime import datetime, timedelta
from typing import TypeAlias

from impart.errors import QueryError

__all__ = ["Date", "Length", "end_of", "length_s", "start_of"]

Date: TypeAlias = "str | float | datetime"
"""A text as in the module, a Unix time (s), or a datetime; without an offset, it is local time."""

Length: TypeAlias = "str | float"
"""A text as in the module, or seconds."""

_DATE = re.compile(r"(\d{4})(?:-(\d{1,2})(?:-(\d{1,2}))?)?")
_UNITS = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?:in)?)?(?:(\d+(?:\.\d+)?)s?)?")


def start_of(date: Date) -> float:
    """Return the first second of a date, as Unix time.

    Raises:
        QueryError: it cannot be read.

    >>> start_of("2024-05-01T00:00:00+00:00")
    1714521600.0
    """
    return _timestamp(_bounds(date)[0], date)


def end_of(date: Date) -> float:
    """Return the first second behind a date, as Unix time: that of June for `2024-05`.

    Raises:
        QueryError: it cannot be read.

    >>> end_of("2024-05") == start_of("2024-06-01")
    True
    """
    return _timestamp(_bounds(date)[1], date)


def length_s(length: Length) -> float:
    """Return seconds.

    Raises:
        QueryError: it cannot be read, or is negative.

    >>> [length_s(text) for text in ("90", "10s", "5m", "1h30m", "1:30", 2.5)]
    [90.0, 10.0, 300.0, 5400.0, 90.0, 2.5]
    """
    text = f"{length}".strip().lower()
    seconds = -1.0
    if re.fullmatch(r"\d+(:\d{1,2}){1,2}(\.\d+)?", text):
        seconds = 0.0
        for part in text.split(":"):
            seconds = seconds * 60 + float(part)
    elif text and (found := _UNITS.fullmatch(text.replace(" ", ""))):
        hours, minutes, rest = (float(part or 0) for part in found.groups())
        seconds = hours * 3600 + minutes * 60 + rest
    if seconds < 0:
        raise QueryError(f"cannot read the length {text!r}: write seconds (90), 10s, 5m, 1h30m or 1:30")
    return seconds


def _bounds(date: Date) -> tuple[datetime, datetime]:
    """Return the first moment of a date, and the first one behind it."""
    wrong = QueryError(
        f"cannot read the date {date!s}: write a year, a month, a day or a time, as in 2024, 2024-05, 2024-05-01 or "
        "2024-05-01T18:30"
    )
    try:
        if not isinstance(date, str):
            moment = date if isinstance(date, datetime) else datetime.fromtimestamp(date)
            return moment, moment + timedelta(seconds=1)
        text = date.strip()
        found = _DATE.fullmatch(text)
        if found is None:
            if len(text) < len("2024-05-01T18") or text[4] != "-":  # such as 20240501, or a week
                raise wrong
            moment = datetime.fromisoformat(text)
            to_the_minute = re.fullmatch(r".{10}.\d\d:\d\d([zZ]|[+-]\d\d:?\d\d)?", text)
            return moment, moment + timedelta(seconds=60 if to_the_minute else 1)
        year, month, day = (int(part) if part else None for part in found.groups())
        assert year is not None
        first = datetime(year, month or 1, day or 1)
        if month is None:
            days = 366 if calendar.isleap(year) else 365
        else:
            days = calendar.monthrange(year, month)[1] if day is None else 1
        return first, first + timedelta(days=days)
    except (ValueError, OverflowError, OSError) as error:
        raise wrong from error


def _timestamp(moment: datetime, date: Date) -> float:
    try:
        return moment.timestamp()
    except (ValueError, OverflowError, OSError) as error:
        raise QueryError(f"the date {date!s} is outside the years that this system knows") from error
