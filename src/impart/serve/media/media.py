"""Frame images and previews of one server, with their shares of the cache."""

from __future__ import annotations

import os
from pathlib import Path

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
    """

    def __init__(self, folder: Path, *, cache_mb: int) -> None:
        cores = os.cpu_count() or 1
        self.frames = FrameImages(
            folder / "frames",
            most_bytes=round(cache_mb * 1e6 * FRAMES_SHARE),
            workers=max(2, min(MOST_DECODERS, cores)),
            most_waiting=WAITING_FRAMES,
        )
        self.previews = Previews(
            folder / "previews",
            most_bytes=round(cache_mb * 1e6 * PREVIEWS_SHARE),
            workers=max(1, min(2, cores // 2)),
            most_waiting=WAITING_PREVIEWS,
        )

    def close(self) -> None:
        """Stop decoding and encoding."""
        self.frames.close()
        self.previews.close()
