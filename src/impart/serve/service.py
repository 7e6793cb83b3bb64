"""Service: what all routes of one server share."""

from __future__ import annotations

import threading
from typing import Annotated

from fastapi import Depends, Request

from impart.serve.problems import Problem
from impart.serve.settings import ServeSettings
from impart.video.index.index import VideoIndex
from impart.video.index.store import Store, VideoRecord

__all__ = ["Service", "ServiceDep"]


class Service:
    """The index and the helpers of one server; made by `create_app`, closed when the server ends.

    Args:
        settings: of the server.

    Raises:
        VideoIndexError: the index is damaged.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self.settings = settings
        self.index = VideoIndex.open(settings.index)
        self._store = Store(self.index.path)
        self._lock = threading.Lock()
        self._records: tuple[str, dict[str, VideoRecord]] = ("", {})

    def close(self) -> None:
        """Release what the server holds; running jobs commit their video first."""

    def records(self) -> dict[str, VideoRecord]:
        """Return the indexed videos and photos by id, in the order of their paths; read again only after a commit."""
        if not self.index.exists:
            return {}
        with self._lock:
            state = self._store.state()
            if self._records[0] != state:
                self._records = state, {record.video_id: record for record in self._store.retry(self._store.videos)}
            return self._records[1]

    def record(self, video_id: str) -> VideoRecord:
        """Return one video or photo.

        Raises:
            Problem: 404, the index has none of this id.
        """
        record = self.records().get(video_id)
        if record is None:
            raise Problem(404, "video_not_found", f"the index has no video {video_id!r}: search again, or list /videos")
        return record


def _service(request: Request) -> Service:
    service = request.app.state.service
    assert isinstance(service, Service)
    return service


ServiceDep = Annotated[Service, Depends(_service)]
