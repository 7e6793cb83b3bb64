"""OTIO: the timeline format of OpenTimelineIO, written by its library (extra: export)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from impart.errors import MissingExtraError
from impart.video.export.editors.events import Event, Timeline
from impart.video.export.file_names import clean
from impart.video.export.source.timecode import Timebase

if TYPE_CHECKING:
    from opentimelineio.opentime import TimeRange
    from opentimelineio.schema import Clip

__all__ = ["otio_text"]


def otio_text(timeline: Timeline) -> str:
    """Format a timeline as OTIO, with a track of sound where a file has sound.

    Every clip has its source range and the range of its file, in the file's time code: readers fail without them.

    Raises:
        MissingExtraError: OpenTimelineIO is not installed.
    """
    try:
        from opentimelineio import adapters, schema
        from opentimelineio.opentime import RationalTime
    except ImportError as error:
        raise MissingExtraError("opentimelineio", extra="export", purpose="the format otio") from error

    made = schema.Timeline(name=clean(timeline.name))
    made.global_start_time = RationalTime(0, float(timeline.timebase.rate))
    for kind in ("Video", "Audio"):
        if kind == "Audio" and not any(event.source.sound_channels for event in timeline.events):
            continue
        track = schema.Track(name=kind, kind=kind)
        for event in timeline.events:
            if kind == "Video" or event.source.sound_channels:
                track.append(_clip(event))
            else:
                track.append(schema.Gap(source_range=_range(0, event.end - event.first, event.source.timebase)))
        made.tracks.append(track)
    return str(adapters.write_to_string(made, adapter_name="otio_json"))


def _clip(event: Event) -> Clip:
    from opentimelineio.schema import Clip, ExternalReference

    source, span = event.source, event.span
    media = ExternalReference(
        target_url=source.path.absolute().as_uri(),
        available_range=_range(source.start_frame, source.frames, source.timebase),
    )
    media.name = clean(source.path.name)
    return Clip(
        name=clean(span.label or event.name),
        media_reference=media,
        source_range=_range(event.source_in, event.end - event.first, source.timebase),
        metadata={
            "impart": {
                "number": span.number,
                "start_s": span.start_s,
                "end_s": span.end_s,
                "score": span.score,
                "drop_frame": source.timebase.drop,
            }
        },
    )


def _range(first: int, frames: int, timebase: Timebase) -> TimeRange:
    from opentimelineio.opentime import RationalTime, TimeRange

    rate = float(timebase.rate)
    return TimeRange(RationalTime(first, rate), RationalTime(frames, rate))
