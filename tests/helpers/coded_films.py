"""Films whose frames carry their number as grey blocks, at any rate, with a time code and a sound of clicks.

    times = write_coded_film(path, rate=Fraction(24000, 1001), frames=200, timecode="01:00:00:00")
    numbers_of(path)                                                # [(0.0, 0), (0.0417, 1), ...]

The number of a frame is 16 bits in two rows of eight blocks. A click of 5 ms begins with every 24th frame.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.codec.context import Flags

SIZE = (160, 96)
EVERY = 24  # frames between two clicks
HZ = 48_000


def coded_image(number: int, *, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Make the image of a frame number, uint8 (h, w, 3)."""
    width, height = size
    image = np.empty((height, width, 3), np.uint8)
    for bit in range(16):
        row, column = divmod(bit, 8)
        rows = slice(row * height // 2, (row + 1) * height // 2)
        image[rows, column * width // 8 : (column + 1) * width // 8] = 235 if number >> bit & 1 else 20
    return image


def number_in(image: np.ndarray) -> int:
    """Read the frame number of an image (h, w, 3)."""
    height, width = image.shape[:2]
    number = 0
    for bit in range(16):
        row, column = divmod(bit, 8)
        rows = slice(row * height // 2 + height // 8, (row + 1) * height // 2 - height // 8)
        columns = slice(column * width // 8 + width // 32, (column + 1) * width // 8 - width // 32)
        number |= int(image[rows, columns].mean() > 128) << bit
    return number


def numbers_of(path: Path) -> list[tuple[float, int]]:
    """Decode a file: the time and number of each frame."""
    with av.open(str(path)) as container:
        return [(frame.time or 0.0, number_in(frame.to_ndarray(format="rgb24"))) for frame in container.decode(video=0)]


def write_coded_film(
    path: Path,
    *,
    rate: Fraction = Fraction(25),
    frames: int = 200,
    times_s: Sequence[float] | None = None,
    timecode: str | None = None,
    sound: bool = True,
    gop: int = 48,
    size: tuple[int, int] = SIZE,
) -> list[float]:
    """Write a film; return the times of its frames and, last, its end.

    Args:
        times_s: of a variable rate, one per frame and the end; else frames follow at `rate`.
        timecode: start of a time code track (.mp4, .mov).
    """
    times = list(times_s or [float(number / rate) for number in range(frames + 1)])
    base = Fraction(1, rate.numerator if times_s is None else 90_000)
    options = {"write_tmcd": "1"} if timecode else {}
    with av.open(str(path), "w", options=options) as container:
        if timecode:
            container.metadata["timecode"] = timecode
        coded = {"preset": "ultrafast", "crf": "12", "bf": "2", "g": str(gop)}
        stream = container.add_stream("libx264", rate=rate, options=coded)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.time_base = base
        stream.codec_context.flags |= Flags.frame_duration.value
        track = container.add_stream("aac", rate=HZ, layout="mono") if sound else None
        for number, (time_s, end_s) in enumerate(itertools.pairwise(times)):
            frame = av.VideoFrame.from_ndarray(coded_image(number, size=size), format="rgb24")
            frame.pts, frame.time_base = round(Fraction(time_s) / base), base
            frame.duration = round(Fraction(end_s) / base) - frame.pts
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if track is not None:
            samples = np.zeros(round(times[-1] * HZ) // 1024 * 1024, np.float32)
            for time_s in times[:-1:EVERY]:
                samples[round(time_s * HZ) : round((time_s + 0.005) * HZ)] = 0.8
            for first in range(0, len(samples), 1024):
                piece = av.AudioFrame.from_ndarray(samples[None, first : first + 1024], format="fltp", layout="mono")
                piece.sample_rate, piece.pts, piece.time_base = HZ, first, Fraction(1, HZ)
                container.mux(track.encode(piece))
            container.mux(track.encode(None))
    return times


def clicks_of(path: Path) -> list[float]:
    """Decode the sound of a file: times at which clicks begin."""
    with av.open(str(path)) as container:
        pieces = [(frame.time or 0.0, frame.to_ndarray()[0]) for frame in container.decode(audio=0)]
        hz = container.streams.audio[0].rate
    found: list[float] = []
    for begin, samples in pieces:
        for index in np.flatnonzero(np.abs(samples) > 0.3):
            time_s = begin + index / hz
            if not found or time_s - found[-1] > 0.1:
                found.append(time_s)
    return found
