"""Timestamps: decoded frames of a stream, in the order and at the times at which they are shown.

- **Time** comes from presentation timestamps alone. A missing one is computed from the decoding time or the frame rate.
  AVI has none: there the n-th frame shown takes the n-th decoding time. A clock that jumps is joined at the jump
  (`Clock`); a gap stays a gap. FFmpeg applies edit lists.
- **Skipping**: at 4 samples per second most frames are not needed. A frame is not decoded where no other frame refers
  to it (mostly B frames) and no grid time shows it. This is read from the packets and their timestamps, and changes no
  bit of the frames that are shown. Frames just before an unusually large packet are decoded too: a cut may be
  between them, and its time is then known to the frame.
- **Other streams**: an MPEG transport stream may continue its video under another identifier. Where the decoded
  stream has a gap in the file, the bytes between are searched for it (`impart.video.decode.transport`).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import av
import av.error

from impart.video.decode.container import is_read_error
from impart.video.decode.frames.references import References
from impart.video.decode.streams import beside, prepare
from impart.video.decode.structure import AVI, TS
from impart.video.decode.transport import Range, open_range

__all__ = ["Clock", "FrameReader", "Tally", "TimedFrame", "first_sample"]

EPS_S = 1e-5  # rounding of 90 kHz and microsecond clocks
WINDOW = 20  # packets read ahead; H.264 reorders at most 16
BACK_S = 1.0
JUMP_S = 10.0
HOUR_S, DAY_S = 3600.0, 86_400.0
GAP_S = 1.0
READ_TRIES = 16
LARGE = 2.0  # size of a packet with much new content, as a multiple of that of one in five around it
LARGE_IN_TURN = 1.25  # as a multiple of the median of the frames around it that are shown in the order of decoding
BEFORE_LARGE = 4  # frames in order of presentation, more than encoders mostly put between two references

Item: TypeAlias = "av.Packet | Range | None"
"""A packet, a range of the file without packets of the stream, or None: drain the decoder."""


@dataclass
class Tally:
    """Counts of what was found while decoding, for `DecodeFinished`.

    Attributes:
        damaged: packets that could not be decoded and were skipped; reason: FFmpeg's message for the last of them.
        damaged_last: those of them behind the last frame.
        concealed: frames in which FFmpeg replaced damaged parts. Those before the first whole frame of a file, or
            behind a clock jump, do not count: there a recording starts between two key frames.
        gave_up: why reading stopped before the end of the file, or "".
        read_error: message of a read error of the disk, or "". Reading may have continued behind it.
        cut_packet: whether the last packet of the file is incomplete.
        jumps: clock jumps joined.
        sound_end_s: end of the last sound on the file's clock.
        parallel: identifiers of video streams that run beside the decoded one.
    """

    damaged: int = 0
    damaged_last: int = 0
    concealed: int = 0
    reason: str = ""
    gave_up: str = ""
    read_error: str = ""
    cut_packet: bool = False
    jumps: int = 0
    sound_end_s: float = -math.inf
    parallel: set[int] = field(default_factory=set)
    _settled: bool = False
    _whole: int = 0
    _before: int = 0

    @property
    def damaged_frames(self) -> int:
        """Frames with damage; all, where none is whole."""
        return self.concealed if self._whole else self._before

    def add_frame(self, frame: av.VideoFrame, *, jumped: bool) -> None:
        """Count a decoded frame. `jumped`: it is the first one behind a clock jump."""
        self.damaged_last = 0
        if not frame.is_corrupt:
            self._settled = True
            self._whole += 1
        elif self._settled and not jumped:
            self.concealed += 1
        else:
            self._settled = False
            self._before += 1


@dataclass(frozen=True)
class TimedFrame:
    """A decoded frame, its time on the file's clock, its duration if no frame follows, and the stream it is from."""

    time_s: float
    duration_s: float
    frame: av.VideoFrame
    stream: av.VideoStream


class Clock:
    """Maps the timestamps of one stream to non-decreasing times, joined where the clock jumps.

    A step back by more than `BACK_S` is a jump. A step forward is one only where it leads behind the declared end, by
    more than an hour where no end is declared, or by more than a day. Other steps are gaps, or frames shown for long.

    Args:
        start_s: time before the first timestamp.
        limit_s: declared end of the file; None = not declared.
        shift_s: added to timestamps.

    >>> clock = Clock(0.0, limit_s=None)
    >>> [clock.at(time_s, expected_s=clock.last_s + 1) for time_s in (0, 1, 31, 1e9, 1e9 + 1, 0)]
    [0.0, 1.0, 31.0, 32.0, 33.0, 34.0]
    """

    def __init__(self, start_s: float, *, limit_s: float | None, shift_s: float = 0.0, started: bool = False) -> None:
        self.last_s = start_s
        self.shift_s = shift_s
        self.jumps = 0
        self.started = started
        self._limit_s = limit_s

    def copy(self) -> Clock:
        """Make the clock of a stream that appears at this time."""
        return Clock(self.last_s, limit_s=self._limit_s, shift_s=self.shift_s, started=self.started)

    def at(self, raw_s: float, *, expected_s: float) -> float:
        """Map a timestamp.

        Args:
            expected_s: the time to take where the clock jumped: the end of the frame before.
        """
        time_s = raw_s + self.shift_s
        step_s = time_s - self.last_s
        if (self.started and step_s < -BACK_S) or self._too_far(time_s, step_s):
            expected_s = expected_s if self.started else self.last_s
            self.shift_s += expected_s - time_s
            time_s = expected_s
            self.jumps += 1
        self.started = True
        self.last_s = float(max(self.last_s, time_s))
        return self.last_s

    def _too_far(self, time_s: float, step_s: float) -> bool:
        if self._limit_s is None:
            return step_s > HOUR_S
        return step_s > DAY_S or (step_s > JUMP_S and time_s > self._limit_s + BACK_S)


def first_sample(time_s: float, *, fps: float) -> int:
    """Find the number n of the first grid time (n / fps) at or after `time_s`.

    >>> first_sample(0.0, fps=4), first_sample(0.26, fps=4), first_sample(0.5, fps=4)
    (0, 2, 2)
    """
    return math.ceil((time_s - EPS_S) * fps)


class FrameReader:
    """Decodes the video of one file.

    Args:
        origin_s: grid time 0 on the file's clock.
        fps: grid times per second.
        limit_s: the declared end of the container, on the file's clock; None = not declared.
        tally: receives what is found.
        threads: of the decoder, see `impart.video.decode.streams.prepare`.
        shrunk_px: short side to which frames are made smaller, see there.
        skip_unshown: skip frames that no grid time shows and no other frame refers to.
        wanted_s: time on the file's clock, in place of all grid times; None = the grid counts.
        sought: whether reading begins behind a seek: a decoder drops frames there that refer to earlier ones.
    """

    def __init__(
        self,
        path: Path,
        *,
        origin_s: float,
        fps: float,
        limit_s: float | None,
        tally: Tally,
        threads: int = 0,
        shrunk_px: int | None = None,
        skip_unshown: bool = True,
        wanted_s: float | None = None,
        sought: bool = False,
    ) -> None:
        self._path = path
        self._origin_s = origin_s
        self._fps = fps
        self._limit_s = limit_s
        self._tally = tally
        self._threads = threads
        self._shrunk_px = shrunk_px
        self._skip_unshown = skip_unshown
        self._wanted_s = wanted_s
        self._dropped = sought  # whether frames may be missing before the next one, of an AVI
        self._due: deque[int] | None = None  # decoding times of an AVI that no frame has taken yet

    def read(self, container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[TimedFrame]:
        """Decode a stream, and the streams that continue it.

        Yields:
            Frames with non-decreasing times.
        """
        clock = Clock(self._origin_s, limit_s=self._limit_s)
        self._due = deque() if container.format.name == AVI else None
        rest = yield from self._frames(container, stream, clock, whole=Range(0, None))
        yield from self._elsewhere(rest, clock)

    def _frames(
        self, container: av.container.InputContainer, stream: av.VideoStream, clock: Clock, *, whole: Range
    ) -> Generator[TimedFrame, None, Range | None]:
        """Decode one stream of a range; return the range behind its last packet."""
        prepare(container, stream, threads=self._threads, shrunk_px=self._shrunk_px)
        codec, tally = stream.codec_context, self._tally
        base = float(stream.time_base or 0) or 1e-3
        packets = _Packets(container, stream, tally=tally, clock=clock)
        references = References(codec.name, codec.extradata)
        skip_safe = references.known and self._due is None
        plan: Iterator[tuple[Item, bool]]
        skip = self._skip_unshown and whole.start == 0  # in other ranges the grid may lie differently
        if stream.time_base and skip and (codec.codec.intra_only or skip_safe):
            plan = _planned(iter(packets), base=base, origin_s=self._origin_s, fps=self._fps, wanted_s=self._wanted_s)
        else:
            plan = ((item, True) for item in packets)
        skipping = False
        for item, shown in plan:
            if isinstance(item, Range):
                yield from self._elsewhere(item.within(whole), clock, interrupted=stream)
                continue
            if not shown and isinstance(item, av.Packet) and (codec.codec.intra_only or references.unreferenced(item)):
                continue
            if references.by_ffmpeg and skipping == shown:
                skipping = not shown
                codec.skip_frame = "NONREF" if skipping else "DEFAULT"
            yield from self._decode(stream, item, clock)
        return None if packets.rest is None else packets.rest.within(whole)

    def _elsewhere(
        self, wanted: Range | None, clock: Clock, *, interrupted: av.VideoStream | None = None
    ) -> Iterator[TimedFrame]:
        """Decode a range in which the decoded stream has no packet, if another video stream has some.

        Args:
            interrupted: the stream that continues behind the range.
        """
        own = clock
        while wanted is not None:
            with open_range(self._path, wanted) as found:
                if found is None or found[1].id in self._tally.parallel:
                    break
                if interrupted is not None and own is clock:
                    yield from self._decode(interrupted, None, clock)
                    interrupted.codec_context.flush_buffers()
                    own = clock.copy()  # what is inserted may have a clock of its own
                wanted = yield from self._frames(*found, own, whole=wanted)
        clock.last_s = max(clock.last_s, own.last_s)

    def _decode(self, stream: av.VideoStream, packet: av.Packet | None, clock: Clock) -> Iterator[TimedFrame]:
        tally = self._tally
        base = float(stream.time_base or 0) or 1e-3
        rate = stream.average_rate or stream.guessed_rate
        usual_s = float(1 / rate) if rate else 1 / self._fps
        if self._due is not None and packet is not None and packet.dts is not None:
            self._due.append(packet.dts)
        try:
            frames = stream.codec_context.decode(packet)
        except av.error.MemoryError:
            raise
        except av.error.FFmpegError as error:
            tally.damaged += 1
            tally.damaged_last += 1
            tally.reason = error.strerror or str(error)
            if self._due:
                self._due.pop()
            return
        for frame in frames:
            before_s, jumps = clock.last_s, clock.jumps
            codec = stream.codec_context
            ticks = self._ticks(frame, threads=codec.thread_count, reorder=codec.reorder_depth)
            expected_s = before_s + usual_s if clock.started else before_s
            time_s = clock.at(expected_s - clock.shift_s if ticks is None else ticks * base, expected_s=expected_s)
            tally.jumps += clock.jumps - jumps
            tally.add_frame(frame, jumped=clock.jumps > jumps)
            duration_s = frame.duration * base if frame.duration and frame.duration > 0 else usual_s
            yield TimedFrame(time_s, min(duration_s, HOUR_S if self._limit_s is None else DAY_S), frame, stream)

    def _ticks(self, frame: av.VideoFrame, *, threads: int, reorder: int) -> int | None:
        if self._due is None:
            ticks: int | None = frame.pts if frame.pts is not None else frame.dts
            return ticks
        if self._dropped and frame.dts in self._due:
            self._dropped = False
            for _ in range(self._due.index(frame.dts) - reorder):
                self._due.popleft()
        while len(self._due) > WINDOW + threads:  # frames were lost without an error
            self._due.popleft()
        return self._due.popleft() if self._due else None


class _Packets:
    """Packets of one stream, then None; between them ranges without any, in which another stream may continue.

    Reading continues after a few errors.

    Attributes:
        rest: the range behind the last packet, in an MPEG transport stream.
    """

    def __init__(
        self, container: av.container.InputContainer, stream: av.VideoStream, *, tally: Tally, clock: Clock
    ) -> None:
        self.rest: Range | None = None
        self._container = container
        self._stream = stream
        self._tally = tally
        self._start = clock.copy()
        self._sounds: dict[int, Clock] = {}
        self._beside: list[tuple[int, int]] = []  # packets of other video streams: position, identifier
        self._transport = container.format.name == TS

    def __iter__(self) -> Iterator[Item]:
        tally, last = self._tally, None
        for _ in range(READ_TRIES):
            try:
                for packet in self._read():
                    tally.cut_packet = packet.is_corrupt
                    if packet.stream.type == "audio":
                        self._listen(packet)
                    elif packet.stream.index != self._stream.index:
                        self._beside.append((packet.pos or 0, packet.stream.id))
                    else:
                        if self._transport:
                            gap = self._gap(last, packet)
                            if gap is not None:
                                yield gap
                            last = packet
                        yield packet
            except av.error.MemoryError:
                raise
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
        if last is not None:
            self.rest = Range.after(last, None)

    def _read(self) -> Iterator[av.Packet]:
        others = [s for s in beside(self._container) if s.index != self._stream.index]
        return (packet for packet in self._container.demux(self._stream, *others) if packet.size)

    def _listen(self, packet: av.Packet) -> None:
        """Follow the sound: the last frame lasts to its end."""
        ticks = packet.pts if packet.pts is not None else packet.dts
        if ticks is None or not packet.time_base:
            return
        clock = self._sounds.setdefault(packet.stream.index, self._start.copy())
        duration_s = float((packet.duration or 0) * packet.time_base)
        time_s = clock.at(float(ticks * packet.time_base), expected_s=clock.last_s + duration_s)
        self._tally.sound_end_s = max(self._tally.sound_end_s, time_s + min(duration_s, BACK_S))

    def _gap(self, last: av.Packet | None, packet: av.Packet) -> Range | None:
        """Find the range between two packets, if it is one in which another stream may continue."""
        if last is None or last.dts is None or packet.dts is None or packet.pos is None or packet.pos < 0:
            return None
        # A packet is given when the next one of its stream begins, so that the last one comes late.
        between = {number for at, number in self._beside if (last.pos or 0) < at < packet.pos}
        self._beside = [(at, number) for at, number in self._beside if at >= packet.pos]
        step_s = float((packet.dts - last.dts) * (packet.time_base or 0))
        if abs(step_s) <= GAP_S:
            self._tally.parallel |= between
            return None
        return Range.after(last, packet.pos)


def _planned(
    items: Iterator[Item], *, base: float, origin_s: float, fps: float, wanted_s: float | None
) -> Iterator[tuple[Item, bool]]:
    """Yield packets, each with whether a grid time, or the one that is wanted, may show its frame.

    A frame is shown from its own timestamp to the next one in order of presentation. That next one is at most `WINDOW`
    packets behind or ahead in order of decoding, so the result is exact. Where a timestamp is missing or doubled, the
    frame is taken as shown. Behind a jump of the clock all are: the grid may lie differently there.
    """
    window: deque[av.Packet] = deque()
    past: deque[av.Packet] = deque(maxlen=WINDOW)
    count, jumped, last_dts = 0, False, None

    def shown(packet: av.Packet) -> bool:
        if jumped or packet.pts is None or (count <= WINDOW and wanted_s is None):
            return True
        pts, near = packet.pts, [*past, *window]
        after = sorted((other.pts, other.size) for other in near if other.pts is not None and other.pts > pts)
        if not after or any(other.pts is None or other.pts == pts for other in near):
            return True
        if wanted_s is not None:
            return bool(after[0][0] * base > wanted_s)
        begin = first_sample(pts * base - origin_s, fps=fps)
        if begin < first_sample(after[0][0] * base - origin_s, fps=fps):
            return True
        large = _large_size(near)
        return any(size > large for _, size in after[:BEFORE_LARGE])

    for item in items:
        if isinstance(item, av.Packet):
            step = item.dts - last_dts if item.dts is not None and last_dts is not None else 0
            jumped = jumped or step < 0 or step * base > JUMP_S
            last_dts = item.dts if item.dts is not None else last_dts
            window.append(item)
        while window and (len(window) > WINDOW or jumped or not isinstance(item, av.Packet)):
            head = window.popleft()
            count += 1
            yield head, shown(head) if isinstance(item, av.Packet) else True
            past.append(head)
        if not isinstance(item, av.Packet):
            yield item, True
            count = 0


def _large_size(packets: Sequence[av.Packet]) -> float:
    """Compute the size above which a packet has much new content, from the packets around it.

    In a file of many B frames fewer than one in five are frames shown in the order of decoding. Each of these is much
    larger than the others, so it must also be larger than is usual among them.
    """
    in_turn: list[int] = [0]
    last = -math.inf
    for packet in packets:
        if packet.pts is not None and packet.pts > last:
            last = packet.pts
            in_turn.append(packet.size)
    sizes: list[int] = sorted(packet.size for packet in packets)
    return max(LARGE * sizes[-(len(sizes) // 5) - 1], LARGE_IN_TURN * sorted(in_turn)[len(in_turn) // 2])
