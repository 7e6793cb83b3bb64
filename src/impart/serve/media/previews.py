"""Previews: spans of videos that browsers do not play, made on demand as MP4 files and kept on a bounded disk cache.

One preview is made once, a few at a time, in processes of low priority. A preview that nobody waits for any more is
dropped. A span longer than the limit is cut.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from impart.serve.media.disk_cache import DiskCache
from impart.serve.media.files import FileGoneError, OpenFile, open_file, tag_of
from impart.serve.media.sources import content_key
from impart.serve.media.work import Work
from impart.serve.media.worker.process import WorkerProcesses
from impart.serve.media.worker.source import MediaSource
from impart.serve.media.worker.transcode import FORM
from impart.video.index.store import VideoRecord

__all__ = ["MOST_S", "PreviewSpan", "Previews"]

MOST_S = 120.0
NICE = 10  # searches and frames go first
_TRIES = 3  # another process may delete a preview before it is opened


@dataclass(frozen=True, kw_only=True)
class PreviewSpan:
    """The span of a preview, in seconds after the start of the video.

    Attributes:
        cut: whether it ends before the span that was asked for.
    """

    start_s: float
    end_s: float
    cut: bool

    @classmethod
    def of(cls, start_s: float, end_s: float, *, duration_s: float) -> PreviewSpan:
        """Bring a span into a video and below the limit, in whole milliseconds.

        >>> PreviewSpan.of(10, 500, duration_s=300)
        PreviewSpan(start_s=10.0, end_s=130.0, cut=True)
        """
        start_s = round(start_s, 3)
        wanted_s = min(round(end_s, 3), max(duration_s, start_s + 1e-3))
        end_s = min(wanted_s, start_s + MOST_S)
        return cls(start_s=float(start_s), end_s=float(end_s), cut=end_s < wanted_s)


class Previews:
    """Makes previews for the server.

    Args:
        folder: of the cache.
        most_bytes: of the cache.
        workers: previews made at the same time.
        most_waiting: previews beyond these, before requests are refused.
        on_made: called in a worker thread with the seconds that a preview took.
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
        self._processes = WorkerProcesses(nice=NICE)
        self._cache = DiskCache(folder, most_bytes=most_bytes, suffix=".mp4")
        self._work: Work[None] = Work(workers=workers, most_waiting=most_waiting, retry_s=5)

    async def opened(
        self, record: VideoRecord, span: PreviewSpan, *, request: Request | None = None
    ) -> tuple[OpenFile, str]:
        """Open a preview, which is made where the cache lacks it; also returns its strong entity tag.

        Args:
            request: of the client that waits, see `Work.result`.

        Raises:
            BusyError: too many are waiting.
            CancelledWorkError: the client is gone.
            DataError, DecodeError: the file is gone, or cannot be decoded.
            OSError: the cache cannot be written.
        """
        key = await run_in_threadpool(_key, record, span)

        def make(cancelled: threading.Event) -> None:
            if self._cache.path(key) is None:
                began = time.perf_counter()
                with self._cache.writing(key) as part:
                    request = {
                        "task": "preview",
                        "source": MediaSource.of(record).to_json(),
                        "start_s": span.start_s,
                        "end_s": span.end_s,
                        "target": str(part),
                    }
                    self._processes.request(request, cancelled=cancelled)
                self._on_made(time.perf_counter() - began)

        for left in reversed(range(_TRIES)):
            try:
                opened = await run_in_threadpool(self._open, key)
            except FileGoneError:
                if not left:
                    raise OSError("the preview was deleted at once: the cache is too small") from None
                await self._work.result(key, make, request=request)
            else:
                return opened, tag_of("preview", key, opened.size)
        raise AssertionError

    def close(self) -> None:
        """Stop the work."""
        self._processes.close()
        self._work.close()

    def _open(self, key: str) -> OpenFile:
        path = self._cache.path(key)
        if path is None:
            raise FileGoneError("not made yet")
        return open_file(path)


def _key(record: VideoRecord, span: PreviewSpan) -> str:
    return f"{content_key(record)} {FORM} {round(span.start_s * 1000)} {round(span.end_s * 1000)}"
