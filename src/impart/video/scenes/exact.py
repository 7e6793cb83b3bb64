"""Exact cuts on demand: decode the frames between two times, and find the first one behind a cut.

An index has the times of its cuts already. This is for what has none: an index of version 0.1.0, or the bounds of a
moment.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av.error

from impart.video.decode.changes import StepFinder
from impart.video.decode.container import failure, is_read_error, open_video
from impart.video.decode.frames.side_data import orientation
from impart.video.decode.scaling import THUMB_PX, Scaler
from impart.video.decode.streams import choose_stream, latest_end_s, origin_s
from impart.video.decode.structure import AVI
from impart.video.decode.timestamps import BACK_S, JUMP_S, FrameReader, Tally, TimedFrame

__all__ = ["exact_cut"]

AROUND_S = 0.4  # decoded on either side, so that a step can be compared with the movement around it
EARLIER_S = (0.0, 5.0, 60.0)  # tries of a seek that arrives behind the time
_EPS_S = 1e-4


def exact_cut(path: Path, low_s: float, high_s: float, *, stream: int = 0) -> float | None:
    """Find a hard cut between two times by decoding all frames there.

    Args:
        low_s, high_s: seconds after the container's start, as of segments: the frame shown at `low_s` is before the
            cut, that of `high_s` behind it.
        stream: see `DecodeSettings.stream`.

    Returns:
        Time of the first frame behind the cut; None where no two frames differ much more than those around them, as in
        a dissolve.

    Raises:
        DecodeError: the file cannot be read.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> folder = tempfile.TemporaryDirectory()
        >>> film = Path(folder.name) / "film.gif"
        >>> red, rings = Image.new("RGB", (256, 256), "red"), Image.radial_gradient("L").convert("RGB")
        >>> red.save(film, save_all=True, append_images=[red, rings, rings], duration=600)
        >>> exact_cut(film, 1.0, 1.25)
        1.2
        >>> folder.cleanup()
    """
    finder, scaler = StepFinder(), None
    for time_s, timed in _frames_from(Path(path), low_s - AROUND_S, stream=stream):
        if time_s > high_s + AROUND_S:
            break
        if scaler is None:
            codec = timed.stream.codec_context.codec.canonical_name
            scaler = Scaler(THUMB_PX, orientation=orientation(timed.frame), codec=codec)
        if time_s + timed.duration_s >= low_s - AROUND_S:
            finder.add(time_s, scaler.thumbnail(timed.frame))
    inside = [step for step in finder.finish() if low_s + _EPS_S < step.after_s <= high_s + _EPS_S]
    return max(inside, key=lambda step: step.change).after_s if inside else None


def _frames_from(path: Path, start_s: float, *, stream: int) -> Iterator[tuple[float, TimedFrame]]:
    """Decode from a key frame before a time; from the start where a seek does not arrive there.

    Yields:
        Frames with their times, seconds after the container's start.
    """
    tries = EARLIER_S if start_s > 0 and _is_seekable(path, stream=stream) else ()
    for earlier_s in (*tries, math.inf):
        with open_video(path) as container, _errors_of(path):
            chosen = choose_stream(path, container, number=stream).stream
            origin, limit_s = origin_s(container, chosen), latest_end_s(container, chosen)
            if earlier_s < start_s:
                try:
                    container.seek(round((origin + start_s - earlier_s) * 1e6))
                except av.error.FFmpegError:  # a format without seeking
                    continue
            # Without a declared end, a time far behind the start would be taken for a clock jump.
            limit_s = math.inf if limit_s is None and earlier_s < start_s else limit_s
            reader = FrameReader(path, origin_s=origin, fps=1, limit_s=limit_s, tally=Tally(), skip_unshown=False)
            frames = reader.read(container, chosen)
            first = next(frames, None)
            if first is None or (first.time_s - origin > start_s and earlier_s < start_s):
                continue
            for timed in itertools.chain([first], frames):
                yield timed.time_s - origin, timed
            return


def _is_seekable(path: Path, *, stream: int) -> bool:
    """Test whether a seek arrives at the time that a frame has in a run from the start.

    It does not in AVI, where frames have no presentation times and are counted, nor where the clock jumps. That is read
    from the packets of a file without a declared end.
    """
    with open_video(path) as container, _errors_of(path):
        chosen = choose_stream(path, container, number=stream).stream
        if container.format.name == AVI:
            return False
        if latest_end_s(container, chosen) is not None:
            return True
        last = None
        for packet in container.demux(chosen):
            if packet.dts is None:
                continue
            step_s = float((packet.dts - last) * (packet.time_base or 0)) if last is not None else 0.0
            if step_s < -BACK_S or step_s > JUMP_S:
                return False
            last = packet.dts
    return True


@contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # those of FFmpeg are as well
        reason = f"cannot be decoded: {error.strerror or error}"
        raise failure(path, reason, lasting=not is_read_error(error)) from error
