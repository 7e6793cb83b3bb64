"""FCPXML 1.8, the format of Final Cut Pro; also read by Resolve.

Written here, not by OpenTimelineIO's adapter 1.0.0: that one writes an empty frame duration at 29.97 and 59.94 fps. All
times are exact fractions of seconds, multiples of the frame duration of their file or timeline. The start of a file is
the time of its first frame number: drop-frame changes how numbers are shown, not this time.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from fractions import Fraction

from impart.video.export.editors.events import Event, Timeline
from impart.video.export.file_names import clean
from impart.video.export.source.facts import SourceFacts
from impart.video.export.source.timecode import Timebase

__all__ = ["fcpxml_text"]

_VERSION = "1.8"


def fcpxml_text(timeline: Timeline) -> str:
    """Format a timeline as FCPXML, with sound."""
    root = ET.Element("fcpxml", version=_VERSION)
    resources = ET.SubElement(root, "resources")
    formats: dict[tuple[Fraction, tuple[int, int]], str] = {}
    own = _format(resources, formats, timeline.timebase, timeline.shown_size)
    assets = {}
    for number, source in enumerate(timeline.sources, start=1):
        assets[source.path] = f"a{number}"
        _asset(
            resources, source, name=f"a{number}", form=_format(resources, formats, source.timebase, source.shown_size)
        )
    library = ET.SubElement(root, "library")
    event = ET.SubElement(library, "event", name=clean(timeline.name))
    project = ET.SubElement(event, "project", name=clean(timeline.name))
    sequence = ET.SubElement(
        project,
        "sequence",
        format=own,
        duration=_time(timeline.frames, timeline.timebase),
        tcStart="0s",
        tcFormat=_counting(timeline.timebase),
    )
    spine = ET.SubElement(sequence, "spine")
    for one in timeline.events:
        _clip(spine, timeline, one, asset=assets[one.span.path])
    ET.indent(root)
    body = ET.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE fcpxml>\n{body}\n'


def _format(
    resources: ET.Element,
    formats: dict[tuple[Fraction, tuple[int, int]], str],
    timebase: Timebase,
    size: tuple[int, int],
) -> str:
    key = (timebase.rate, size)
    if key not in formats:
        formats[key] = f"r{len(formats) + 1}"
        width, height = map(str, size)
        ET.SubElement(
            resources, "format", id=formats[key], frameDuration=_time(1, timebase), width=width, height=height
        )
    return formats[key]


def _asset(resources: ET.Element, source: SourceFacts, *, name: str, form: str) -> None:
    sound: dict[str, str] = {}
    if source.sound_channels:
        sound = {
            "hasAudio": "1",
            "audioSources": "1",
            "audioChannels": str(source.sound_channels),
            "audioRate": str(source.sound_hz),
        }
    attributes = {
        "id": name,
        "name": clean(source.path.name),
        "src": source.path.absolute().as_uri(),
        "start": _time(source.start_frame, source.timebase),
        "duration": _time(source.frames, source.timebase),
        "hasVideo": "1",
        "format": form,
    }
    ET.SubElement(resources, "asset", attributes | sound)


def _clip(spine: ET.Element, timeline: Timeline, event: Event, *, asset: str) -> None:
    clip = ET.SubElement(
        spine,
        "asset-clip",
        ref=asset,
        name=clean(event.span.label or event.name),
        offset=_time(event.record, timeline.timebase),
        start=_time(event.source_in, event.source.timebase),
        duration=_time(event.record_end - event.record, timeline.timebase),
        tcFormat=_counting(event.source.timebase),
    )
    if event.span.label:
        ET.SubElement(clip, "note").text = clean(event.name)


def _time(frames: int, timebase: Timebase) -> str:
    """Format a number of frames as seconds, over the denominator that editors write.

    >>> _time(2, Timebase(Fraction(30000, 1001))), _time(50, Timebase(Fraction(25)))
    ('2002/30000s', '50/25s')
    """
    if not frames:
        return "0s"
    return f"{frames * timebase.rate.denominator}/{timebase.rate.numerator}s"


def _counting(timebase: Timebase) -> str:
    return "DF" if timebase.drop else "NDF"
