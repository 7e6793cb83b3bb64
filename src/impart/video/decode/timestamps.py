"""From a file to decoded frames in the order and at the times they are shown.

Two things happen here that are easy to get wrong:

- **Time** comes from presentation timestamps alone. A missing one is filled in from the decoding time or the frame
  rate; a broadcast stream whose clock jumps is joined at the jump; edit lists are FFmpeg's business and arrive applied.
- **Decoding less**: at 4 samples a second most frames are never looked at. A frame that no other frame refers to (B
  frames, mostly) and that no grid time shows is not decoded. Which ones these are is read from the packets' own
  timestamps, so the frames that are shown are the same to the last bit, only sooner.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import av
import av.error

__all__ = ["Tally", "TimedFrame", "first_sample", "timed_frames"]

EPS_S = 1e-5  # rounding of 90 kHz and microsecond clocks
WINDOW = 20  # packets looked ahead; H.264 reorders at most 16
SKIP_SAFE = frozenset({"h264", "mpeg4", "mpeg2video", "mpeg1video"})  # "not a reference" is exact there
CLOCK_JUMPS = frozenset({"mpegts", "mpeg", "mpegvideo"})  # containers whose clock may restart
JUMP_S = 10.0
LAST_FRAME_S = 60.0  # the longest time the last frame is taken to be shown
READ_TRIES = 16


@dataclass
class Tally:
    """What went wrong on the way, for `DecodeFinished.problem`.

    Attributes:
        damaged: packets that could not be decoded and were skipped.
        reason: FFmpeg's words for the last of them.
        gave_up: why reading stopped before the end of the file, or "".
    """

    damaged: int = 0
    reason: str = ""
    gave_up: str = ""


@dataclass(frozen=True)
class TimedFrame:
    """A decoded frame, when it appears on the file's clock, and how long it is shown if nothing follows."""

    time_s: float
    duration_s: float
    frame: av.VideoFrame


def first_sample(time_s: float, *, fps: float) -> int:
    """Number of the first grid time (n / fps) at or after `time_s`.

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
        origin_s: where on the file's clock grid time 0 lies.
        fps: grid times a second, needed to tell which frames are never shown.
        limit_s: the end the container declares, on the file's clock; later timestamps are taken for clock jumps.
        tally: counts damage as it goes.
        skip_unshown: leave out frames that no grid time shows and nothing refers to.

    Yields:
        Frames with times that never fall.
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
    """Packets with whether a grid time may show their frame.

    A frame is shown from its own timestamp to the next one in order of presentation. That next one lies at most
    `WINDOW` packets behind or ahead in order of decoding, so the answer is exact; where a timestamp is missing or
    doubled the answer is "may be shown".
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
    """Packets of the stream, then None (drain the decoder); a read error is stepped over a few times."""
    for _ in range(READ_TRIES):
        try:
            for packet in container.demux(stream):
                if packet.size:
                    yield packet
        except av.error.FFmpegError as error:
            tally.gave_up = error.strerror or str(error)
        except IndexError:  # PyAV, at the end of a file in which damage made streams appear: all packets were read
            tally.gave_up = ""
            break
        else:
            tally.gave_up = ""
            break
    yield None
