"""Small videos, written with PyAV: solid colours, cuts, variable frame rate, rotated, broken, without video.

    write_clip(path, colours=["red", "blue"], seconds_each=1.0, fps=25)      # one cut at 1.0 s
    write_frames(path, [image, ...], times_s=[0.0, 0.1, 0.9])              # variable frame rate
    rotate(path, 90); truncate(path, 0.5); corrupt(path)                     # in place, on a written file

A colour is a name of `helpers.tiny_encoder.COLOURS` or an (r, g, b) tuple. The file's suffix selects the container.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.codec.context import Flags

from helpers.tiny_encoder import COLOURS

Colour = str | tuple[int, int, int]

TICKS = 12_800  # time base of written streams; 1/TICKS s is the resolution of times
LIMITED_TICKS = {"mpeg4": 1000, "mpeg2video": 25}  # time bases that these encoders accept


def write_clip(
    path: Path,
    *,
    colours: Sequence[Colour] = ("red",),
    seconds_each: float = 1.0,
    fps: float = 25.0,
    size: tuple[int, int] = (160, 120),
    codec: str = "libx264",
    start_s: float = 0.0,
    audio: bool = False,
    **options: str,
) -> Path:
    """Write shots of solid colours at a constant frame rate.

    Args:
        path: the file to write; mp4, mkv, avi, mov, webm or gif by suffix.
        colours: one shot per colour; a shot has `round(seconds_each * fps)` frames.
        size: (width, height) in pixels.
        start_s: presentation time of the first frame.
        audio: add a silent sound track that starts at 0.
        options: passed to the video encoder, for example `bf="3"`, `g="12"`.

    Returns:
        `path`.
    """
    count = round(seconds_each * fps)
    images = [solid(colour, size=size) for colour in colours for _ in range(count)]
    times = [start_s + i / fps for i in range(len(images))]
    return write_frames(path, images, times_s=times, codec=codec, audio=audio, last_s=1 / fps, **options)


def write_frames(
    path: Path,
    images: Iterable[np.ndarray],
    *,
    times_s: Sequence[float],
    codec: str = "libx264",
    audio: bool = False,
    last_s: float = 0.04,
    pix_fmt: str | None = None,
    **options: str,
) -> Path:
    """Write images at ascending presentation times.

    Args:
        images: uint8 (h, w, 3) RGB, all of one size.
        times_s: one presentation time per image.
        last_s: duration of the last image, if the container can store it.
    """
    images = list(images)
    height, width = images[0].shape[:2]
    if path.suffix == ".gif":
        codec, pix_fmt, ticks = "gif", pix_fmt or "rgb8", 100
    else:
        ticks = TICKS
        odd = width % 2 or height % 2
        pix_fmt = pix_fmt or ("yuv444p" if odd and codec == "libx264" else "yuv420p")
    if codec == "libx264":
        options = {"preset": "ultrafast", "crf": "12"} | options
    keep = {"avoid_negative_ts": "disabled"} if times_s[0] < 0 else {}  # by default the muxer moves the start to 0
    with av.open(str(path), "w", options=keep) as container:
        stream = container.add_stream(codec, rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.codec_context.time_base = Fraction(1, LIMITED_TICKS.get(codec, ticks))
        stream.options = options
        stream.codec_context.flags |= Flags.frame_duration.value  # keep the duration of the last frame
        base = stream.codec_context.time_base
        sound = container.add_stream("aac", rate=16_000) if audio else None
        ends = [*times_s[1:], times_s[-1] + last_s]
        for image, time_s, end_s in zip(images, times_s, ends, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = round(time_s / base), base
            frame.duration = max(1, round((end_s - time_s) / base))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            _silence(container, sound, seconds=ends[-1])
    return path


def write_audio(path: Path, *, seconds: float = 1.0) -> Path:
    """Write a file with a sound track and no video (.m4a, .mp4, .mkv, .wav)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le" if path.suffix == ".wav" else "aac", rate=16_000)
        _silence(container, stream, seconds=seconds)
    return path


def solid(colour: Colour, *, size: tuple[int, int] = (160, 120)) -> np.ndarray:
    """Make an image of one colour, uint8 (h, w, 3); `size` is (width, height)."""
    rgb = COLOURS[colour] if isinstance(colour, str) else colour
    return np.full((size[1], size[0], 3), rgb, np.uint8)


def quarters(
    colours: tuple[Colour, Colour, Colour, Colour] = ("red", "green", "blue", "white"),
    *,
    size: tuple[int, int] = (160, 120),
) -> np.ndarray:
    """Make an image of four colours (top left, top right, bottom left, bottom right), to test its orientation."""
    width, height = size
    image = np.empty((height, width, 3), np.uint8)
    for i, colour in enumerate(colours):
        top, left = (i // 2) * (height // 2), (i % 2) * (width // 2)
        part = image[top : top + math.ceil(height / 2), left : left + math.ceil(width / 2)]
        part[:] = solid(colour, size=(part.shape[1], part.shape[0]))
    return image


def rotate(path: Path, degrees: int) -> Path:
    """Set the display matrix of an .mp4 or .mov, so that players rotate it by 90, 180 or 270 degrees clockwise."""
    cos, sin = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees % 360]
    return _set_matrix(path, (cos, sin, -sin, cos))


def mirror(path: Path, *, left_right: bool = False, top_bottom: bool = False) -> Path:
    """Set the display matrix of an .mp4 or .mov, so that players flip it."""
    return _set_matrix(path, (-1 if left_right else 1, 0, 0, -1 if top_bottom else 1))


def _set_matrix(path: Path, turn: tuple[int, int, int, int]) -> Path:
    one = 1 << 16
    a, b, c, d = turn
    matrix = [a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30]
    raw = bytearray(path.read_bytes())
    at = raw.index(b"tkhd") + 44  # version and flags 4, times and ids 20, reserved 8, layer to volume 8
    raw[at : at + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in matrix)
    path.write_bytes(raw)
    return path


def truncate(path: Path, fraction: float) -> Path:
    """Keep the first part of the file, as after an interrupted copy.

    A truncated .mp4 of `write_frames` is unreadable, since its index (moov) is at the end. After `faststart(path)`, and
    in an .avi or .mkv, the frames before the end can be read.
    """
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * fraction)])
    return path


def faststart(path: Path) -> Path:
    """Rewrite an .mp4 with its index in front (moov before mdat)."""
    moved = path.with_name(path.stem + ".faststart" + path.suffix)
    with av.open(str(path)) as source, av.open(str(moved), "w", options={"movflags": "+faststart"}) as target:
        streams = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    moved.replace(path)
    return path


def corrupt(path: Path, *, start: float = 0.4, stop: float = 0.6, seed: int = 0) -> Path:
    """Overwrite a part of the file (fractions of its length) with noise."""
    raw = bytearray(path.read_bytes())
    first, last = int(len(raw) * start), int(len(raw) * stop)
    raw[first:last] = np.random.default_rng(seed).integers(0, 256, last - first, dtype=np.uint8).tobytes()
    path.write_bytes(raw)
    return path


def _silence(container: av.container.OutputContainer, stream: av.AudioStream, *, seconds: float) -> None:
    rate = 16_000
    for first in range(0, max(1, round(seconds * rate)), 1024):
        sound = np.zeros((1, 1024), np.int16)
        frame = av.AudioFrame.from_ndarray(sound, format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, first, Fraction(1, rate)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
