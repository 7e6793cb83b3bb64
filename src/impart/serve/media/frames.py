"""Frame images: the frame of a video at a time, or a photo, as WebP, on a bounded disk cache.

A frame is decoded from the key frame before it; on the way, frames that no other refers to are left out. It is upright,
in square pixels and in SDR, as the index sees it. One frame is decoded once, also when several clients ask for it.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from PIL import Image
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from impart.images import load_image
from impart.serve.media.disk_cache import DiskCache
from impart.serve.media.files import tag_of
from impart.serve.media.sources import content_key, jumps_in
from impart.serve.media.work import CancelledWorkError, Work
from impart.video.decode.frames.side_data import orientation
from impart.video.decode.scaling import MAX_ASPECT
from impart.video.export.source.frames import ShownFrame, scaler_of, shown_frame
from impart.video.index.store import VideoRecord

__all__ = ["WIDTHS_PX", "FrameImages", "frame_webp", "width_for"]

WIDTHS_PX = (160, 320, 640, 960, 1920)
FORM = 1  # part of the keys of kept images: raised when they change
QUALITY = 78
METHOD = 2  # of libwebp: half the time of the default, files 3% larger
TALLEST = 4  # height over width of the tallest image


def width_for(wanted_px: int) -> int:
    """Choose the width to make for a wanted one: the next larger of a few, so that the cache holds few sizes.

    >>> width_for(300), width_for(320), width_for(5000)
    (320, 320, 1920)
    """
    return next((width for width in WIDTHS_PX if width >= wanted_px), WIDTHS_PX[-1])


def frame_webp(record: VideoRecord, time_s: float, *, width_px: int) -> bytes:
    """Make the WebP image of the frame that is shown at a time, or of a photo.

    Args:
        time_s: from the start of the video; behind its end, the last frame is taken.
        width_px: of the image; smaller ones are not enlarged.

    Raises:
        DataError, DecodeError: the file is gone, or cannot be decoded.
    """
    if record.kind == "photo":
        image = load_image(record.path, draft_px=width_px)[0]
    else:
        image = _frame(shown_frame(record.path, time_s, jumps=jumps_in(record)), width_px=width_px)
    image.thumbnail((width_px, TALLEST * width_px), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    image.save(content, "WEBP", quality=QUALITY, method=METHOD)
    return content.getvalue()


def _frame(shown: ShownFrame, *, width_px: int) -> Image.Image:
    """Scale a frame to a width, upright and in SDR."""
    wide, high = max(1.0, shown.frame.width * float(shown.aspect)), float(shown.frame.height)
    if orientation(shown.frame)[0]:
        wide, high = high, wide
    short_px = min(wide, high) * min(1.0, width_px / min(wide, MAX_ASPECT * high))
    return Image.fromarray(scaler_of(shown, short_side_px=max(1, round(short_px))).image(shown.frame))


class FrameImages:
    """Makes frame images for the server.

    Args:
        folder: of the cache.
        most_bytes: of the cache.
        workers: frames decoded at the same time.
        most_waiting: frames beyond these, before requests are refused.
        on_made: called in a worker thread with the seconds that a frame took.
    """

    def __init__(
        self,
        folder: Path,
        *,
        most_bytes: int,
        workers: int,
        most_waiting: int,
        on_made: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._on_made = on_made
        self._cache = DiskCache(folder, most_bytes=most_bytes, suffix=".webp")
        self._work: Work[bytes] = Work(workers=workers, most_waiting=most_waiting, retry_s=2)

    def key(self, record: VideoRecord, time_s: float, *, width_px: int) -> str:
        """Make the key of an image, from the present file."""
        ms = 0 if record.kind == "photo" else round(time_s * 1000)
        return f"{content_key(record)} {FORM} {ms} {width_px}"

    def tag(self, key: str) -> str:
        """Make the strong entity tag of an image."""
        return tag_of("frame", key)

    async def webp(
        self, record: VideoRecord, time_s: float, *, width_px: int, key: str, request: Request | None = None
    ) -> bytes:
        """Read an image of the cache, or make it.

        Args:
            key: see `key`.
            request: of the client that waits, see `Work.result`.

        Raises:
            BusyError: too many are waiting.
            CancelledWorkError: the client is gone.
            DataError, DecodeError: the file is gone, or cannot be decoded.
        """

        def make(cancelled: threading.Event) -> bytes:
            content = self._cache.read(key)
            if content is not None:
                return content
            if cancelled.is_set():
                raise CancelledWorkError
            began = time.perf_counter()
            content = frame_webp(record, round(time_s * 1000) / 1000, width_px=width_px)
            self._on_made(time.perf_counter() - began)
            with suppress(OSError), self._cache.writing(key) as part:
                part.write_bytes(content)
            return content

        kept = await run_in_threadpool(self._cache.read, key)
        return kept if kept is not None else await self._work.result(key, make, request=request)

    def close(self) -> None:
        """Stop decoding."""
        self._work.close()
