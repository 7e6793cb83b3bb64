"""Find copies of a clip in an index: candidates by votes, then alignment in time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from impart.video.copies.candidates import places
from impart.video.copies.frames import FrameRun, IndexedFrames
from impart.video.copies.matching import COPY, parallels
from impart.video.copies.spans import AlignedSpan, joined

__all__ = ["CHUNK_S", "FASTEST", "chunks", "find"]

CHUNK_S = 20.0
"""Seconds of a clip that are compared at once; the next chunk starts half as much later."""
FASTEST = 1.3
"""Largest speed, with some room: seconds of the indexed video per second of the clip."""

_ROOM_S = 2.0  # a block and a bit, on either side of the place that was voted for


def find(
    views: Sequence[FrameRun],
    frames: IndexedFrames,
    *,
    fps: float,
    allowed: npt.NDArray[np.bool_] | None = None,
    least: float = COPY,
) -> dict[int, list[AlignedSpan]]:
    """Find the parts of indexed videos that show what a clip shows.

    Args:
        views: the clip as it is, and mirrored if wanted.
        fps: samples per second of the time grid on which videos are aligned.
        allowed: (V,) videos that may be returned; None = all.
        least: smallest score of a span.

    Returns:
        By the number of the video: spans, most evidence first.
    """
    found: dict[int, list[AlignedSpan]] = {}
    for parts in zip(*map(chunks, views), strict=True):
        reach_s = FASTEST * float(parts[0].ends_s[-1] - parts[0].starts_s[0]) + _ROOM_S
        for place in places(parts, frames.blocks, allowed=allowed):
            window = frames.window(place.video, place.start_s - reach_s, place.end_s + reach_s)
            for mirrored, part in enumerate(parts):
                spans = parallels(part, window, frames.background, fps=fps, least=least)
                if spans:
                    own = found.setdefault(place.video, [])
                    own += [AlignedSpan.of(span, mirrored=bool(mirrored)) for span in spans]
    return {video: joined(spans) for video, spans in found.items()}


def chunks(clip: FrameRun) -> Iterator[FrameRun]:
    """Split a clip into chunks of `CHUNK_S` that overlap by half: a copy of half a chunk lies in one of them whole."""
    if not len(clip):
        return
    first_s, end_s = float(clip.starts_s[0]), float(clip.ends_s[-1])
    count = max(1, int(np.ceil((end_s - first_s) / (CHUNK_S / 2) - 1e-6)) - 1)
    for number in range(count):
        start_s = first_s + number * CHUNK_S / 2
        stop_s = start_s + CHUNK_S if number < count - 1 else np.inf
        low = int(np.searchsorted(clip.ends_s, start_s, side="right"))
        high = int(np.searchsorted(clip.starts_s, stop_s, side="left"))
        if high > low:
            part = slice(low, high)
            yield FrameRun(clip.rows[part], clip.levels[part], clip.starts_s[part], clip.ends_s[part])
