"""EDL: edit decision lists (CMX 3600), and Resolve's list of timeline markers.

Written here, not by OpenTimelineIO's adapter 1.0.0: that one writes no FCM line, takes 29.97 for drop-frame always and
any rate within one frame per second of a SMPTE rate for it, ignores the start of the timeline, wraps it after 24 hours,
and writes mixed rates that it cannot read. It reads these files; tests compare.

Times are time codes of one rate. The record side starts at 01:00:00:00, as editors' timelines do. An `FCM` line tells
the way of counting, and comes again where that of a source changes.
"""

from __future__ import annotations

from collections.abc import Sequence

from impart.errors import DataError
from impart.video.export.editors.events import Event, Timeline, rate_in_words
from impart.video.export.file_names import one_line, reel_names

__all__ = ["edl_text", "resolve_text"]

START = "01:00:00:00"  # of the record side, and of Resolve's timelines
MOST_EVENTS = 999  # an event has three digits
_CHANNELS = {0: "V", 1: "B"}  # two and more: AA/V


def edl_text(timeline: Timeline) -> str:
    """Format a timeline as EDL.

    Raises:
        DataError: files of different rates, more than 999 events, or more than 23 hours; names the remedy.
    """
    _check(timeline)
    timebase = timeline.timebase
    start = timebase.frame(START)
    reels = reel_names(source.path for source in timeline.sources)
    counting = timebase.drop
    lines = [f"TITLE: {one_line(timeline.name)}", _fcm(counting), ""]
    for number, event in enumerate(timeline.events, start=1):
        if event.source.timebase.drop != counting:
            counting = event.source.timebase.drop
            lines.append(_fcm(counting))
        own = event.source.timebase
        times = (
            own.text(event.source_in),
            own.text(event.source_out),
            timebase.text(start + event.record),
            timebase.text(start + event.record_end),
        )
        channels = _CHANNELS.get(event.source.sound_channels, "AA/V")
        lines.append(f"{number:03d}  {reels[event.span.path]:<8} {channels:<5} C        {' '.join(times)}")
        lines += [f"* FROM CLIP NAME: {one_line(event.name)}", f"* SOURCE FILE: {one_line(str(event.span.path))}"]
        if event.span.label:
            lines.append(f"* COMMENT: {one_line(event.span.label)}")
    return "\n".join([*lines, ""])


def resolve_text(name: str, events: Sequence[Event]) -> str:
    """Format the spans of one film as markers of a DaVinci Resolve timeline that has the whole film, from 01:00:00:00.

    Import it with "Timelines > Import > Timeline Markers from EDL".

    Args:
        events: of one film, in order of time.

    Raises:
        DataError: more than 999.
    """
    if len(events) > MOST_EVENTS:
        raise DataError(f"{len(events)} markers: an EDL holds {MOST_EVENTS}. Export fewer hits at once")
    timebase = events[0].source.timebase
    start = timebase.frame(START)
    lines = [f"TITLE: {one_line(name)}", _fcm(timebase.drop), ""]
    for number, event in enumerate(events, start=1):
        at, following = (timebase.text(start + event.first + more) for more in (0, 1))
        text = one_line(event.span.label or event.name).replace("|", "/")
        lines.append(f"{number:03d}  001      V     C        {at} {following} {at} {following}  ")
        lines += [f" |C:ResolveColorBlue |M:{text} |D:{event.end - event.first}", ""]
    return "\n".join(lines)


def _check(timeline: Timeline) -> None:
    if timeline.mixed:
        rates = {source.timebase.rate: source.path.name for source in reversed(timeline.sources)}
        listed = ", ".join(f"{rate_in_words(rate)} ({name})" for rate, name in sorted(rates.items()))
        raise DataError(
            f"an EDL has one frame rate, and these videos have {listed}: export each rate alone, or use fcp7, "
            "fcpxml or otio, which keep the rate of each video"
        )
    if len(timeline.events) > MOST_EVENTS:
        raise DataError(f"{len(timeline.events)} spans: an EDL holds {MOST_EVENTS}. Export fewer, or use --to otio")
    if timeline.timebase.frame(START) + timeline.frames > timeline.timebase.day:
        raise DataError("more than 23 hours: time codes of an EDL end after 24 hours. Export fewer, or use --to otio")


def _fcm(drop: bool) -> str:
    return f"FCM: {'DROP FRAME' if drop else 'NON-DROP FRAME'}"
