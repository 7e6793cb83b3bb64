"""Events: spans as frame numbers of their files and of a timeline, from which all formats are written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from impart.errors import DataError
from impart.video.export.source.facts import SourceFacts, read_facts
from impart.video.export.source.timecode import Timebase
from impart.video.export.spans import NO_HANDLES, ExportSpan, Handles, SpanFailure

__all__ = ["Event", "Timeline", "build_timeline", "by_film", "rate_in_words"]


@dataclass(frozen=True, kw_only=True)
class Event:
    """A span on a timeline; ends are exclusive.

    Attributes:
        first, end: frames of the file, from 0 (its first frame), at the rate of the file.
        record, record_end: frames of the timeline, from 0 (its start), at the rate of the timeline.
    """

    span: ExportSpan
    source: SourceFacts
    first: int
    end: int
    record: int
    record_end: int

    @property
    def name(self) -> str:
        """The file's name."""
        return self.span.path.name

    @property
    def source_in(self) -> int:
        """First frame in the file's time code."""
        return self.source.start_frame + self.first

    @property
    def source_out(self) -> int:
        """End in the file's time code."""
        return self.source.start_frame + self.end


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """Spans one after another.

    Attributes:
        timebase: of the timeline: that of most of its spans.
        failures: spans that are not on it.
        photos: how many photos were left out.
    """

    name: str
    timebase: Timebase
    events: tuple[Event, ...]
    failures: tuple[SpanFailure, ...] = ()
    photos: int = 0

    @property
    def frames(self) -> int:
        return self.events[-1].record_end if self.events else 0

    @property
    def sources(self) -> list[SourceFacts]:
        """Files, each once, in order of their first event."""
        return list({event.source.path: event.source for event in self.events}.values())

    @property
    def mixed(self) -> bool:
        """Whether files of different rates are on it."""
        return len({source.timebase.rate for source in self.sources}) > 1

    @property
    def shown_size(self) -> tuple[int, int]:
        """Width and height of most of its spans."""
        return Counter(event.source.shown_size for event in self.events).most_common(1)[0][0]


def build_timeline(spans: Sequence[ExportSpan], *, name: str, handles: Handles = NO_HANDLES) -> Timeline:
    """Read the facts of all files, and put spans one after another.

    Raises:
        DataError: no span is left.
    """
    facts: dict[Path, SourceFacts | str] = {}
    found: list[tuple[ExportSpan, SourceFacts]] = []
    failures: list[SpanFailure] = []
    films = [span for span in spans if span.kind != "photo"]
    for span in films:
        if span.path not in facts:
            try:
                facts[span.path] = read_facts(span.path)
            except DataError as error:
                facts[span.path] = str(error)
        known = facts[span.path]
        if isinstance(known, str):
            failures.append(SpanFailure(span=span, reason=known))
        elif span.start_s >= known.duration_s:
            reason = f"{span.path}: {span.start_s:g} s is behind its end at {known.duration_s:g} s"
            failures.append(SpanFailure(span=span, reason=reason))
        else:
            found.append((span, known))
    photos = len(spans) - len(films)
    if not found:
        reason = failures[0].reason if failures else "all of the spans are photos, which have no place on a timeline"
        raise DataError(f"nothing to export: {reason}")
    timebase = Counter(source.timebase for _, source in found).most_common(1)[0][0]
    events: list[Event] = []
    at = 0
    for span, source in found:
        first, end = source.bounds(span.start_s, span.end_s, handles_s=handles.seconds(source.timebase.rate))
        frames = max(1, round(Fraction(end - first) * timebase.rate / source.timebase.rate))
        events.append(Event(span=span, source=source, first=first, end=end, record=at, record_end=at + frames))
        at += frames
    return Timeline(name=name, timebase=timebase, events=tuple(events), failures=tuple(failures), photos=photos)


def by_film(timeline: Timeline) -> dict[Path, list[Event]]:
    """Group events by their file, each group in order of time."""
    groups: dict[Path, list[Event]] = {}
    for event in timeline.events:
        groups.setdefault(event.span.path, []).append(event)
    return {path: sorted(events, key=lambda event: (event.first, event.end)) for path, events in groups.items()}


def rate_in_words(rate: Fraction) -> str:
    """Format a rate: `25`, `23.976`.

    >>> rate_in_words(Fraction(24000, 1001)), rate_in_words(Fraction(25))
    ('23.976', '25')
    """
    return f"{float(rate):.5g}" if rate.denominator == 1 else f"{float(rate):.3f}".rstrip("0")
