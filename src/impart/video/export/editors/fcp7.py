"""FCP7 XML (xmeml 5), the format that Premiere Pro imports; also read by Resolve, Final Cut Pro 7 and Avid.

Written here, not by OpenTimelineIO's adapter 1.0.0: that one writes no frame size, the non-drop time code of a
drop-frame number, file names with `%20`, and raises at 15 fps. It reads these files; tests compare. `in` and `out`
count frames from the first frame of the file, whatever its time code; `start` and `end` those of the timeline.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence

from impart.video.export.editors.events import Event, Timeline
from impart.video.export.file_names import clean
from impart.video.export.source.facts import SourceFacts
from impart.video.export.source.timecode import Timebase

__all__ = ["fcp7_text"]

_MOST_TRACKS = 2  # of sound: left and right


def fcp7_text(timeline: Timeline) -> str:
    """Format a timeline as FCP7 XML, with linked sound."""
    width, height = timeline.shown_size
    root = ET.Element("xmeml", version="5")
    sequence = ET.SubElement(root, "sequence", id="sequence-1")
    _text(sequence, "name", timeline.name)
    _text(sequence, "duration", timeline.frames)
    _rate(sequence, timeline.timebase)
    _timecode(sequence, timeline.timebase, 0)
    media = ET.SubElement(sequence, "media")
    video = ET.SubElement(media, "video")
    _video_format(ET.SubElement(video, "format"), timeline.timebase, width, height)
    track = ET.SubElement(video, "track")
    files = {source.path: f"file-{number}" for number, source in enumerate(timeline.sources, start=1)}
    written: set[str] = set()
    for number, event in enumerate(timeline.events, start=1):
        _clip(
            track, timeline, event, number=number, kind="video", track=1, file=files[event.span.path], written=written
        )
    tracks = min(_MOST_TRACKS, max(event.source.sound_channels for event in timeline.events))
    audio = ET.SubElement(media, "audio")
    for index in range(1, tracks + 1):
        track = ET.SubElement(audio, "track")
        for number, event in enumerate(timeline.events, start=1):
            if event.source.sound_channels >= index:
                file = files[event.span.path]
                _clip(track, timeline, event, number=number, kind="audio", track=index, file=file, written=written)
    ET.indent(root)
    body = ET.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE xmeml>\n{body}\n'


def _clip(
    parent: ET.Element,
    timeline: Timeline,
    event: Event,
    *,
    number: int,
    kind: str,
    track: int,
    file: str,
    written: set[str],
) -> None:
    clip = ET.SubElement(parent, "clipitem", id=_clip_id(number, kind, track))
    _text(clip, "masterclipid", f"master-{file}")
    _text(clip, "name", event.span.label or event.name)
    _text(clip, "enabled", "TRUE")
    _text(clip, "duration", event.source.frames)
    _rate(clip, event.source.timebase)
    _text(clip, "start", event.record)
    _text(clip, "end", event.record_end)
    _text(clip, "in", event.first)
    _text(clip, "out", event.end)
    described = ET.SubElement(clip, "file", id=file)
    if file not in written:  # later clips refer to it by its id
        written.add(file)
        _file(described, event.source)
    if kind == "audio":
        source = ET.SubElement(clip, "sourcetrack")
        _text(source, "mediatype", "audio")
        _text(source, "trackindex", track)
    tracks = min(_MOST_TRACKS, event.source.sound_channels)
    for other, index in [("video", 1), *(("audio", index) for index in range(1, tracks + 1))] if tracks else []:
        link = ET.SubElement(clip, "link")
        _text(link, "linkclipref", _clip_id(number, other, index))
        _text(link, "mediatype", other)
        _text(link, "trackindex", index)
        _text(link, "clipindex", _clip_index(timeline.events, number, other, index))
    if kind == "video" and event.span.label:
        comments = ET.SubElement(clip, "comments")
        _text(comments, "mastercomment1", event.name)


def _clip_id(number: int, kind: str, track: int) -> str:
    return f"clipitem-{number}" if kind == "video" else f"clipitem-{number}-sound-{track}"


def _clip_index(events: Sequence[Event], number: int, kind: str, track: int) -> int:
    """Find the position of a clip on its track, from 1: sound tracks lack clips without sound."""
    if kind == "video":
        return number
    return sum(event.source.sound_channels >= track for event in events[:number])


def _file(parent: ET.Element, source: SourceFacts) -> None:
    _text(parent, "name", source.path.name)
    _text(parent, "pathurl", source.path.absolute().as_uri())
    _rate(parent, source.timebase)
    _text(parent, "duration", source.frames)
    _timecode(parent, source.timebase, source.start_frame)
    media = ET.SubElement(parent, "media")
    video = ET.SubElement(media, "video")
    _video_format(video, source.timebase, *source.shown_size)
    if source.sound_channels:
        audio = ET.SubElement(media, "audio")
        format_ = ET.SubElement(audio, "samplecharacteristics")
        _text(format_, "depth", 16)
        _text(format_, "samplerate", source.sound_hz)
        _text(audio, "channelcount", source.sound_channels)


def _video_format(parent: ET.Element, timebase: Timebase, width: int, height: int) -> None:
    format_ = ET.SubElement(parent, "samplecharacteristics")
    _rate(format_, timebase)
    _text(format_, "width", width)
    _text(format_, "height", height)
    _text(format_, "pixelaspectratio", "square")


def _rate(parent: ET.Element, timebase: Timebase) -> None:
    rate = ET.SubElement(parent, "rate")
    _text(rate, "timebase", timebase.nominal)
    _text(rate, "ntsc", "TRUE" if timebase.ntsc else "FALSE")


def _timecode(parent: ET.Element, timebase: Timebase, frame: int) -> None:
    timecode = ET.SubElement(parent, "timecode")
    _rate(timecode, timebase)
    _text(timecode, "string", timebase.text(frame))
    _text(timecode, "frame", frame)
    _text(timecode, "displayformat", "DF" if timebase.drop else "NDF")


def _text(parent: ET.Element, tag: str, value: object) -> None:
    ET.SubElement(parent, tag).text = clean(str(value))
