"""Service: what all routes of one server share."""

from __future__ import annotations

import dataclasses
import time
from typing import Annotated, Literal

from fastapi import Depends, Request

from impart.config import EncoderSettings, Settings
from impart.serve.jobs.progress.streams import Streams
from impart.serve.jobs.queue import JobQueue
from impart.serve.library.catalogue import Catalogue, CatalogueReader
from impart.serve.library.slow import SlowResults
from impart.serve.media.media import Media
from impart.serve.metrics import Metrics
from impart.serve.problems import Problem
from impart.serve.search.images import QueryImages
from impart.serve.search.refresher import Refresher
from impart.serve.search.service import SearchService
from impart.serve.settings import ServeSettings
from impart.video.index.index import VideoIndex
from impart.video.index.manifest import IndexManifest
from impart.video.index.stats import IndexStats
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
        self.index = VideoIndex.open(settings.index, settings=_settings_of_index(settings))
        self.metrics = Metrics()
        self.metrics.watch(self.records)
        self.media = Media(settings.cache_folder, cache_mb=settings.cache_mb, on_made=self._made)
        self.refresher = Refresher(self.index)
        self.searches = SearchService(self.index, waiting=settings.waiting_searches, observe=self.metrics.observe)
        self.images = QueryImages(
            settings.cache_folder / "query-images",
            megapixels=settings.upload_megapixels,
        )
        self._store = Store(self.index.path)
        self._catalogue = CatalogueReader(self._store)
        self.slow = SlowResults()
        self._stats: tuple[str, IndexStats] | None = None
        self._count_again_at = 0.0
        self.jobs = JobQueue(
            self.index.path,
            records=self.records,
            exports=settings.cache_folder / "exports",
            roots=settings.roots,
            settings=dataclasses.replace(settings.jobs, device=settings.device),
            on_indexed=self.refresher.catch_up,
        )
        self.streams = Streams(settings.jobs.streams)

        self.metrics.gauge("jobs_running", "Jobs that run now.", self.jobs.count_running)

    def _made(self, what: Literal["frames", "previews"], seconds: float) -> None:
        self.metrics.observe("decode" if what == "frames" else "previews", seconds)

    def close(self) -> None:
        """Release what the server holds; running jobs commit their video first."""
        self.jobs.close()
        self.media.close()
        self.refresher.close()
        self.searches.close()
        self._catalogue.close()

    def stats(self) -> IndexStats | None:
        """Count what the index contains, again only after a commit; None before it is created.

        A job commits all the time: while one runs, counting takes at most a tenth of the time.
        """
        if not self.index.exists:
            return None
        state, known, began = self._store.state(), self._stats, time.monotonic()
        late = began < self._count_again_at and self.jobs.running("index") is not None
        if known is None or (known[0] != state and not late):
            known = self._stats = state, self.index.stats()
            now = time.monotonic()
            self._count_again_at = now + 9 * (now - began)
        return known[1]

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


def _settings_of_index(settings: ServeSettings) -> Settings | None:
    """Settings of the index with the device of the server; None where the device is left to the rule."""
    if settings.device == "auto":
        return None
    encoder = EncoderSettings(device=settings.device)
    if not IndexManifest.exists(settings.index):
        return Settings(encoder=encoder)
    manifest = IndexManifest.load(settings.index)
    return Settings(encoder=encoder, decode=manifest.decode, index=manifest.index)


def _service(request: Request) -> Service:
    service = request.app.state.service
    assert isinstance(service, Service)
    return service


ServiceDep = Annotated[Service, Depends(_service)]
