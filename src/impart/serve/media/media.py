"""Frame images and previews of one server, with their shares of the cache."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from impart.serve.media.frames import FrameImages
from impart.serve.media.previews import Previews

__all__ = ["Media"]

FRAMES_SHARE, PREVIEWS_SHARE = 0.25, 0.5  # of the cache; the rest is for query images and exports
MOST_DECODERS = 4
WAITING_FRAMES, WAITING_PREVIEWS = 256, 8


class Media:
    """Makes what the routes of media serve.

    Args:
        folder: of the cache; `frames/` and `previews/` are made in it when they are needed.
        cache_mb: of the whole cache, in megabytes.
        on_made: called from any thread with what was made, and the seconds that it took.
    """

    def __init__(
        self,
        folder: Path,
        *,
        cache_mb: int,
        on_made: Callable[[Literal["frames", "previews"], float], None] = lambda _, __: None,
    ) -> None:
        cores = os.cpu_count() or 1
        self.frames = FrameImages(
            folder / "frames",
            most_bytes=round(cache_mb * 1e6 * FRAMES_SHARE),
            workers=max(2, min(MOST_DECODERS, cores)),
            most_waiting=WAITING_FRAMES,
            on_made=lambda seconds: on_made("frames", seconds),
        )
        self.previews = Previews(
            folder / "previews",
            most_bytes=round(cache_mb * 1e6 * PREVIEWS_SHARE),
            workers=max(1, min(2, cores // 2)),
            most_waiting=WAITING_PREVIEWS,
            on_made=lambda seconds: on_made("previews", seconds),
        )

    def warm(self) -> None:
        """Start what the first frames would wait for."""
        self.frames.warm()

    def close(self) -> None:
        """Stop decoding and encoding."""
        self.frames.close()
        self.previews.close()
