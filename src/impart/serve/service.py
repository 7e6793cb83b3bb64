"""Service: what all routes of one server share."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from impart.serve.library.catalogue import Catalogue, CatalogueReader
from impart.serve.library.slow import SlowResults
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
        self._catalogue = CatalogueReader(self._store)
        self.slow = SlowResults()

    def close(self) -> None:
        """Release what the server holds; running jobs commit their video first."""
        self._catalogue.close()

    def catalogue(self, *, newest: bool = False) -> Catalogue:
        """Return the indexed videos and photos; while a large index is read after a commit, those of before.

        Args:
            newest: wait for those of the last commit.
        """
        return self._catalogue.get(newest=newest) if self.index.exists else Catalogue()

    def records(self) -> dict[str, VideoRecord]:
        """Return the indexed videos and photos by id, in the order of their paths."""
        return self.catalogue().by_id

    def check_writable(self) -> None:
        """Refuse what changes the index where the server is read-only.

        Raises:
            Problem: 403.
        """
        if self.settings.read_only:
            raise Problem(403, "read_only", "this server only reads: start it without --read-only to change the index")

    def record(self, video_id: str) -> VideoRecord:
        """Return one video or photo.

        Raises:
            Problem: 404, the index has none of this id.
        """
        record = self.records().get(video_id) or self.catalogue(newest=True).by_id.get(video_id)
        if record is None:
            raise Problem(404, "video_not_found", f"the index has no video {video_id!r}: search again, or list /videos")
        return record


def _service(request: Request) -> Service:
    service = request.app.state.service
    assert isinstance(service, Service)
    return service


ServiceDep = Annotated[Service, Depends(_service)]
