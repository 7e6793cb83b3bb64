"""Encoding: frames and sound to an MP4 file; which codecs are used.

The encoders are those of FFmpeg in PyAV's wheel: H.264 by x264 (quality 18, visually the same as the source), AAC
sound at 192 kbit/s per two channels. HDR (PQ, HLG) stays HDR: H.265 by x265 in 10 bit, with the source's colour tags.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av
import av.error
import numpy as np
from av.audio.fifo import AudioFifo
from av.codec import Codec
from av.codec.context import Flags
from av.video.reformatter import ColorTrc

from impart.errors import ConfigError
from impart.video.export.source.frames import Samples

__all__ = [
    "FINEST_HZ",
    "PacketSink",
    "SoundSink",
    "VideoCodec",
    "VideoSink",
    "choose_codec",
    "is_hdr",
    "sound_layout",
    "sound_rate",
    "time_base_of",
]

FINEST_HZ = 10_000  # times of a clip are at least as fine as this
AAC_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 8: "7.1"}
KBITS_PER_PAIR = 192


@dataclass(frozen=True, kw_only=True)
class VideoCodec:
    """A video encoder with its settings; `words` tells it to people."""

    encoder: str
    pix_fmt: str
    words: str
    options: dict[str, str] = field(default_factory=dict)


_SDR = (
    VideoCodec(encoder="libx264", pix_fmt="yuv420p", words="H.264 (x264)", options={"preset": "fast", "crf": "18"}),
    VideoCodec(encoder="libopenh264", pix_fmt="yuv420p", words="H.264 (OpenH264)", options={"b": "12M"}),
    VideoCodec(encoder="mpeg4", pix_fmt="yuv420p", words="MPEG-4 Part 2", options={"q": "2"}),
)
_HDR = (
    VideoCodec(
        encoder="libx265",
        pix_fmt="yuv420p10le",
        words="H.265 10 bit (x265), HDR",
        options={"preset": "fast", "crf": "18", "x265-params": "log-level=error"},
    ),
)


def choose_codec(*, hdr: bool) -> VideoCodec:
    """Choose the first video encoder that this FFmpeg has.

    Raises:
        ConfigError: it has none of them.

    Example:
        >>> choose_codec(hdr=False).words
        'H.264 (x264)'
    """
    codecs: tuple[VideoCodec, ...] = (*_HDR, *_SDR) if hdr else _SDR
    for codec in codecs:
        try:
            Codec(codec.encoder, "w")
        except ValueError:
            continue
        return codec
    raise ConfigError("this FFmpeg has no encoder for H.264: reinstall PyAV with pip install --force-reinstall av")


def is_hdr(frame: av.VideoFrame) -> bool:
    """Whether a frame has high dynamic range: its transfer function is PQ or HLG."""
    return frame.color_trc in (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67)


def time_base_of(rate: Fraction) -> Fraction:
    """Choose a time base in which frames of a rate have whole times, and others are exact to 1/10,000 s.

    >>> time_base_of(Fraction(24000, 1001)), time_base_of(Fraction(25))
    (Fraction(1, 24000), Fraction(1, 10000))
    """
    return Fraction(1, rate.numerator * -(-FINEST_HZ // rate.numerator))


class VideoSink:
    """Encodes frames of one size into a stream of a file.

    Args:
        like: a frame with the size and colours of all.
        rate: usual frames per second; the times given with the frames count.
        steady: whether all frames have this rate. MP4 keeps durations in the order of decoding: with other rates,
            frames are coded in the order of presentation, so that the last one keeps its own.
    """

    def __init__(
        self,
        container: av.container.OutputContainer,
        like: av.VideoFrame,
        *,
        codec: VideoCodec,
        rate: Fraction,
        aspect: Fraction | None = None,
        steady: bool = True,
    ) -> None:
        self._container, self._codec, self._like = container, codec, like
        self.time_base = time_base_of(rate)
        options = dict(codec.options)
        if not steady:
            options["bf"] = "0"
        if like.interlaced_frame and codec.encoder == "libx264":
            options["x264-params"] = "tff=1"
        self.stream: Any = container.add_stream(codec.encoder, rate=rate, options=options)
        # Planes of 4:2:0 need even sides.
        self.stream.width, self.stream.height = (max(2, side - side % 2) for side in (like.width, like.height))
        self.stream.pix_fmt = codec.pix_fmt
        context = self.stream.codec_context
        context.time_base = self.time_base
        context.flags |= Flags.frame_duration.value  # keeps the duration of the last frame
        if aspect:
            self.stream.sample_aspect_ratio = aspect
        if codec.encoder == "libx265":
            context.codec_tag = "hvc1"  # Apple's players show no other
        first = self._converted(like)
        context.color_range, context.colorspace = first.color_range, first.colorspace
        context.color_primaries, context.color_trc = first.color_primaries, first.color_trc

    def put(self, frame: av.VideoFrame, *, at: int, duration: int) -> None:
        """Encode a frame; time and duration in units of the time base."""
        frame = self._converted(frame)
        frame.pts, frame.time_base, frame.duration = at, self.time_base, max(1, duration)
        frame.pict_type = 0  # the encoder chooses key frames itself
        self._container.mux(self.stream.encode(frame))

    def finish(self) -> None:
        """Write the frames that the encoder holds back."""
        self._container.mux(self.stream.encode(None))

    def _converted(self, frame: av.VideoFrame) -> av.VideoFrame:
        width, height = self.stream.width, self.stream.height
        if (frame.width, frame.height) == (width, height) and frame.format.name == self._codec.pix_fmt:
            return frame
        if abs(frame.width - width) <= 1 and abs(frame.height - height) <= 1:  # odd sides lose one row or column
            frame = _cropped(frame, width, height)
        made = frame.reformat(width=width, height=height, format=self._codec.pix_fmt)
        made.color_primaries, made.color_trc = frame.color_primaries, frame.color_trc
        return made


def _cropped(frame: av.VideoFrame, width: int, height: int) -> av.VideoFrame:
    if (frame.width, frame.height) == (width, height):
        return frame
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or Fraction(1, 1000)
    )
    crop, sink = graph.add("crop", f"{width}:{height}:0:0:exact=1"), graph.add("buffersink")
    source.link_to(crop)
    crop.link_to(sink)
    graph.configure()
    graph.push(frame)
    made = graph.pull()
    assert isinstance(made, av.VideoFrame)
    made.colorspace, made.color_range = frame.colorspace, frame.color_range
    made.color_trc, made.color_primaries = frame.color_trc, frame.color_primaries
    return made


def sound_rate(hz: int) -> int:
    """Choose a sample rate that AAC and players take: the own one where it is usual, else 48,000.

    >>> sound_rate(44_100), sound_rate(192_000)
    (44100, 48000)
    """
    return hz if hz in (48_000, 44_100, 32_000, 24_000, 22_050, 16_000) else 48_000


def sound_layout(channels: int) -> str:
    """Choose the layout of AAC for a number of channels; where it has none, sound is mixed to stereo.

    >>> sound_layout(1), sound_layout(6), sound_layout(7)
    ('mono', '5.1', 'stereo')
    """
    return AAC_LAYOUTS.get(channels, "stereo")


class SoundSink:
    """Encodes samples as AAC into a stream of a file, from time 0 on."""

    def __init__(self, container: av.container.OutputContainer, *, hz: int, layout: str) -> None:
        self._container, self._hz, self._layout = container, hz, layout
        self.stream: Any = container.add_stream("aac", rate=hz, layout=layout)
        channels = av.AudioLayout(layout).nb_channels
        self.stream.bit_rate = KBITS_PER_PAIR * 1000 * max(1, channels) // 2
        self._fifo = AudioFifo()
        self._written = 0

    def put(self, samples: Samples) -> None:
        """Encode samples, float32 (channels, samples)."""
        if samples.shape[1]:
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=self._layout)
            frame.sample_rate, frame.pts, frame.time_base = self._hz, self._written, Fraction(1, self._hz)
            self._written += samples.shape[1]
            self._fifo.write(frame)
        while (piece := self._fifo.read(1024)) is not None:
            self._container.mux(self.stream.encode(piece))

    def finish(self) -> None:
        """Write the rest."""
        rest = self._fifo.read(0, partial=True)
        if rest is not None:
            self._container.mux(self.stream.encode(rest))
        self._container.mux(self.stream.encode(None))


class PacketSink:
    """Copies the packets of one stream into a file, without encoding.

    The first packets of a Matroska file have no decoding time, and FFmpeg computes those from the third on. They are
    held back until one is known, and get times counted back from it.

    Args:
        stream: of the file that is written.
        rate: frames per second, for packets without a decoding time.
    """

    def __init__(self, container: av.container.OutputContainer, stream: av.stream.Stream, *, rate: Fraction) -> None:
        self._container, self._stream, self._rate = container, stream, rate
        self._waiting: list[av.Packet] = []

    def put(self, packet: av.Packet, *, shift: int) -> None:
        """Write a packet, with its times earlier by `shift` units of its time base."""
        packet.pts = (packet.pts or 0) - shift
        packet.dts = None if packet.dts is None else packet.dts - shift
        packet.stream = self._stream
        self._waiting.append(packet)
        if packet.dts is not None:
            self.finish()

    def finish(self) -> None:
        """Write the packets that are held back."""
        if not self._waiting:
            return
        base = self._waiting[-1].time_base or Fraction(1, 1000)
        step = round(1 / (self._rate * base))
        known = self._waiting[-1].dts
        if known is None:
            known = min(packet.pts or 0 for packet in self._waiting)
        for back, packet in enumerate(reversed(self._waiting)):
            if packet.dts is None:
                packet.dts = known - back * step
        for packet in self._waiting:
            self._container.mux(packet)
        self._waiting.clear()
