"""Chapters: spans of one film as ffmetadata, or inside a copy of the film.

Players show chapters as a list to jump to. Containers keep less than they seem to: MP4 has starts only, so that a first
chapter at 1 s reads back as one from 0 and overlapping ones are shifted; Matroska leaves out unsorted ones. So chapters
are sorted, overlaps are cut at the next start, and the time between them becomes chapters too, from 0 to the end. A
copy is read back and compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.error

from impart.errors import DataError
from impart.files import atomic_path
from impart.video.decode.container import open_video
from impart.video.decode.streams import choose_stream
from impart.video.export.editors.events import Event
from impart.video.export.encoding import PacketSink
from impart.video.export.file_names import one_line
from impart.video.export.source.facts import SourceFacts

__all__ = ["Chapter", "chapters_of", "copy_with_chapters", "ffmetadata"]

BETWEEN = "-"  # title of the time between two spans
_TICKS = 1000
_APART_MS = 2


@dataclass(frozen=True)
class Chapter:
    """A chapter of a film, in milliseconds."""

    start_ms: int
    end_ms: int
    title: str


def chapters_of(events: Sequence[Event]) -> list[Chapter]:
    """Make chapters that cover a film, of the spans on it.

    Args:
        events: of one film.
    """
    source = events[0].source
    film_ms = round(source.duration_s * 1000)

    def at(frame: int) -> int:
        return round(float(source.first_s + frame / source.timebase.rate) * 1000)

    made: list[Chapter] = []
    reached = 0
    for event in sorted(events, key=lambda one: (one.first, one.end)):
        start, end = at(event.first), min(at(event.end), film_ms)
        if made and start < reached:  # the earlier one ends where this one starts
            last = made.pop()
            if last.start_ms < start:
                made.append(Chapter(last.start_ms, start, last.title))
            start = max(start, last.start_ms)
        elif start > reached:
            made.append(Chapter(reached, start, BETWEEN))
        title = one_line(event.span.label or event.name)
        made.append(Chapter(start, max(end, start + 1), title))
        reached = made[-1].end_ms
    if reached < film_ms:
        made.append(Chapter(reached, film_ms, BETWEEN))
    return made


def ffmetadata(chapters: Sequence[Chapter]) -> str:
    """Format chapters as FFmpeg's metadata file; mpv reads it with `--chapters-file`.

    >>> print(ffmetadata([Chapter(0, 1500, "a=b")]), end="")
    ;FFMETADATA1
    [CHAPTER]
    TIMEBASE=1/1000
    START=0
    END=1500
    title=a\\=b
    """
    lines = [";FFMETADATA1"]
    for chapter in chapters:
        title = "".join(f"\\{letter}" if letter in "=;#\\" else letter for letter in chapter.title)
        lines += ["[CHAPTER]", f"TIMEBASE=1/{_TICKS}", f"START={chapter.start_ms}", f"END={chapter.end_ms}"]
        lines.append(f"title={title}")
    return "\n".join([*lines, ""])


def copy_with_chapters(source: SourceFacts, target: Path, chapters: Sequence[Chapter]) -> tuple[str, ...]:
    """Copy a film, without encoding it again, and write chapters into the copy.

    Args:
        source: the film.
        target: an .mp4, .m4v, .mov or .mkv file.

    Returns:
        Notes: streams that are left out, such as cover art, and those that the container cannot hold.

    Raises:
        DataError: it cannot be written, or reads back with other chapters.
    """
    notes: list[str] = []
    options = {"write_tmcd": "1"} if source.has_timecode and target.suffix.lower() != ".mkv" else {}
    try:
        with atomic_path(target, keep_suffix=True) as part:
            with open_video(source.path) as film, av.open(str(part), "w", options=options) as copy:
                stream = choose_stream(source.path, film).stream
                others = [one for one in film.streams if one.type in ("audio", "subtitle")]
                streams = {}
                for one in (stream, *others):
                    try:
                        streams[one.index] = copy.add_stream_from_template(one, opaque=True)
                    except (ValueError, av.error.FFmpegError) as error:
                        if one is stream:
                            codec = stream.codec_context.name
                            raise DataError(f"{target} cannot hold {codec}: name it .mkv, or .mp4") from error
                        notes.append(f"{target.name}: stream {one.index} ({one.type}) does not fit into it")
                left = sum(one.index not in streams for one in film.streams if one.type == "video")
                if left:
                    notes.append(f"{target.name}: {left} further video stream(s), such as cover art, are left out")
                copy.metadata.update(film.metadata)
                if source.has_timecode:
                    copy.metadata["timecode"] = source.timecode_at(0)
                video = streams[stream.index]
                video.set_display_matrix(source.matrix)
                video.codec_context.framerate = source.timebase.rate  # without it, MP4 takes no time code
                copy.set_chapters(
                    [
                        {
                            "id": number,
                            "start": chapter.start_ms,
                            "end": chapter.end_ms,
                            "time_base": Fraction(1, _TICKS),
                            "metadata": {"title": chapter.title},
                        }
                        for number, chapter in enumerate(chapters)
                    ]
                )
                rate = source.timebase.rate
                sinks = {index: PacketSink(copy, stream, rate=rate) for index, stream in streams.items()}
                origin = Fraction(film.start_time or 0, 1_000_000)
                for packet in film.demux([film.streams[index] for index in streams]):
                    if packet.pts is None or not packet.time_base:
                        continue
                    shift = round(origin / packet.time_base)
                    if packet.pts < shift and packet.stream.type == "audio" and target.suffix.lower() == ".mkv":
                        continue  # a coder's run-up, never heard: Matroska would move all times by it
                    sinks[packet.stream.index].put(packet, shift=shift)
                for sink in sinks.values():
                    sink.finish()
            _compare(part, chapters, target)
    except av.error.FFmpegError as error:
        raise DataError(f"cannot write {target}: {error.strerror or error}. Try a name that ends with .mkv") from error
    return tuple(notes)


def _compare(file: Path, chapters: Sequence[Chapter], target: Path) -> None:
    with av.open(str(file)) as copy:
        read = [round(float(one["start"] * one["time_base"]) * 1000) for one in copy.chapters()]
    wanted = [chapter.start_ms for chapter in chapters]
    if len(read) != len(wanted) or any(abs(one - other) > _APART_MS for one, other in zip(read, wanted, strict=True)):
        raise DataError(f"{target}: its container changed the chapters ({len(read)} of {len(wanted)} read back)")
