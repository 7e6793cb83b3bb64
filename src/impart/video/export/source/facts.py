"""Facts of a source file that an export needs: its rate, start time code, length, size and sound."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.error
import numpy as np
from av.sidedata.sidedata import Type

from impart.errors import DataError, DecodeError
from impart.video.decode.container import open_video
from impart.video.decode.frames.side_data import orientation, side_data
from impart.video.decode.streams import choose_stream, container_end_s, origin_s
from impart.video.export.source.timecode import Timebase, can_drop, timecode_rate

__all__ = ["SourceFacts", "read_facts"]

_TIMECODE = re.compile(r"\d+:\d\d:\d\d[:;.,]\d\d")


@dataclass(frozen=True, kw_only=True)
class SourceFacts:
    """Facts of a video file.

    Attributes:
        timebase: rate and way of counting of its time code.
        steady: whether its frames have this rate; False for variable and odd rates, whose frames are found by time.
        start_frame: number of the first frame in its time code; 0 where it has none.
        has_timecode: whether the file has a time code of its own.
        first_s: time of the first frame, in seconds after the start of the file.
        duration_s: end of the last frame, in seconds after the start of the file.
            width, height: of the stored frames.
        aspect: width of a pixel / its height.
        matrix: display matrix that turns or mirrors them, or None; `turned`: it turns them by 90 degrees.
        sound_channels: of the first sound stream; 0 = no sound.
        sound_hz: its samples per second.
    """

    path: Path
    timebase: Timebase
    steady: bool
    start_frame: int
    has_timecode: bool
    first_s: float
    duration_s: float
    width: int
    height: int
    aspect: float
    turned: bool
    matrix: tuple[int, ...] | None
    sound_channels: int
    sound_hz: int

    @property
    def frames(self) -> int:
        """Number of frames, counted at the rate of the time base; at least 1."""
        return max(1, round((self.duration_s - self.first_s) * self.timebase.rate))

    @property
    def shown_size(self) -> tuple[int, int]:
        """Width and height as shown, in square pixels."""
        width = max(1, round(self.width * self.aspect))
        return (self.height, width) if self.turned else (width, self.height)

    def frame_at(self, time_s: float) -> int:
        """Find the frame boundary nearest to a time: a number from 0, the first frame, to `frames`."""
        return min(max(round((time_s - self.first_s) * self.timebase.rate), 0), self.frames)

    def bounds(self, start_s: float, end_s: float, *, handles_s: float = 0.0) -> tuple[int, int]:
        """Find the frames [first, end) of a span with handles, at least one, within the file."""
        first = min(self.frame_at(start_s - handles_s), self.frames - 1)
        return first, max(first + 1, self.frame_at(end_s + handles_s))

    def timecode_at(self, frame: int) -> str:
        """Format the time code of a frame, counted from the first one."""
        return self.timebase.text(self.start_frame + frame)


def read_facts(path: Path) -> SourceFacts:
    """Read the facts of a video file; only its first frame is decoded.

    Raises:
        DataError: it is gone, or no video.

    Example:
        >>> from impart.errors import DataError
        >>> try:
        ...     read_facts(Path("gone.mp4"))
        ... except DataError as error:
        ...     print(error)
        cannot export gone.mp4: no such file
    """
    try:
        with open_video(path) as container:
            stream = choose_stream(path, container).stream
            return _facts(path, container, stream)
    except DecodeError as error:
        raise DataError(f"cannot export {path}: {error.reason}") from error
    except av.error.FFmpegError as error:
        raise DataError(f"cannot export {path}: cannot be read: {error.strerror or error}") from error


def _facts(path: Path, container: av.container.InputContainer, stream: av.VideoStream) -> SourceFacts:
    origin = origin_s(container, stream)
    rate = timecode_rate(stream.average_rate, stream.base_rate)
    own = _timecode_of(container, stream)
    timebase, start_frame = Timebase(rate, can_drop(rate)), 0
    if own is not None:
        timebase = Timebase(rate, can_drop(rate) and own[-3] != ":")
        try:
            start_frame = timebase.frame(own)
        except ValueError:  # it counts at another rate than the frames have
            own = None
    base = float(stream.time_base or 0)
    first_s = stream.start_time * base - origin if stream.start_time is not None and base else 0.0
    end_s = _own_end_s(stream) or container_end_s(container, stream)
    if end_s is None:
        end_s = origin + float(container.duration or 0) / 1e6
    sound = next((one for one in container.streams.audio if one.codec_context is not None), None)
    codec = stream.codec_context
    turned, matrix = _turn(container, stream)
    average = stream.average_rate or stream.guessed_rate
    return SourceFacts(
        path=path,
        timebase=timebase,
        steady=bool(average) and abs(Fraction(average or 1) / rate - 1) < 1e-5 and _one_rate(stream),
        start_frame=start_frame,
        has_timecode=own is not None,
        first_s=max(first_s, 0.0),
        duration_s=max(end_s - origin, first_s + 1 / float(rate)),
        width=codec.width,
        height=codec.height,
        aspect=float(stream.sample_aspect_ratio or 1),
        turned=turned,
        matrix=matrix,
        sound_channels=sound.codec_context.channels if sound is not None else 0,
        sound_hz=sound.codec_context.sample_rate if sound is not None else 0,
    )


def _one_rate(stream: av.VideoStream) -> bool:
    """Whether the smallest rate that fits all times, as FFmpeg guesses it, is the average one."""
    return not stream.base_rate or not stream.average_rate or abs(stream.base_rate / stream.average_rate - 1) < 1e-3


def _timecode_of(container: av.container.InputContainer, stream: av.VideoStream) -> str | None:
    """Read the start time code: of a tmcd track, an MXF or a broadcast stream."""
    own = [stream.metadata, *(one.metadata for one in container.streams if one.type == "data"), container.metadata]
    for metadata in own:
        text = str(metadata.get("timecode", ""))
        if _TIMECODE.fullmatch(text):
            return text
    return None


def _own_end_s(stream: av.VideoStream) -> float | None:
    """Read the end of the video on the file's clock: sound may go on behind the last frame; None = not declared."""
    start = stream.start_time or 0
    if stream.duration and stream.time_base:
        return float((start + stream.duration) * stream.time_base)
    parts = stream.metadata.get("DURATION", "").split(":")  # Matroska: the end, as 00:01:02.345000000
    try:
        hours, minutes, seconds = map(float, parts)
    except ValueError:
        return None
    return (hours * 60 + minutes) * 60 + seconds


def _turn(container: av.container.InputContainer, stream: av.VideoStream) -> tuple[bool, tuple[int, ...] | None]:
    """Read from the first frame whether it is turned by 90 degrees, and its display matrix."""
    try:
        frame = next(iter(container.decode(stream)), None)
    except av.error.FFmpegError:
        return False, None
    if frame is None:
        return False, None
    return orientation(frame)[0], display_matrix(frame)


def display_matrix(frame: av.VideoFrame) -> tuple[int, ...] | None:
    """Read the nine numbers of a frame's display matrix; None = it has none."""
    data = next((item for item in side_data(frame) if item.type == Type.DISPLAYMATRIX), None)
    return None if data is None else tuple(int(value) for value in np.frombuffer(bytes(data), np.int32))
