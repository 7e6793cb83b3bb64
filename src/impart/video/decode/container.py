"""Video files: open one, choose its video stream, read what it declares, and name the reason where that fails."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

import av
import av.error
from av.stream import Disposition

from impart.errors import DecodeError
from impart.video.decode.content import content_of
from impart.video.decode.frames.animated_webp import as_video

__all__ = [
    "VideoInfo",
    "decoder_threads",
    "declared_end_s",
    "failure",
    "is_read_error",
    "open_video",
    "origin_s",
    "size_in_words",
    "video_info",
    "video_stream",
]

OPTIONS = {"protocol_whitelist": "file"}  # a playlist named .mp4 opens no network connection
HUGE_PX = 4096 * 2304  # frames above this are decoded by two threads at most: each holds several frames


_READ_ERRORS = frozenset(
    getattr(errno, name)
    for name in """
    EACCES EBUSY ECONNABORTED ECONNRESET EHOSTDOWN EHOSTUNREACH EINTR EIO EMFILE ENETDOWN ENETUNREACH ENFILE ENODEV
    ENOENT ENOMEDIUM ENOTCONN ENXIO EPERM EREMOTEIO ESTALE ETIMEDOUT
    """.split()
    if hasattr(errno, name)  # not every system has all of them
)


@dataclass(frozen=True)
class VideoInfo:
    """Properties of a video file; `width` and `height` are as shown (upright)."""

    duration_s: float
    width: int
    height: int
    codec: str
    container: str
    fps: float
    rotation_deg: int = 0


def open_video(path: Path) -> av.container.InputContainer:
    """Open a video file.

    Raises:
        DecodeError: it cannot be read, or is not a video; names the reason.
    """
    try:
        if path.is_file():
            content = content_of(path)  # FFmpeg's own messages for these are less clear
        elif path.exists():
            raise failure(path, "is not a file")
        else:
            raise failure(path, "no such file", lasting=False)
    except PermissionError as error:
        raise failure(path, "permission denied", lasting=False) from error
    except OSError as error:
        raise failure(path, f"cannot be read: {error.strerror or error}", lasting=not is_read_error(error)) from error
    if content == "empty":
        raise failure(path, "the file is empty")
    if content == "heif photo":  # FFmpeg would give one of its tiles
        raise failure(path, "a photo (HEIC or AVIF), not a video")
    if content == "animated webp":
        return _open_webp(path)
    try:
        # An absolute path: "a:b.mp4" is a file, not a protocol.
        return av.open(os.path.abspath(path), metadata_errors="replace", options=OPTIONS)  # noqa: PTH100
    except av.error.FFmpegError as error:
        try:
            if is_read_error(error):
                raise error
            lacks_index = _lacks_index(path)
        except OSError as read_error:
            reason = f"cannot be read: {read_error.strerror or read_error}"
            raise failure(path, reason, lasting=False) from read_error
        if lacks_index:
            reason = "truncated: the file ends before its index (moov atom); copy or download it again"
        elif isinstance(error, av.error.InvalidDataError | av.error.EOFError):
            reason = "not a video, or damaged from its first bytes on"
        else:
            reason = f"cannot be opened: {error.strerror or error}"
        raise failure(path, reason) from error


def _open_webp(path: Path) -> av.container.InputContainer:
    try:
        return av.open(as_video(path))
    except (OSError, SyntaxError, ValueError) as error:  # as Pillow and FFmpeg raise them
        raise failure(path, f"cannot be decoded: {error}") from error


def _lacks_index(path: Path) -> bool:
    """Whether an ISO media file (mp4, mov) has no complete `moov` box."""
    with path.open("rb") as file:
        at, size = 0, path.stat().st_size
        first = True
        while at + 8 <= size:
            file.seek(at)
            head = file.read(16)
            length, kind = int.from_bytes(head[:4], "big"), head[4:8]
            if first and kind not in (b"ftyp", b"wide", b"mdat", b"free", b"skip", b"moov"):
                return False
            first = False
            if kind == b"moov":
                return at + length > size
            if length == 1 and len(head) == 16:
                length = int.from_bytes(head[8:], "big")
            if length < 8:
                return True
            at += length
    return not first


def video_stream(path: Path, container: av.container.InputContainer) -> av.VideoStream:
    """Choose the video stream of a file; cover art is not one.

    Raises:
        DecodeError: there is none, or its codec is unknown.
    """
    if container.format.name == "tty":
        raise failure(path, "a text file, not a video")
    videos = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not videos:
        kinds = {s.type for s in container.streams if s.type != "video"}
        if "audio" in kinds:
            raise failure(path, "has sound but no image")
        raise failure(path, "has no video stream")
    best = container.streams.best("video")
    stream = best if best in videos else videos[0]
    if stream.codec_context is None:
        usable = [s for s in videos if s.codec_context is not None]
        if not usable:
            raise failure(path, "its video codec is not one this FFmpeg can decode (or the file is encrypted)")
        stream = usable[0]
    return stream


def decoder_threads(stream: av.VideoStream, *, wanted: int) -> int:
    """Choose the decoder's threads: half the cores by default, since the encoder works at the same time."""
    threads = wanted or max(1, min(8, (os.cpu_count() or 2) // 2))
    huge = stream.codec_context.width * stream.codec_context.height > HUGE_PX
    return min(threads, 2) if huge else threads


def origin_s(container: av.container.InputContainer, stream: av.VideoStream) -> float:
    """Read the start of the container on the file's clock, in seconds."""
    if container.start_time is not None:
        return float(container.start_time) / 1e6
    if stream.start_time is not None and stream.time_base:
        return float(stream.start_time * stream.time_base)
    return 0.0


def declared_end_s(container: av.container.InputContainer, stream: av.VideoStream, *, start_s: float) -> float | None:
    """Read the declared end of the video stream, in seconds after the container's start; None = not declared."""
    if stream.duration and stream.time_base:
        end_s: float = ((stream.start_time or 0) + stream.duration) * float(stream.time_base)
        return end_s - start_s
    tag = stream.metadata.get("DURATION", "")  # Matroska: 00:01:02.345000000
    parts = tag.split(":")
    if len(parts) == 3 and all(part.replace(".", "", 1).isdigit() for part in parts):
        hours, minutes, seconds = (float(part) for part in parts)
        return hours * 3600 + minutes * 60 + seconds
    if container.duration and all(s.type == "video" for s in container.streams):
        return float(container.duration) / 1e6
    return None


def video_info(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    *,
    turn: tuple[bool, bool, bool],
    duration_s: float,
) -> VideoInfo:
    """Collect the properties of a file.

    Args:
        turn: see `impart.video.decode.frames.side_data.orientation`.
        duration_s: end of the last frame.
    """
    rate = stream.average_rate or stream.guessed_rate
    width, height = stream.codec_context.width, stream.codec_context.height
    transpose, left_right, top_bottom = turn
    rotation = (90 if left_right else 270) if transpose else (180 if left_right and top_bottom else 0)
    return VideoInfo(
        duration_s=duration_s,
        width=height if transpose else width,
        height=width if transpose else height,
        codec=stream.codec_context.codec.canonical_name,
        container=container.format.name,
        fps=float(rate) if rate else 0.0,
        rotation_deg=rotation,
    )


def size_in_words(stream: av.VideoStream) -> str:
    """Format the size of the frames."""
    return f"{stream.codec_context.width}x{stream.codec_context.height} pixels"


def is_read_error(error: BaseException) -> bool:
    """Whether an error of Python or FFmpeg means that a file could not be read, whatever it contains."""
    return isinstance(error, OSError) and error.errno in _READ_ERRORS


def failure(path: Path, reason: str, *, lasting: bool = True) -> DecodeError:
    """Make the error of a file that cannot be decoded; see `DecodeError` for `lasting`."""
    return DecodeError(f"cannot decode {path}: {reason}", reason=reason, lasting=lasting)
