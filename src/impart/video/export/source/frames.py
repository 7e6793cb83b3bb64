"""Frames and sound of a span: decoded from the key frame before it, with times on the clock of the index.

The bounds of a span are moved to the nearest frame boundaries, so that at least one frame is in it. Where a seek ends
behind the span, it is repeated from further back, and at last from the start of the file. A transport stream whose
clock jumps (joined parts) is read from its start, since its times say nothing about positions.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Generator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
import av.error
import numpy as np
import numpy.typing as npt

from impart.errors import DataError, DecodeError
from impart.files import file_state
from impart.video.decode.container import open_video
from impart.video.decode.frames.side_data import orientation
from impart.video.decode.scaling import Scaler
from impart.video.decode.streams import choose_stream, latest_end_s, origin_s
from impart.video.decode.structure import TS
from impart.video.decode.timestamps import BACK_S, JUMP_S, Clock, FrameReader, Tally

__all__ = [
    "Samples",
    "ShownFrame",
    "SoundOfSpan",
    "first_sound",
    "frame_image",
    "frames_of_span",
    "has_jumps",
    "scaler_of",
    "shown_frame",
]

Samples = npt.NDArray[np.float32]

SEEK_BACK_S = (1.0, 6.0, 30.0)  # before the span; longer than the distance of key frames
_LOOSE = frozenset({TS, "mpeg", "h264", "hevc"})  # containers whose seeks may end between key frames
_AFTER_S = 1e-3  # rounding of the clocks of files: a frame that begins this much later is shown already
_DRIFT_S = 0.05  # sound that is further from its time is moved there


@dataclass(frozen=True)
class ShownFrame:
    """A decoded frame, shown from `time_s` to `end_s` (seconds after the start of the file).

    It has no reference to its stream, which must not be read once the file is closed.

    Attributes:
        aspect: width of a pixel / its height.
        codec: FFmpeg's canonical name.
        rate: usual frames per second; None = unknown.
    """

    time_s: float
    end_s: float
    frame: av.VideoFrame
    aspect: Fraction
    codec: str
    rate: Fraction | None


def frames_of_span(
    path: Path, start_s: float, end_s: float, *, jumps: bool = False
) -> Generator[ShownFrame, None, None]:
    """Decode the frames of a span, at least one.

    Args:
        jumps: see `has_jumps`.

    Yields:
        Frames in order of presentation.

    Raises:
        DataError: the file cannot be decoded, or has no frame there.
    """
    held: ShownFrame | None = None
    count = 0
    for frame in _frames_from(path, start_s, jumps=jumps):
        if held is not None and _is_in(held, frame.time_s, start_s, end_s, count):
            count += 1
            yield dataclasses.replace(held, end_s=frame.time_s)
        elif count:
            return
        held = frame
    if held is not None and (not count or _is_in(held, held.end_s, start_s, end_s, count)):
        count += 1
        yield held
    if not count:
        raise DataError(f"{path} has no frame at {start_s:g} s")


def _is_in(held: ShownFrame, next_s: float, start_s: float, end_s: float, count: int) -> bool:
    """Whether the nearest boundary of the span's start is before, and that of its end behind, a frame."""
    middle = (held.time_s + next_s) / 2
    return start_s < middle if not count else end_s > middle


def frame_image(path: Path, time_s: float, *, short_side_px: int, jumps: bool = False) -> npt.NDArray[np.uint8]:
    """Decode the frame shown at a time as an upright SDR image, uint8 (h, w, 3) RGB, min(h, w) = short_side_px.

    Raises:
        DataError: the file cannot be decoded, or has no frame there.
    """
    shown = shown_frame(path, time_s, jumps=jumps)
    return scaler_of(shown, short_side_px=short_side_px).image(shown.frame)


def shown_frame(path: Path, time_s: float, *, jumps: bool = False) -> ShownFrame:
    """Decode the frame shown at a time; behind the end it is the last one.

    Frames before it that no other frame refers to are not decoded. The end of the frame is not known.

    Raises:
        DataError: the file cannot be decoded, or has no frame there.
    """
    shown: ShownFrame | None = None
    with contextlib.closing(_frames_from(path, time_s, jumps=jumps, alone=True)) as frames:
        for frame in frames:
            if shown is not None and frame.time_s > time_s + _AFTER_S:
                break
            shown = frame
    if shown is None:
        raise DataError(f"{path} has no frame at {time_s:g} s")
    return shown


def scaler_of(shown: ShownFrame, *, short_side_px: int) -> Scaler:
    """Make a scaler for the frames of a stream."""
    return Scaler(
        short_side_px,
        aspect=float(shown.aspect),
        orientation=orientation(shown.frame),
        codec=shown.codec,
    )


def has_jumps(path: Path) -> bool:
    """Whether the clock of a transport stream jumps; other containers are taken as steady.

    Raises:
        DataError: the file cannot be read.
    """
    return _has_jumps(path, file_state(path))


@lru_cache(maxsize=4096)
def _has_jumps(path: Path, _state: str) -> bool:
    """Read the times of all packets; kept by the state of the file, since this reads the whole of it."""
    with _opened(path) as container:
        if container.format.name != TS:
            return False
        stream = choose_stream(path, container).stream
        last: float | None = None
        for packet in container.demux(stream):
            if packet.dts is None or not packet.time_base:
                continue
            time_s = float(packet.dts * packet.time_base)
            if last is not None and not -BACK_S <= time_s - last <= JUMP_S:
                return True
            last = time_s
    return False


def _frames_from(path: Path, start_s: float, *, jumps: bool, alone: bool = False) -> Generator[ShownFrame, None, None]:
    """Decode from a frame at or before a time on; `alone`: only the frame of this time must be among them."""
    for back_s in (*((0.0,) if alone else ()), *SEEK_BACK_S, math.inf):
        seek_s = start_s - back_s
        if seek_s > 0 and jumps:
            continue
        early = seek_s <= 0
        for frame in _read(path, None if early else seek_s, wanted_s=start_s if alone else None):
            if not early and (frame.time_s > start_s or (back_s == 0 and frame.frame.is_corrupt)):
                break  # the seek ended behind the span, or at a frame that refers to earlier ones
            early = True
            yield frame
        else:
            if early:
                return


def _read(path: Path, seek_s: float | None, *, wanted_s: float | None) -> Generator[ShownFrame, None, None]:
    with _opened(path) as container:
        stream = choose_stream(path, container).stream
        origin = origin_s(container, stream)
        limit_s = latest_end_s(container, stream)
        if seek_s is not None:
            if wanted_s == seek_s and container.format.name in _LOOSE:
                return
            try:
                container.seek(round((origin + seek_s) * 1e6), backward=True)
            except av.error.FFmpegError:
                return
            limit_s = math.inf  # of the first time after a seek: no jump
        reader = FrameReader(
            path,
            origin_s=origin,
            fps=4,
            limit_s=limit_s,
            tally=Tally(),
            skip_unshown=wanted_s is not None,
            wanted_s=None if wanted_s is None else origin + wanted_s + _AFTER_S,
            sought=seek_s is not None,
        )
        known: tuple[av.VideoStream, Fraction, str, Fraction | None] | None = None
        try:
            for timed in reader.read(container, stream):
                if known is None or known[0] is not timed.stream:
                    known = (timed.stream, *_facts_of(timed.stream))
                time_s = timed.time_s - origin
                yield ShownFrame(time_s, time_s + timed.duration_s, timed.frame, *known[1:])
        except av.error.FFmpegError as error:
            raise DataError(f"{path} cannot be decoded: {error.strerror or error}") from error


def _facts_of(stream: av.VideoStream) -> tuple[Fraction, str, Fraction | None]:
    rate = stream.average_rate or stream.guessed_rate
    return stream.sample_aspect_ratio or Fraction(1), stream.codec_context.codec.canonical_name, rate or None


def _opened(path: Path) -> av.container.InputContainer:
    try:
        return open_video(path)
    except DecodeError as error:
        raise DataError(f"cannot export {path}: {error.reason}") from error


def first_sound(path: Path) -> int:
    """Find the index of the first sound stream that can be decoded.

    Raises:
        DataError: there is none.
    """
    with _opened(path) as container:
        for stream in container.streams.audio:
            if stream.codec_context is not None:
                return int(stream.index)
    raise DataError(f"{path} has no sound")


class SoundOfSpan:
    """Reads one sound stream from a time on, with silence where it has none.

    Args:
        index: of the stream in the file.
        start_s: time of the first sample, in seconds after the start of the file.
        hz, layout: of the samples returned.
        jumps: see `has_jumps`.
    """

    def __init__(self, path: Path, index: int, *, start_s: float, hz: int, layout: str, jumps: bool = False) -> None:
        self._path, self._index, self._start_s, self._hz, self._jumps = path, index, start_s, hz, jumps
        self._layout = layout
        self._channels = av.AudioLayout(layout).nb_channels
        self._buffer: Samples = np.zeros((self._channels, 0), np.float32)
        self._at = 0  # number of the first sample in the buffer, from `start_s`
        self._chunks = self._decoded()

    def __enter__(self) -> SoundOfSpan:
        return self

    def __exit__(self, *_: object) -> None:
        self._chunks.close()

    def take(self, until_s: float) -> Samples:
        """Read the samples from the end of the last call to a time, float32 (channels, samples)."""
        return self.read(max(0, round((until_s - self._start_s) * self._hz) - self._at))

    def read(self, wanted: int) -> Samples:
        """Read the next samples, float32 (channels, wanted)."""
        while self._buffer.shape[1] < wanted:
            chunk = next(self._chunks, None)
            if chunk is None:
                self._append(self._at + wanted, np.zeros((self._channels, 0), np.float32))
            else:
                self._append(*chunk)
        taken, self._buffer = self._buffer[:, :wanted], self._buffer[:, wanted:]
        self._at += wanted
        return taken

    def _append(self, number: int, samples: Samples) -> None:
        end = self._at + self._buffer.shape[1]
        if number < end:
            samples = samples[:, end - number :]
        silence = np.zeros((self._channels, max(0, number - end)), np.float32)
        self._buffer = np.concatenate([self._buffer, silence, samples], axis=1)

    def _decoded(self) -> Generator[tuple[int, Samples], None, None]:
        """Yield the number of the first sample, and samples."""
        with _opened(self._path) as container:
            stream = container.streams[self._index]
            assert isinstance(stream, av.AudioStream)
            origin = origin_s(container, choose_stream(self._path, container).stream)
            limit_s: float | None = latest_end_s(container, choose_stream(self._path, container).stream)
            if not self._jumps and self._start_s > SEEK_BACK_S[0]:
                container.seek(round((origin + self._start_s - SEEK_BACK_S[0]) * 1e6), backward=True)
                limit_s = math.inf
            clock = Clock(origin, limit_s=limit_s)
            resampler = av.AudioResampler(format="fltp", layout=self._layout, rate=self._hz)
            reached: int | None = None
            for frame in _sound_frames(container, stream):
                length_s = frame.samples / (frame.sample_rate or self._hz)
                raw_s = clock.last_s - clock.shift_s if frame.time is None else frame.time
                time_s = clock.at(raw_s, expected_s=clock.last_s + length_s) - origin
                number = round((time_s - self._start_s) * self._hz)
                if reached is None or abs(number - reached) > _DRIFT_S * self._hz:
                    reached = number
                for piece in resampler.resample(frame):
                    samples = piece.to_ndarray().reshape(self._channels, -1)
                    yield reached, samples
                    reached += samples.shape[1]


def _sound_frames(
    container: av.container.InputContainer, stream: av.AudioStream
) -> Generator[av.AudioFrame, None, None]:
    """Decode sound; damaged packets are skipped, which leaves silence."""
    for packet in container.demux(stream):
        try:
            yield from packet.decode()
        except av.error.FFmpegError:
            continue
