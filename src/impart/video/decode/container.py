"""Video files: open one, collect its properties, and name the reason where that fails."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import av
import av.error

from impart.errors import DataError, DecodeError
from impart.video.decode.content import content_of
from impart.video.decode.structure import lacks_index

__all__ = [
    "VideoInfo",
    "failure",
    "is_read_error",
    "open_video",
    "size_in_words",
    "video_info",
]

_TIMES = ("com.apple.quicktime.creationdate", "creation_time", "date")  # the first has the offset from UTC
_PIECE_BYTES, _TESTED_BYTES = 1 << 20, 1 << 28
_ZEROS_END = datetime(1970, 1, 3)  # clocks count from 1904 or 1970

OPTIONS = {"protocol_whitelist": "file"}  # a playlist named .mp4 opens no network connection


_READ_ERROR_NAMES = """
    EACCES EBUSY ECONNABORTED ECONNRESET EHOSTDOWN EHOSTUNREACH EINTR EIO EMFILE ENETDOWN ENETUNREACH ENFILE ENODEV
    ENOENT ENOMEDIUM ENOTCONN ENXIO EPERM EREMOTEIO ESTALE ETIMEDOUT
"""
_READ_ERRORS = {getattr(errno, name, None) for name in _READ_ERROR_NAMES.split()}  # no system has all of them


_OF_DAMAGE = (errno.EIO, errno.EPERM)  # where the disk can be read


@dataclass(frozen=True)
class VideoInfo:
    """Properties of a file; `width` and `height` are as shown (upright).

    Attributes:
        kind: a `photo` has neither a duration nor a rate.
        recorded_at: Unix time (s) at which it was recorded; None = unknown.
    """

    duration_s: float
    width: int
    height: int
    codec: str
    container: str
    fps: float
    rotation_deg: int = 0
    kind: Literal["video", "photo"] = "video"
    recorded_at: float | None = None


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
        return _open(path)
    except av.error.FFmpegError as error:
        try:
            if is_read_error(error) and error.errno not in _OF_DAMAGE:
                raise error
            without_index = lacks_index(path)
        except OSError as read_error:
            reason = f"cannot be read: {read_error.strerror or read_error}"
            raise failure(path, reason, lasting=False) from read_error
        if without_index:
            reason = "truncated: the file ends before its index (moov atom); copy or download it again"
        elif isinstance(error, av.error.InvalidDataError | av.error.EOFError) or error.errno in _OF_DAMAGE:
            reason = "not a video, or damaged from its first bytes on"
        else:
            reason = f"cannot be opened: {error.strerror or error}"
        raise failure(path, reason) from error
    except OSError as error:
        raise failure(path, f"cannot be read: {error.strerror or error}", lasting=False) from error


def _open(path: Path) -> av.container.InputContainer:
    """Open a file with FFmpeg, which reports some damage as an error of the disk: then the disk is tested.

    Raises:
        FFmpegError: it is not a video, or damaged.
        OSError: it cannot be read.
    """
    # An absolute path: "a:b.mp4" is a file, not a protocol.
    absolute = os.path.abspath(path)  # noqa: PTH100
    try:
        return av.open(absolute, metadata_errors="replace", options=OPTIONS)
    except av.error.FFmpegError as error:
        if error.errno not in _OF_DAMAGE:
            raise
    with path.open("rb") as file:
        while file.tell() < _TESTED_BYTES and file.read(_PIECE_BYTES):
            pass
    return av.open(absolute, metadata_errors="replace", options=OPTIONS)


def _open_webp(path: Path) -> av.container.InputContainer:
    from impart.video.decode.frames.animated_webp import as_video  # Pillow: rarely needed, and it takes time

    try:
        return av.open(as_video(path))
    except DataError as error:
        raise failure(path, f"cannot be decoded: {error.__cause__ or error}") from error
    except (OSError, SyntaxError, ValueError, RuntimeError) as error:  # as Pillow and FFmpeg raise them
        raise failure(path, f"cannot be decoded: {error}") from error


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
        recorded_at=_recorded_at(container, stream),
    )


def _recorded_at(container: av.container.InputContainer, stream: av.VideoStream) -> float | None:
    """Read the time at which a video was recorded; the zero of a clock that was not set is unknown."""
    for tags in (container.metadata, stream.metadata):
        for name in _TIMES:
            try:
                clock = datetime.fromisoformat(tags.get(name, "").strip())
                if clock.replace(tzinfo=None) > _ZEROS_END:
                    return clock.timestamp()  # without an offset, it is local time
            except (ValueError, OverflowError, OSError):
                continue
    return None


def size_in_words(stream: av.VideoStream) -> str:
    """Format the size of the frames."""
    return f"{stream.codec_context.width}x{stream.codec_context.height} pixels"


def is_read_error(error: BaseException) -> bool:
    """Whether an error of Python or FFmpeg means that a file could not be read, whatever it contains."""
    return isinstance(error, OSError) and error.errno is not None and error.errno in _READ_ERRORS


def failure(path: Path, reason: str, *, lasting: bool = True) -> DecodeError:
    """Make the error of a file that cannot be decoded; see `DecodeError` for `lasting`."""
    return DecodeError(f"cannot decode {path}: {reason}", reason=reason, lasting=lasting)
