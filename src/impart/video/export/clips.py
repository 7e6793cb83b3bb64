"""Clips: one trimmed file per span, encoded again to the exact frame, or copied between key frames.

Encoded clips start with the first frame of the span and end with its last one, with all sound streams from that very
time on. Turned videos stay turned by their display matrix, interlaced ones stay interlaced, variable rates keep their
times, and the time code goes on from the source's.

A copy costs no quality and hardly any time, but starts at a key frame and ends before one: it is longer than the span.
Its times start at 0, without the empty edit that a plain stream copy has, and it gets the time code of its first frame.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import av
import av.error

from impart.errors import DataError, DecodeError
from impart.files import atomic_path, make_folder
from impart.video.decode.container import open_video
from impart.video.decode.streams import choose_stream, origin_s
from impart.video.decode.structure import AVI
from impart.video.export.encoding import (
    PacketSink,
    SoundSink,
    VideoSink,
    choose_codec,
    is_hdr,
    sound_layout,
    sound_rate,
)
from impart.video.export.file_names import check_free, safe_stem
from impart.video.export.source.facts import SourceFacts, read_facts
from impart.video.export.source.frames import ShownFrame, SoundOfSpan, frames_of_span, has_jumps
from impart.video.export.spans import NO_HANDLES, ExportSpan, Handles, SpanFailure
from impart.video.export.timelines import Written

__all__ = ["Clip", "clip_name", "copy_clip", "encode_clip", "write_clips"]

_COPY_CONTAINERS = {".mp4": ".mp4", ".m4v": ".mp4", ".mov": ".mov", ".mkv": ".mkv", ".webm": ".mkv"}
_NEAR = 0.1  # of a frame: times that near to the usual ones are taken as them
_END = 1e-4
_BEFORE_S = 15.0  # a seek in a transport stream may end behind its time


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A written clip.

    Attributes:
        start_s, end_s: of what it shows, in seconds after the start of its source.
        codec: of its video.
        notes: what a person should know.
    """

    file: Path
    start_s: float
    end_s: float
    codec: str
    notes: tuple[str, ...] = ()


def clip_name(span: ExportSpan, *, number: int, suffix: str = ".mp4") -> str:
    """Make the name of a clip: number, file and start, unique by the number.

    >>> clip_name(ExportSpan(path=Path("a/film.mp4"), start_s=62.5, end_s=65), number=3)
    '003_film_00.01.02.500.mp4'
    """
    ms = round(span.start_s * 1000)
    clock = f"{ms // 3_600_000:02d}.{ms // 60_000 % 60:02d}.{ms // 1000 % 60:02d}.{ms % 1000:03d}"
    return f"{number:03d}_{safe_stem(span.path.stem)}_{clock}{suffix}"


def write_clips(
    spans: Sequence[ExportSpan],
    folder: Path,
    *,
    copy: bool = False,
    handles: Handles = NO_HANDLES,
    overwrite: bool = False,
    on_clip: Callable[[Clip], None] | None = None,
) -> Written:
    """Write one clip per span into a folder, which is made.

    Args:
        copy: cut at key frames, without encoding again.
        handles: material to add on both sides.
        on_clip: called with each clip as soon as it is written.

    Returns:
        Files and failures: a span that fails costs itself alone.

    Raises:
        DataError: a file exists, or nothing can be written.
    """
    films = [(number, span) for number, span in zip(_numbers(spans), spans, strict=True) if span.kind != "photo"]
    names: dict[int, Path] = {}
    for number, span in films:
        suffix = _COPY_CONTAINERS.get(span.path.suffix.lower(), ".mkv") if copy else ".mp4"
        names[number] = folder / clip_name(span, number=number, suffix=suffix)
    try:
        make_folder(folder)
    except OSError as error:
        raise DataError(f"cannot make the folder {folder}: {error.strerror or error}") from error
    check_free(names.values(), overwrite=overwrite, sources=(span.path for _, span in films))
    clips: list[Clip] = []
    failures: list[SpanFailure] = []
    for number, span in films:
        try:
            clip = (copy_clip if copy else encode_clip)(span, names[number], handles=handles)
        except DataError as error:
            failures.append(SpanFailure(span=span, reason=str(error)))
            continue
        clips.append(clip)
        if on_clip is not None:
            on_clip(clip)
    if not clips:
        reason = failures[0].reason if failures else "all of the spans are photos, which have no clips"
        raise DataError(f"nothing to export: {reason}")
    return Written(
        files=tuple(clip.file for clip in clips),
        spans=len(clips),
        failures=tuple(failures),
        photos=len(spans) - len(films),
        notes=tuple(dict.fromkeys(note for clip in clips for note in clip.notes)),
    )


def _numbers(spans: Sequence[ExportSpan]) -> list[int]:
    """Number clips as the hits are numbered, or by position where those numbers are not unique."""
    own = [span.number for span in spans]
    return own if all(own) and len(set(own)) == len(own) else list(range(1, len(own) + 1))


def encode_clip(span: ExportSpan, target: Path, *, handles: Handles = NO_HANDLES) -> Clip:
    """Write a span as an MP4 file, exact to the frame, with its sound.

    Raises:
        DataError: the source cannot be read, has no frame there, or the target cannot be written.
    """
    facts = _facts_for(span)
    start_s, end_s = _with_handles(span, facts, handles)
    jumps = has_jumps(span.path)
    try:
        with (
            contextlib.closing(frames_of_span(span.path, start_s, end_s, jumps=jumps)) as frames,
            atomic_path(target, keep_suffix=True) as part,
        ):
            first = next(frames)
            return _encode(span, facts, target, part, first, frames, jumps=jumps)
    except (av.error.FFmpegError, ValueError) as error:
        raise DataError(f"cannot export {span.path} to {target}: {getattr(error, 'strerror', error)}") from error


def _encode(
    span: ExportSpan,
    facts: SourceFacts,
    target: Path,
    part: Path,
    first: ShownFrame,
    rest: Iterable[ShownFrame],
    *,
    jumps: bool,
) -> Clip:
    codec = choose_codec(hdr=is_hdr(first.frame))
    notes = []
    with ExitStack() as stack:
        out = stack.enter_context(av.open(str(part), "w", options={"movflags": "+faststart", "write_tmcd": "1"}))
        out.metadata["timecode"] = facts.timecode_at(facts.frame_at(first.time_s))
        rate = facts.timebase.rate
        video = VideoSink(out, first.frame, codec=codec, rate=rate, aspect=first.aspect, steady=facts.steady)
        video.stream.set_display_matrix(facts.matrix)
        sounds = []
        with _opened(span.path) as container:
            hidden = sum(stream.type == "subtitle" for stream in container.streams)
            wanted = [(one.index, one.codec_context, one.metadata) for one in container.streams.audio]
        if hidden:
            notes.append(f"{span.path.name}: its subtitles are not in the clips")
        for index, context, metadata in wanted:
            if context is None:
                notes.append(f"{span.path.name}: sound stream {index} has an unknown codec and is left out")
                continue
            hz = sound_rate(context.sample_rate)
            layout = sound_layout(context.channels)
            sound = SoundOfSpan(span.path, index, start_s=first.time_s, hz=hz, layout=layout, jumps=jumps)
            sink = SoundSink(out, hz=hz, layout=layout)
            if "language" in metadata:
                sink.stream.metadata["language"] = metadata["language"]
            sounds.append((stack.enter_context(sound), sink))
        end_s = first.end_s
        last = -1
        shown: ShownFrame | None = first
        following = iter(rest)
        while shown is not None:
            if shown.frame.width != first.frame.width or shown.frame.height != first.frame.height:
                notes.append(
                    f"{span.path.name}: its frame size changes at {shown.time_s:.3f} s; later frames are scaled"
                )
            at = _ticks(shown.time_s - first.time_s, video, facts)
            until = _ticks(shown.end_s - first.time_s, video, facts)
            at = max(at, last + 1)
            video.put(shown.frame, at=at, duration=until - at)
            last, end_s = at, shown.end_s
            for source, sink in sounds:
                sink.put(source.take(end_s))
            shown = next(following, None)
        video.finish()
        for _, sink in sounds:
            sink.finish()
    return Clip(file=target, start_s=first.time_s, end_s=end_s, codec=codec.words, notes=tuple(dict.fromkeys(notes)))


def _ticks(time_s: float, video: VideoSink, facts: SourceFacts) -> int:
    """Convert a time to ticks; one near to that of a frame at the usual rate is taken as that."""
    frames = time_s * float(facts.timebase.rate)
    if facts.steady and abs(frames - round(frames)) < _NEAR:
        return round(round(frames) / facts.timebase.rate / video.time_base)
    return round(time_s / video.time_base)


def copy_clip(span: ExportSpan, target: Path, *, handles: Handles = NO_HANDLES) -> Clip:
    """Copy a span from the key frame before it to the one behind it, without encoding.

    Raises:
        DataError: the source cannot be read or copied.
    """
    facts = _facts_for(span)
    start_s, end_s = _with_handles(span, facts, handles)
    end_s = min(end_s, facts.duration_s)
    if has_jumps(span.path):
        raise DataError(f"cannot copy from {span.path}: its clock jumps. Leave --copy out to encode it")
    try:
        with _opened(span.path) as film:
            if film.format.name == AVI:
                raise DataError(f"cannot copy from {span.path}: AVI has no times. Leave --copy out to encode it")
            stream = choose_stream(span.path, film).stream
            origin = origin_s(film, stream)
            begin, finish = _key_frames(film, stream, origin + start_s, origin + end_s)
            with atomic_path(target, keep_suffix=True) as part:
                first_s, last_s, notes = _copy(
                    span, facts, film, stream, part, begin=begin, finish=finish, origin=origin
                )
    except av.error.FFmpegError as error:
        raise DataError(f"cannot copy {span.path} to {target}: {error.strerror or error}") from error
    moved = (
        f"{target.name}: starts {max(0.0, start_s - first_s):.3f} s before and ends {last_s - end_s:.3f} s behind the "
        "span, at key frames"
    )
    return Clip(
        file=target,
        start_s=first_s,
        end_s=last_s,
        codec=f"{stream.codec_context.name} (copied)",
        notes=(moved, *notes),
    )


def _key_frames(
    film: av.container.InputContainer, stream: av.VideoStream, start_s: float, end_s: float
) -> tuple[int, int | None]:
    """Find the last key frame at or before a start, and the first one at or behind an end (None = the end of the file).

    Returns:
        Their times in units of the stream's time base.
    """
    base = stream.time_base
    half_s = float(1 / (2 * (stream.average_rate or 25)))
    for back_s in (1.0, 15.0, None):
        film.seek(0 if back_s is None else max(0, round((start_s - back_s) * 1e6)), backward=True)
        begin: int | None = None
        for packet in film.demux(stream):
            if packet.pts is None or not packet.is_keyframe or base is None:
                continue
            if begin is None and back_s is not None and packet.pts * base > start_s + half_s:
                break  # the seek ended behind the start
            if packet.pts * base <= start_s + half_s or begin is None:
                begin = packet.pts
            elif packet.pts * base >= end_s - half_s:
                return begin, packet.pts
        else:
            if begin is not None:
                return begin, None
    raise DataError("no key frame was found. Leave --copy out to encode it")


def _copy(
    span: ExportSpan,
    facts: SourceFacts,
    film: av.container.InputContainer,
    stream: av.VideoStream,
    part: Path,
    *,
    begin: int,
    finish: int | None,
    origin: float,
) -> tuple[float, float, tuple[str, ...]]:
    base = stream.time_base
    assert base is not None
    begin_s, finish_s = float(begin * base), None if finish is None else float(finish * base)
    notes: list[str] = []
    with av.open(str(part), "w", options={"write_tmcd": "1"} if part.suffix in (".mp4", ".mov") else {}) as out:
        out.metadata["timecode"] = facts.timecode_at(facts.frame_at(begin_s - origin))
        streams = {}
        for one in (stream, *film.streams.audio):
            try:
                streams[one.index] = out.add_stream_from_template(one, opaque=True)  # needs no encoder of the codec
            except (ValueError, av.error.FFmpegError) as error:
                if one is stream:
                    codec = stream.codec_context.name
                    raise DataError(
                        f"cannot copy from {span.path}: {part.suffix} holds no {codec}. Leave --copy out to encode it"
                    ) from error
                notes.append(f"{span.path.name}: sound stream {one.index} does not fit into {part.suffix}")
        streams[stream.index].set_display_matrix(facts.matrix)
        streams[stream.index].codec_context.framerate = facts.timebase.rate  # without it, MP4 takes no time code
        film.seek(max(0, round((begin_s - _BEFORE_S) * 1e6)), backward=True)
        last_s, started = begin_s, False
        rate = facts.timebase.rate
        sinks = {index: PacketSink(out, one, rate=rate) for index, one in streams.items()}
        for packet in film.demux([film.streams[index] for index in streams]):
            if packet.pts is None or packet.time_base is None:
                continue
            time_s = float(packet.pts * packet.time_base)
            ours = packet.stream.index == stream.index
            if ours:
                started = started or (packet.is_keyframe and packet.pts == begin)
                if packet.pts < begin or not started:
                    continue
                if finish is not None and packet.pts >= finish and packet.is_keyframe:
                    break
                last_s = max(last_s, time_s + float((packet.duration or 0) * packet.time_base))
            elif time_s < begin_s - _END or (finish_s is not None and time_s >= finish_s):
                continue
            shift = round(begin_s / packet.time_base)
            sinks[packet.stream.index].put(packet, shift=shift)
        for sink in sinks.values():
            sink.finish()
    if not started:
        raise DataError(
            f"cannot copy from {span.path}: its key frame at {begin_s - origin:.3f} s was not found again. "
            "Leave --copy out to encode it"
        )
    return begin_s - origin, last_s - origin, tuple(notes)


def _facts_for(span: ExportSpan) -> SourceFacts:
    facts = read_facts(span.path)
    if span.start_s >= facts.duration_s and not has_jumps(span.path):
        raise DataError(f"{span.path}: {span.start_s:g} s is behind its end at {facts.duration_s:g} s")
    return facts


def _with_handles(span: ExportSpan, facts: SourceFacts, handles: Handles) -> tuple[float, float]:
    more_s = handles.seconds(facts.timebase.rate)
    return max(0.0, span.start_s - more_s), span.end_s + more_s


def _opened(path: Path) -> av.container.InputContainer:
    try:
        return open_video(path)
    except DecodeError as error:
        raise DataError(f"cannot export {path}: {error.reason}") from error
