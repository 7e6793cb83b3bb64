"""Indexer that has its files decoded and encoded by workers, several at once, and commits them in this process.

One process writes, so keys are never written twice. Files are committed in the order in which they are finished; apart
from that order the rows are those of a local run. Blends with a reference set and scenes are computed here, from the
vectors that come back. Photos come back decoded and are given out again in batches, in the order of their paths: a
batch has the same photos as in a local run.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from impart.encoders.base import Encoder, ImageEmbeddings
from impart.encoders.cluster.pool import Lost, PoolAnswer, PoolEvent, Ready, UnitDone
from impart.errors import EncoderError
from impart.video.decode.sampler import DecodeFailed
from impart.video.index.engines.messages import (
    FileBegan,
    FileEnded,
    Files,
    FramesEncoded,
    Message,
    PhotoDecoded,
    Photos,
    PhotosEncoded,
)
from impart.video.index.engines.shards import TRIES, Shards
from impart.video.index.events import (
    Counts,
    Event,
    VideoDone,
    VideoProgress,
    WorkerDone,
    WorkerLost,
    WorkerReady,
)
from impart.video.index.files.plan import IndexTask
from impart.video.index.indexer import Indexer, _Photo
from impart.video.index.video_buffer import VideoBuffer
from impart.video.index.writer import Writer
from impart.video.scenes.samples import grey_thumbnail

__all__ = ["ShardedIndexer", "Workers"]

MOST_PHOTOS = 256  # decoded photos in memory, before workers get no more new files
REMEDY = "mount its folder at the same path on every machine (docs/many-machines.md)"


class Workers(Protocol):
    """Workers that compute units, such as `impart.encoders.cluster.pool.Pool`."""

    @property
    def workers(self) -> int: ...

    def run(self, next_unit: Callable[[], Any]) -> Iterator[PoolEvent]: ...


class ShardedIndexer(Indexer):
    """Carries out one plan with workers.

    Args:
        writer: of the index, entered.
        encoder: base or augmented, as in the index's manifest.
        workers: makes the workers; called when there is a file to decode.
        batch: images per forward pass.
    """

    def __init__(
        self,
        writer: Writer,
        encoder: Encoder,
        *,
        workers: Callable[[], AbstractContextManager[Workers]],
        batch: int,
    ) -> None:
        super().__init__(writer, encoder, decoder=None, batch=batch)
        self._make_workers = workers

    def _decode_readable(self, tasks: Sequence[IndexTask]) -> Iterator[Event]:
        if not tasks:
            return
        began = time.monotonic()
        with self._make_workers() as workers:
            run = _Run(tasks, batch=self._batch, workers=workers.workers)
            for event in workers.run(run.next_unit):
                match event:
                    case PoolAnswer():
                        for told in self._answer(run, event):
                            if isinstance(told, VideoDone | VideoProgress):
                                yield dataclasses.replace(told, worker=event.worker)
                            else:
                                yield told
                    case Ready():
                        run.hosts[event.worker] = event.host
                        yield WorkerReady(worker=event.worker, host=event.host, pid=event.pid)
                    case Lost():
                        yield from self._lost(run, event)
                    case UnitDone():
                        pass
            elapsed_s = time.monotonic() - began
            yield from (
                WorkerDone(worker=worker, host=host, files=run.files_of[worker], elapsed_s=elapsed_s)
                for worker, host in sorted(run.hosts.items())
            )

    def _answer(self, run: _Run, answer: PoolAnswer) -> Iterator[Event]:
        """Take one message of a worker."""
        message: Message = answer.message
        match message:
            case FileBegan():
                yield from self._file_began(run, message)
            case FramesEncoded():
                video = run.videos[message.path]
                video.add_thumbs(message.thumbs)
                yield from self._take(video, _as_future(message.made, message.failure), message.times)
            case FileEnded():
                video = run.videos.pop(message.path)
                run.end(message.path)
                run.files_of[answer.worker] += 1
                item = message.item
                if message.unseen:
                    assert isinstance(item, DecodeFailed)
                    item = dataclasses.replace(item, reason=_unseen(video.task, item.reason, host=answer.host))
                yield from self._end(video, item)
            case PhotoDecoded():
                video = self._buffer(run.tasks[message.path], message.digest)
                video.add_thumbs([grey_thumbnail(message.image)])
                run.files_of[answer.worker] += 1
                run.add_photo(_Photo(video, message.item, message.image, message.times))
            case PhotosEncoded():
                photos = run.batches.pop(message.number)
                yield from self._take_photos(photos, _as_future(message.made, message.failure))

    def _file_began(self, run: _Run, message: FileBegan) -> Iterator[Event]:
        video = self._buffer(run.tasks[message.path], message.digest, failed=message.failed)
        run.videos[message.path] = video
        run.is_no_photo(message.path)
        if message.path in run.announced:  # a worker that is gone had begun it
            video.video_id = self._video_id(video.task)
            return
        run.announced.add(message.path)
        yield from self._begin(video, announce=not message.failed)

    def _lost(self, run: _Run, lost: Lost) -> Iterator[Event]:
        """Give the unit of a lost worker to others, and report a file that has cost several."""
        run.hosts.pop(lost.worker, None)
        unit, again = lost.unit, 0
        failed: list[IndexTask] = []
        if isinstance(unit, Files):
            left, failed = run.shards.lost(unit)
            again = len(left) - len(failed)
            for task in left:
                video = run.videos.pop(task.file.path, None)
                if video is not None:
                    self._forget(video)
        elif isinstance(unit, Photos):
            again = len(unit.images)
            run.losses[unit.number] += 1
            if run.losses[unit.number] < TRIES:
                run.again.append(unit)
            else:
                again, failed = 0, [photo.buffer.task for photo in run.batches.pop(unit.number)]
        yield WorkerLost(worker=lost.worker, host=lost.host, files=again)
        for task in failed:
            run.end(task.file.path)
            reason = f"{TRIES} workers were lost while they read it, the last one on {lost.host}"
            yield self._fail(task, reason, lasting=False)

    def _forget(self, video: VideoBuffer) -> None:
        """Drop what a lost worker has sent of a video; the next one begins it again."""
        self._counts += Counts(encoded=-video.encoded)
        if video.written:
            self._writer.discard([(video.video_id, video.revision)])


class _Run:
    """State of one run: which file is where.

    Attributes:
        tasks: by path; videos: begun and not ended.
        shards: files that wait for workers.
        announced: paths whose start was reported.
        batches: photos that are being encoded; again: units of these to give out again; losses: of each.
        hosts: machine of each worker; files_of: files that it decoded.
    """

    def __init__(self, tasks: Sequence[IndexTask], *, batch: int, workers: int) -> None:
        self.tasks = {task.file.path: task for task in tasks}
        self.videos: dict[Path, VideoBuffer] = {}
        self.shards = Shards(tasks, workers=workers)
        self.announced: set[Path] = set()
        self.batches: dict[int, list[_Photo]] = {}
        self.again: deque[Photos] = deque()
        self.losses: Counter[int] = Counter()
        self.hosts: dict[int, str] = {}
        self.files_of: Counter[int] = Counter()
        self._batch = batch
        self._in_order = deque(self.tasks)  # paths, from the first that may yet be a photo
        self._open = set(self.tasks)  # paths of which it is not known whether they are photos
        self._early: dict[Path, _Photo] = {}  # behind an open path
        self._photos: list[_Photo] = []  # that wait for their batch
        self._batches_made = 0

    def next_unit(self) -> Files | Photos | None:
        """Take the next unit for a worker: photos first, since they are in memory."""
        if self.again:
            return self.again.popleft()
        if len(self._photos) >= self._batch or (self._photos and not self._in_order):
            photos, self._photos = self._photos[: self._batch], self._photos[self._batch :]
            self._batches_made += 1
            self.batches[self._batches_made] = photos
            return Photos(self._batches_made, tuple(photo.image for photo in photos))
        return self.shards.next(new=len(self._photos) + len(self._early) < MOST_PHOTOS)

    def end(self, path: Path) -> None:
        """Record that a file needs no worker any more."""
        self.shards.ended(path)
        self.is_no_photo(path)

    def is_no_photo(self, path: Path) -> None:
        """Record that photos behind this file need not wait for it."""
        self._open.discard(path)
        while self._in_order and self._in_order[0] not in self._open:
            photo = self._early.pop(self._in_order.popleft(), None)
            if photo is not None:
                self._photos.append(photo)

    def add_photo(self, photo: _Photo) -> None:
        """Record a decoded photo. Batches are made in the order of paths."""
        self._early[photo.item.path] = photo
        self.end(photo.item.path)


def _as_future(made: ImageEmbeddings | None, failure: str) -> Future[ImageEmbeddings]:
    """Make the result of an encoder of what a worker sent."""
    future: Future[ImageEmbeddings] = Future()
    if made is not None:
        future.set_result(made)
    else:
        future.set_exception(EncoderError(failure))
    return future


def _unseen(task: IndexTask, reason: str, *, host: str) -> str:
    """Complete the reason why a worker cannot read a file that it does not see, or sees differently."""
    try:
        same_here = os.stat(task.file.path).st_size == task.file.size_bytes  # noqa: PTH116
    except OSError:
        same_here = False
    if not same_here:
        return "it was changed or removed during the run"
    return f"on the worker's machine {host}, {reason}: {REMEDY}"
