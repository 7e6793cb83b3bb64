"""Streams of a video file: choose the one to decode, count the others, and read when they end."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import av
from av.stream import Discard, Disposition

from impart.video.decode.container import failure
from impart.video.decode.structure import AVI, ISO, TS, is_encrypted_iso, is_scrambled

__all__ = [
    "ENCRYPTED",
    "NO_VIDEO",
    "Choice",
    "beside",
    "choose_stream",
    "container_end_s",
    "latest_end_s",
    "origin_s",
    "prepare",
    "why_undecodable",
]

LARGE_PX = 1280 * 720  # frames from here on take longer to decode than to encode
HUGE_PX = 4096 * 2304  # frames above this are decoded by two threads at most: each holds several frames
UNFILTERED = 4  # frames so many times as large as the image are decoded without the loop filter of B frames
NO_VIDEO = frozenset({"has sound but no image", "has no video stream"})
"""Reasons of files that are no failures: they contain no video."""
ENCRYPTED = "encrypted (DRM or a pay channel): it cannot be decoded without its key"

_STILLS = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image | Disposition.dependent
_STILL_CODECS = frozenset({"mjpeg", "png", "bmp", "gif", "webp", "tiff"})
_ESTIMATED = frozenset(
    {"mpegts", "mpeg", "nut", "ogg", "gif"}
)  # FFmpeg reads the last timestamp there: nothing is declared
_ENDS = frozenset({"matroska,webm", "flv", "asf"})  # their duration is the time of the end, not the length
_LOOP_FILTERED = frozenset({"h264", "hevc"})
_ASF_KEYS = frozenset({"ASF_Protection_Type", "ASF_Key_ID"})


@dataclass(frozen=True)
class Choice:
    """The stream to decode, and how many other video streams there are.

    Attributes:
        further: video streams left out; cover art and thumbnail tracks do not count.
        notes: on the choice, for the run's output.
    """

    stream: av.VideoStream
    further: tuple[av.VideoStream, ...] = ()
    notes: tuple[str, ...] = ()


def choose_stream(path: Path, container: av.container.InputContainer, *, number: int = 0) -> Choice:
    """Choose the video stream of a file; cover art is not one.

    Args:
        number: of the video stream, from 1 in the file's order; 0 = the best one by FFmpeg's rule. A file with fewer
            streams is decoded at the best one, with a note.

    Raises:
        DecodeError: there is none, it is encrypted, or its codec is unknown.
    """
    if container.format.name == "tty":
        raise failure(path, "a text file, not a video")
    videos = [s for s in container.streams.video if not s.disposition & _STILLS]
    if not videos:
        kinds = {s.type for s in container.streams if s.type != "video"}
        raise failure(path, "has sound but no image" if "audio" in kinds else "has no video stream")
    if _is_encrypted(path, container):
        raise failure(path, ENCRYPTED)
    films = [s for s in videos if not _is_still(container, s)] or videos
    usable = [s for s in films if s.codec_context is not None]
    if not usable:
        raise failure(path, "its video codec is not one this FFmpeg can decode")
    best = container.streams.best("video")
    stream = best if best in usable else usable[0]
    notes: tuple[str, ...] = ()
    if 0 < number <= len(films) and films[number - 1] in usable:
        stream = films[number - 1]
    elif number:
        count = f"{len(films)} video stream" + ("" if len(films) == 1 else "s")
        notes = (f"has {count}: stream {number} was asked for, the best one is taken",)
    return Choice(stream, tuple(s for s in films if s.index != stream.index), notes)


def _is_encrypted(path: Path, container: av.container.InputContainer) -> bool:
    """Test whether the container declares that its video is encrypted."""
    if container.format.name == ISO:
        return is_encrypted_iso(path)
    keys = [s.metadata.get("enc_key_id") for s in container.streams.video]  # of Matroska and WebM
    return (bool(keys) and all(keys)) or bool(_ASF_KEYS & container.metadata.keys())


def why_undecodable(path: Path, container: av.container.InputContainer, stream: av.VideoStream) -> str | None:
    """Find a better reason than FFmpeg's for a stream of which no frame can be decoded."""
    if container.format.name == TS and is_scrambled(path, pid=stream.id):
        return ENCRYPTED
    return None


def prepare(
    container: av.container.InputContainer, stream: av.VideoStream, *, threads: int, shrunk_px: int | None = None
) -> None:
    """Set the decoder's threads, and leave out the streams that are not read.

    Args:
        threads: 0 = half the cores, since the encoder works at the same time; twice the cores for large frames, which
            take longer to decode than to encode. A thread often waits for rows of the frame that its own refers to.
        shrunk_px: short side to which frames are made smaller. Where they are much larger, the loop filter of B frames
            is left out; None = never.
    """
    codec = stream.codec_context
    size_px, cores = codec.width * codec.height, os.cpu_count() or 2
    wanted = threads or max(1, min(8, 2 * cores if size_px >= LARGE_PX else cores // 2))
    stream.thread_type = "AUTO"
    codec.thread_count = min(wanted, 2) if size_px > HUGE_PX else wanted
    shrinks = shrunk_px is not None and min(codec.width, codec.height) >= UNFILTERED * shrunk_px
    if shrinks and codec.name in _LOOP_FILTERED and not codec.is_open:
        codec.options = {**codec.options, "skip_loop_filter": "bidir"}
    kept = {stream.index, *(other.index for other in beside(container))}
    for other in container.streams:
        if other.index not in kept:
            other.discard = Discard.all


def beside(container: av.container.InputContainer) -> list[av.stream.Stream]:
    """List the streams that are read for their times.

    The last frame lasts to the end of the sound; MP4 declares that end. Another video stream of a transport stream may
    continue the decoded one.
    """
    kinds = {ISO: (), TS: ("audio", "video")}.get(container.format.name, ("audio",))
    return [stream for stream in container.streams if stream.type in kinds]


def origin_s(container: av.container.InputContainer, stream: av.VideoStream) -> float:
    """Read the start of the container on the file's clock, in seconds."""
    if container.start_time is not None:
        return float(container.start_time) / 1e6
    if stream.start_time is not None and stream.time_base:
        return float(stream.start_time * stream.time_base)
    return 0.0


def container_end_s(container: av.container.InputContainer, stream: av.VideoStream) -> float | None:
    """Read the declared end of the whole container, on the file's clock; None = not declared.

    The end of the video stream alone is not what counts: its last frame is shown while the sound continues.
    """
    if container.format.name in _ESTIMATED:
        return None
    ends = [end for end in (_end_s(s) for s in container.streams if s.type in ("video", "audio")) if end is not None]
    if container.format.name == AVI and stream.frames and stream.time_base:
        ends.append(float(stream.frames * stream.time_base))  # FFmpeg shortens the durations of a file that is cut
    if container.duration and container.format.name in _ENDS:
        duration_s = float(container.duration) / 1e6
        return duration_s if container.duration > (container.start_time or 0) else _header_end_s(container)
    if ends:
        return max(ends)
    return _header_end_s(container)


def latest_end_s(container: av.container.InputContainer, stream: av.VideoStream) -> float | None:
    """Compute the latest time that the declared durations allow: later timestamps are clock jumps. None = any."""
    end_s, header_s = container_end_s(container, stream), _header_end_s(container)
    return end_s if end_s is None or header_s is None else max(end_s, header_s)


def _header_end_s(container: av.container.InputContainer) -> float | None:
    if not container.duration:
        return None
    ticks: int = (container.start_time or 0) + container.duration
    return ticks / 1e6


def _end_s(stream: av.stream.Stream) -> float | None:
    if not stream.duration or not stream.time_base or stream.disposition & _STILLS:
        return None
    return float(((stream.start_time or 0) + stream.duration) * stream.time_base)


def _is_still(container: av.container.InputContainer, stream: av.VideoStream) -> bool:
    """Test whether a stream is one still image, such as the unmarked thumbnail track of some cameras."""
    if stream.frames == 1:
        return True
    if stream.codec_context is None or stream.codec_context.name not in _STILL_CODECS:
        return False
    own_s = _end_s(stream)
    if own_s is None:
        parts = stream.metadata.get("DURATION", "").split(":")  # Matroska: 00:01:02.345000000
        own_s = float(parts[-1]) if len(parts) == 3 and parts[:2] == ["00", "00"] else None
    return own_s is not None and own_s < min(1.0, (container.duration or 0) / 2e6)
