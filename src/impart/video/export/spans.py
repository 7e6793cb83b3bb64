"""Spans to export: given on the command line, in a csv or json file, or as hits of a search."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from impart.errors import DataError, QueryError

__all__ = [
    "NO_HANDLES",
    "ExportSpan",
    "SpanFailure",
    "Handles",
    "is_selection",
    "parse_clock",
    "parse_handles",
    "parse_selection",
    "parse_span",
    "read_spans",
]

_NUMBERS = re.compile(r"\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*")
_PATHS, _STARTS, _ENDS, _LABELS = ("path", "file", "video"), ("start_s", "start"), ("end_s", "end"), ("label", "name")


@dataclass(frozen=True, kw_only=True)
class ExportSpan:
    """A span of a file, to be exported.

    Attributes:
        start_s, end_s: seconds after the start of the file, as in hits.
        label: a text for editors and sheets; "" = none.
        number: rank of the hit, or position in the list, from 1.
        score: of the hit; None where no search found the span.
        shown_s: time of the frame that stands for the span; None = its middle.
        kind: `photo` for still images: sheets and pages show them, timelines and clips leave them out.

    Example:
        >>> ExportSpan(path=Path("film.mp4"), start_s=12.0, end_s=15.5, label="a dog").length_s
        3.5
    """

    path: Path
    start_s: float
    end_s: float
    label: str = ""
    number: int = 0
    score: float | None = None
    shown_s: float | None = None
    kind: Literal["video", "photo"] = "video"

    @property
    def frame_s(self) -> float:
        """Time of the frame that stands for the span."""
        return (self.start_s + self.end_s) / 2 if self.shown_s is None else self.shown_s

    @property
    def length_s(self) -> float:
        return self.end_s - self.start_s


@dataclass(frozen=True, kw_only=True)
class SpanFailure:
    """A span that could not be exported, and why."""

    span: ExportSpan
    reason: str


@dataclass(frozen=True)
class Handles:
    """Material to add on both sides of a span: frames of its own film, or seconds.

    >>> Handles(frames=12).seconds(Fraction(24)), Handles(time_s=0.5).seconds(Fraction(24))
    (0.5, 0.5)
    """

    frames: int = 0
    time_s: float = 0.0

    def seconds(self, rate: Fraction) -> float:
        """Convert to seconds of a film with `rate` frames per second."""
        return float(self.frames / rate) + self.time_s


NO_HANDLES = Handles()


def parse_clock(text: str) -> float:
    """Parse seconds, MM:SS or HH:MM:SS, each with a fraction.

    >>> parse_clock("01:02.5"), parse_clock("12.5")
    (62.5, 12.5)

    Raises:
        ValueError: it is no time of zero or more.
    """
    seconds = 0.0
    for part in text.split(":"):
        seconds = seconds * 60 + float(part)
    if not math.isfinite(seconds) or seconds < 0 or "-" in text:
        raise ValueError(text)
    return seconds


def parse_handles(text: str) -> Handles:
    """Parse handles: `12f` are frames, `0.5s` or `0.5` seconds.

    >>> parse_handles("12f"), parse_handles("0.5s")
    (Handles(frames=12, time_s=0.0), Handles(frames=0, time_s=0.5))

    Raises:
        QueryError: it is neither.
    """
    try:
        if text.endswith("f"):
            frames = int(text[:-1])
            if frames < 0:
                raise ValueError(text)
            return Handles(frames=frames)
        return Handles(time_s=parse_clock(text.removesuffix("s")))
    except ValueError as error:
        raise QueryError(f"handles {text!r}: write frames as 12f, or seconds as 0.5s") from error


def is_selection(text: str) -> bool:
    """Whether a text selects hits by their numbers, such as `1,3-5`."""
    return _NUMBERS.fullmatch(text) is not None


def parse_selection(text: str) -> list[int]:
    """Parse numbers of hits.

    >>> parse_selection("1,3-5")
    [1, 3, 4, 5]

    Raises:
        QueryError: a range runs backwards.
    """
    numbers: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        if last and int(last) < int(first):
            raise QueryError(f"{text!r}: the range {part} runs backwards: write {last}-{first}")
        numbers += range(int(first), int(last or first) + 1)
    return numbers


def parse_span(text: str, *, number: int = 0) -> ExportSpan:
    """Parse `path@start-end`; times are seconds, MM:SS or HH:MM:SS.

    >>> span = parse_span("films/a@b.mp4@00:12-00:15.5")
    >>> span.path.name, span.start_s, span.end_s
    ('a@b.mp4', 12.0, 15.5)

    Raises:
        QueryError: there is no valid span.
    """
    file, at, times = text.rpartition("@")
    start, dash, end = times.partition("-")
    try:
        if not (at and file and dash):
            raise ValueError("no span")
        return _checked(Path(file), parse_clock(start), parse_clock(end), number=number, label="")
    except ValueError as error:
        raise QueryError(
            f"{text!r} is no span: write FILE@START-END, as in film.mp4@00:12-00:15.5; or numbers of the last search, "
            "as in 1,3-5; or a .csv or .json file"
        ) from error


def read_spans(file: Path) -> list[ExportSpan]:
    """Read spans from a csv or json file.

    A csv has a header with `path,start_s,end_s` and, if wanted, `label` and `score`; a json file is a list of objects
    with these keys, or an object with such a list under `hits` or `spans`. Relative paths count from the current
    folder.

    Raises:
        DataError: it cannot be read, or a row is no span; names the row.
    """
    try:
        text = file.read_text(encoding="utf-8-sig", errors="surrogateescape")  # names of files may be no text
    except OSError as error:
        raise DataError(f"cannot read the spans {file}: {error.strerror or error}") from error
    rows = _json_rows(file, text) if file.suffix.lower() == ".json" else list(csv.DictReader(io.StringIO(text)))
    spans = [_span_of_row(file, row, number) for number, row in enumerate(rows, start=1)]
    if not spans:
        raise DataError(f"{file} has no spans: it needs rows of path,start_s,end_s")
    return spans


def _json_rows(file: Path, text: str) -> list[Any]:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{file} is not valid JSON: line {error.lineno}: {error.msg}") from error
    if isinstance(content, dict):
        content = content.get("hits", content.get("spans"))
    if not isinstance(content, list):
        raise DataError(f"{file}: wanted a list of objects with path, start_s, end_s, or one under 'hits' or 'spans'")
    return content


def _span_of_row(file: Path, row: Any, number: int) -> ExportSpan:
    try:
        if not isinstance(row, Mapping):
            raise ValueError("no object with path, start_s, end_s")
        score = _first(row, ("score",))
        span = _checked(
            Path(str(_first(row, _PATHS, needed=True))),
            parse_clock(str(_first(row, _STARTS, needed=True))),
            parse_clock(str(_first(row, _ENDS, needed=True))),
            number=int(_first(row, ("rank", "number")) or number),
            label=str(_first(row, _LABELS) or ""),
            score=None if score is None else float(score),
            kind="photo" if row.get("kind") == "photo" else "video",
        )
    except (ValueError, TypeError) as error:
        raise DataError(f"{file}: row {number}: {error or 'no span'}; wanted are path,start_s,end_s") from error
    return span


def _first(row: Mapping[str, Any], names: Sequence[str], *, needed: bool = False) -> Any:
    for name in names:
        value = row.get(name)
        if value is not None and value != "":
            return value
    if needed:
        raise ValueError(f"has no {names[0]}")
    return None


def _checked(
    path: Path,
    start_s: float,
    end_s: float,
    *,
    number: int,
    label: str,
    score: float | None = None,
    kind: Literal["video", "photo"] = "video",
) -> ExportSpan:
    if end_s <= start_s and kind == "video":
        raise ValueError(f"the end {end_s:g} s is not after the start {start_s:g} s")
    return ExportSpan(path=path, start_s=start_s, end_s=end_s, number=number, label=label, score=score, kind=kind)
