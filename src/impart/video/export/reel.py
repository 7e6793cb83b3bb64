"""Reel: all spans joined to one MP4 file of one size and rate, with sound.

Size and rate are those of most spans. Frames of other shapes get black bars; HDR becomes SDR, interlaced frames give
one field, turned ones are upright. Sound is stereo of 48 kHz, silent where a span has none.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import av
import av.error
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

from impart.errors import DataError
from impart.files import atomic_path
from impart.video.decode.frames.side_data import orientation
from impart.video.export.editors.events import Event, build_timeline
from impart.video.export.encoding import SoundSink, VideoSink, choose_codec
from impart.video.export.file_names import check_free
from impart.video.export.source.frames import (
    ShownFrame,
    SoundOfSpan,
    first_sound,
    frames_of_span,
    has_jumps,
    scaler_of,
)
from impart.video.export.spans import NO_HANDLES, ExportSpan, Handles, SpanFailure
from impart.video.export.timelines import Written

__all__ = ["write_reel"]

_EARLY = 1e-3  # of a frame, for rounded times
HZ, LAYOUT = 48_000, "stereo"
Image = npt.NDArray[np.uint8]


def write_reel(
    spans: Sequence[ExportSpan],
    file: Path,
    *,
    handles: Handles = NO_HANDLES,
    overwrite: bool = False,
    on_span: Callable[[ExportSpan], None] | None = None,
) -> Written:
    """Join spans to one MP4 file, in their order. A span that fails is left out and named.

    Args:
        handles: material to add on both sides.
        on_span: called with each span as soon as it is in the reel.

    Raises:
        DataError: the file exists, is no .mp4, or nothing can be written.
    """
    if file.suffix.lower() not in (".mp4", ".m4v", ".mov"):
        raise DataError(f"a reel is an MP4 file: name it {file.with_suffix('.mp4').name} with -o")
    check_free([file], overwrite=overwrite, sources=(span.path for span in spans))
    timeline = build_timeline(spans, name=file.stem, handles=handles)
    rate = timeline.timebase.rate
    size = _even(timeline.shown_size)
    failures = list(timeline.failures)
    written = 0
    try:
        with (
            atomic_path(file, keep_suffix=True) as part,
            av.open(str(part), "w", options={"movflags": "+faststart"}) as out,
        ):
            codec = choose_codec(hdr=False)
            video = VideoSink(out, _frame(np.zeros((size[1], size[0], 3), np.uint8)), codec=codec, rate=rate)
            sound = SoundSink(out, hz=HZ, layout=LAYOUT) if _any_sound(timeline.events) else None
            frames = 0
            for event in timeline.events:
                try:
                    added = _add(event, handles, video=video, sound=sound, size=size, rate=rate, reached=frames)
                except DataError as error:
                    failures.append(SpanFailure(span=event.span, reason=str(error)))
                    continue
                frames += added
                written += 1
                if on_span is not None:
                    on_span(event.span)
            if not written:
                raise DataError(f"nothing to export: {failures[0].reason}")
            video.finish()
            if sound is not None:
                sound.finish()
    except av.error.FFmpegError as error:
        raise DataError(f"cannot write {file}: {error.strerror or error}") from error
    note = f"{file.name}: {size[0]}x{size[1]} at {float(rate):.3f} frames per second, {codec.words}"
    return Written(files=(file,), spans=written, failures=tuple(failures), photos=timeline.photos, notes=(note,))


def _add(
    event: Event,
    handles: Handles,
    *,
    video: VideoSink,
    sound: SoundSink | None,
    size: tuple[int, int],
    rate: Fraction,
    reached: int,
) -> int:
    """Append a span at frame `reached` of the reel; return its number of frames."""
    span, source = event.span, event.source
    more_s = handles.seconds(source.timebase.rate)
    start_s, end_s = max(0.0, span.start_s - more_s), span.end_s + more_s
    jumps = has_jumps(span.path)
    step = int(1 / (rate * video.time_base))
    with ExitStack() as stack:
        shown = stack.enter_context(contextlib.closing(frames_of_span(span.path, start_s, end_s, jumps=jumps)))
        count, reader = 0, None
        for image, begin_s in _at_rate(shown, rate, size):
            if reader is None and sound is not None and source.sound_channels:
                index = first_sound(span.path)
                sounds = SoundOfSpan(span.path, index, start_s=begin_s, hz=HZ, layout=LAYOUT, jumps=jumps)
                reader = stack.enter_context(sounds)
            video.put(_frame(image), at=(reached + count) * step, duration=step)
            count += 1
            if sound is not None:
                wanted = round((reached + count) * HZ / rate) - round((reached + count - 1) * HZ / rate)
                samples = np.zeros((2, wanted), np.float32) if reader is None else reader.read(wanted)
                sound.put(samples)
    return count


def _at_rate(shown: Iterator[ShownFrame], rate: Fraction, size: tuple[int, int]) -> Iterator[tuple[Image, float]]:
    """Repeat or leave out frames to have a constant rate; yield images with the start of the first one."""
    start_s: float | None = None
    count = 0
    image: Image | None = None
    scaler = None
    for frame in shown:
        start_s = frame.time_s if start_s is None else start_s
        until = math.ceil(
            (frame.end_s - start_s) * float(rate) - _EARLY
        )  # frames of the reel that begin before its end
        if until > count:
            if scaler is None:
                scaler = scaler_of(frame, short_side_px=_short_side(frame, size))
            image = _boxed(scaler.image(frame.frame), size)
        while image is not None and count < until:
            yield image, start_s
            count += 1


def _short_side(shown: ShownFrame, size: tuple[int, int]) -> int:
    """Compute the short side of a frame, upright and in its own shape, that fills the size."""
    width: float = shown.frame.width * float(shown.aspect)
    height = float(shown.frame.height)
    if orientation(shown.frame)[0]:
        width, height = height, width
    return max(2, round(min(size[0] / width, size[1] / height) * min(width, height)))


def _boxed(image: Image, size: tuple[int, int]) -> Image:
    """Put an image in the middle of a black one, cropped where it is larger."""
    width, height = size
    image = image[:height, :width]
    top, left = (height - image.shape[0]) // 2, (width - image.shape[1]) // 2
    made = np.zeros((height, width, 3), np.uint8)
    made[top : top + image.shape[0], left : left + image.shape[1]] = image
    return made


def _frame(image: Image) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(image, format="rgb24")
    made = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
    made.color_primaries, made.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
    return made


def _even(size: tuple[int, int]) -> tuple[int, int]:
    return max(2, size[0] - size[0] % 2), max(2, size[1] - size[1] % 2)


def _any_sound(events: Sequence[Event]) -> bool:
    return any(event.source.sound_channels for event in events)
