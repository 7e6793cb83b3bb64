"""Timestamps: decoded frames of a stream, in the order and at the times at which they are shown.

- **Time** comes from presentation timestamps alone. A missing one is computed from the decoding time or the frame rate.
  A broadcast stream whose clock jumps is joined at the jump. FFmpeg applies edit lists.
- **Skipping**: at 4 samples per second most frames are not needed. A frame is not decoded where no other frame refers
  to it (mostly B frames) and no grid time shows it. This is read from the timestamps of the packets, so the frames that
  are shown are the same to the last bit.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import av
import av.error

from impart.video.decode.container import is_read_error

__all__ = ["Tally", "TimedFrame", "first_sample", "timed_frames"]

EPS_S = 1e-5  # rounding of 90 kHz and microsecond clocks
WINDOW = 20  # packets read ahead; H.264 reorders at most 16
SKIP_SAFE = frozenset({"h264", "mpeg4", "mpeg2video", "mpeg1video"})  # "not a reference" is exact there
CLOCK_JUMPS = frozenset({"mpegts", "mpeg", "mpegvideo"})  # containers whose clock may restart
JUMP_S = 10.0
LAST_FRAME_S = 60.0  # limit for the duration of the last frame
READ_TRIES = 16


@dataclass
class Tally:
    """Damage found while decoding, for `DecodeFinished.problem`.

    Attributes:
        damaged: packets that could not be decoded and were skipped.
        reason: FFmpeg's message for the last of them.
        gave_up: why reading stopped before the end of the file, or "".
        read_error: message of a read error of the disk, or "". Reading may have continued behind it.
    """

    damaged: int = 0
    reason: str = ""
    gave_up: str = ""
    read_error: str = ""


@dataclass(frozen=True)
class TimedFrame:
    """A decoded frame, its time on the file's clock, and its duration if no frame follows."""

    time_s: float
    duration_s: float
    frame: av.VideoFrame


def first_sample(time_s: float, *, fps: float) -> int:
    """Find the number n of the first grid time (n / fps) at or after `time_s`.

    >>> first_sample(0.0, fps=4), first_sample(0.26, fps=4), first_sample(0.5, fps=4)
    (0, 2, 2)
    """
    return math.ceil((time_s - EPS_S) * fps)


def timed_frames(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    *,
    origin_s: float,
    fps: float,
    limit_s: float | None,
    tally: Tally,
    skip_unshown: bool = True,
) -> Iterator[TimedFrame]:
    """Decode one stream.

    Args:
        origin_s: grid time 0 on the file's clock.
        fps: grid times per second.
        limit_s: the declared end of the container, on the file's clock; later timestamps are treated as clock jumps.
        tally: receives the damage found.
        skip_unshown: skip frames that no grid time shows and no other frame refers to.

    Yields:
        Frames with non-decreasing times.
    """
    base = float(stream.time_base or 0) or 1e-3
    rate = stream.average_rate or stream.guessed_rate
    usual_s = float(1 / rate) if rate else 1 / fps
    jumps = container.format.name in CLOCK_JUMPS
    shift_s, last_s = 0.0, -math.inf
    for frame in _decoded(container, stream, origin_s=origin_s, fps=fps, tally=tally, skip_unshown=skip_unshown):
        ticks = frame.pts if frame.pts is not None else frame.dts
        duration_s = frame.duration * base if frame.duration and frame.duration > 0 else usual_s
        if ticks is None:
            time_s = last_s + usual_s if math.isfinite(last_s) else origin_s
        else:
            time_s = ticks * base + shift_s
            too_far = time_s > last_s + JUMP_S and (jumps or (limit_s is not None and time_s > limit_s + 60))
            if math.isfinite(last_s) and (time_s < last_s - 1 or too_far):
                shift_s += last_s + usual_s - time_s
                time_s = last_s + usual_s
        last_s = max(last_s, time_s)
        yield TimedFrame(last_s, min(duration_s, LAST_FRAME_S), frame)


def _decoded(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    *,
    origin_s: float,
    fps: float,
    tally: Tally,
    skip_unshown: bool,
) -> Iterator[av.VideoFrame]:
    codec = stream.codec_context
    base = float(stream.time_base or 0)
    packets = _packets(container, stream, tally=tally)
    whole = codec.codec.intra_only and skip_unshown
    plan: Iterator[tuple[av.Packet | None, bool]]
    if base and skip_unshown and (whole or codec.name in SKIP_SAFE):
        plan = _planned(packets, base=base, origin_s=origin_s, fps=fps)
    else:
        plan = ((packet, True) for packet in packets)
    skipping = False
    for packet, shown in plan:
        if not shown and whole:
            continue
        if skipping == shown:
            skipping = not shown
            codec.skip_frame = "NONREF" if skipping else "DEFAULT"
        try:
            frames = codec.decode(packet)
        except av.error.MemoryError:
            raise
        except av.error.FFmpegError as error:
            tally.damaged += 1
            tally.reason = error.strerror or str(error)
            continue
        yield from frames


def _planned(
    packets: Iterator[av.Packet | None], *, base: float, origin_s: float, fps: float
) -> Iterator[tuple[av.Packet | None, bool]]:
    """Yield packets, each with whether a grid time may show its frame.

    A frame is shown from its own timestamp to the next one in order of presentation. That next one is at most `WINDOW`
    packets behind or ahead in order of decoding, so the result is exact. Where a timestamp is missing or doubled, the
    frame is taken as shown.
    """
    window: deque[av.Packet | None] = deque()
    past: deque[int | None] = deque(maxlen=WINDOW)
    count = 0

    def shown(packet: av.Packet | None) -> bool:
        if packet is None or count <= WINDOW or packet.pts is None:
            return True
        pts = packet.pts
        near = [*past, *(other.pts for other in window if other is not None)]
        if None in near:
            return True
        after = [other for other in near if other is not None and other > pts]
        if not after or near.count(pts):
            return True
        begin = first_sample(pts * base - origin_s, fps=fps)
        return begin < first_sample(min(after) * base - origin_s, fps=fps)

    for packet in packets:
        window.append(packet)
        if len(window) > WINDOW:
            head = window.popleft()
            count += 1
            yield head, shown(head)
            past.append(head.pts if head is not None else None)
    while window:
        head = window.popleft()
        yield head, True


def _packets(
    container: av.container.InputContainer, stream: av.VideoStream, *, tally: Tally
) -> Iterator[av.Packet | None]:
    """Yield the packets of the stream, then None (drain the decoder); reading continues after a few errors."""
    for _ in range(READ_TRIES):
        try:
            for packet in container.demux(stream):
                if packet.size:
                    yield packet
        except av.error.FFmpegError as error:
            tally.gave_up = error.strerror or str(error)
            if is_read_error(error):
                tally.read_error = tally.gave_up
        except IndexError:  # PyAV, at the end of a file in which damage made streams appear: all packets were read
            tally.gave_up = ""
            break
        else:
            tally.gave_up = ""
            break
    yield None
