"""Frame images on a bounded disk cache: one frame is decoded once, also when several clients ask for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from impart.serve.media.disk_cache import DiskCache
from impart.serve.media.files import tag_of
from impart.serve.media.sources import content_key
from impart.serve.media.work import CancelledWorkError, Work
from impart.serve.media.worker.images import FORM
from impart.serve.media.worker.process import WorkerProcesses
from impart.serve.media.worker.source import MediaSource
from impart.video.index.store import VideoRecord

__all__ = ["WIDTHS_PX", "FrameImages", "width_for"]

WIDTHS_PX = (160, 320, 640, 960, 1920)


def width_for(wanted_px: int) -> int:
    """Choose the width to make for a wanted one: the next larger of a few, so that the cache holds few sizes.

    >>> width_for(300), width_for(320), width_for(5000)
    (320, 320, 1920)
    """
    return next((width for width in WIDTHS_PX if width >= wanted_px), WIDTHS_PX[-1])


class FrameImages:
    """Makes frame images for the server.

    Args:
        folder: of the cache.
        most_bytes: of the cache.
        workers: frames decoded at the same time, each in a process.
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
        self._processes = WorkerProcesses()
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
            content = self._processes.request(
                {
                    "task": "frame",
                    "source": MediaSource.of(record).to_json(),
                    "time_s": round(time_s * 1000) / 1000,
                    "width_px": width_px,
                }
            )
            self._on_made(time.perf_counter() - began)
            with suppress(OSError), self._cache.writing(key) as part:
                part.write_bytes(content)
            return content

        kept = await run_in_threadpool(self._cache.read, key)
        return kept if kept is not None else await self._work.result(key, make, request=request)

    def warm(self) -> None:
        """Start the worker processes, so that the first frames need not wait for them."""
        self._work.in_all_threads(self._processes.start)

    def close(self) -> None:
        """Stop decoding."""
        self._processes.close()
        self._work.close()
