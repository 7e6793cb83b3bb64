"""Warm-up: loads the model and the index in the background when the server starts, so that the first search is fast."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor

from impart.errors import ImpartError
from impart.serve.problems import Problem
from impart.video.index.index import VideoIndex

__all__ = ["WarmUp"]


class WarmUp:
    """The state of one server's model and index in memory.

    Args:
        index: what is searched.
    """

    def __init__(self, index: VideoIndex) -> None:
        self._index = index
        self._lock = threading.Lock()
        self._loading: Future[None] | None = None

    def start(self) -> None:
        """Start loading, unless it is loaded or being loaded, or there is no index yet."""
        with self._lock:
            failed = self._loading is not None and self._loading.done() and self._loading.exception() is not None
            if (self._loading is None or failed) and self._index.exists:
                pool = ThreadPoolExecutor(1, thread_name_prefix="impart-warm-up")
                self._loading = pool.submit(self._load)
                pool.shutdown(wait=False)

    def check(self) -> None:
        """Check that a search is answered without loading anything first; loading starts again where it failed.

        Raises:
            Problem: 503, with the reason.
        """
        if not self._index.exists:
            raise Problem(503, "no_index", f"there is no index at {self._index.path}: impart index FOLDER")
        loading, later = self._loading, {"Retry-After": "1"}
        self.start()
        if loading is None or not loading.done():
            raise Problem(503, "warming_up", "the model and the index are being loaded", headers=later)
        if (error := loading.exception()) is not None:
            shown = str(error) if isinstance(error, ImpartError) else f"{type(error).__name__}: {error}"
            raise Problem(503, "not_ready", f"the index cannot be searched: {shown}", headers=later)

    def _load(self) -> None:
        self._index.search(text="a person", top=1)
