"""Indexer: decodes, encodes, cuts into scenes and commits the files of a plan, one after another, sorted by path.

Decoding runs ahead in a process of its own, encoding in a thread of this one, and encoded rows are written meanwhile:
no core waits for another step. Steps are carried out, and their events yielded, strictly in order. A batch never
contains frames of two videos, so the stored rows depend on the file alone and not on where a run was interrupted.

Photos are collected, encoded and committed in batches, while videos between them go on. Batches change the embedding of
a photo by rounding alone (3e-8 with `mini`, of which float16 keeps nothing but for one number in 8,000).
"""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from impart.blending.encoder import AugmentedEncoder
from impart.encoders.base import Encoder, ImageEmbeddings
from impart.errors import EncoderError, ImpartError, VideoIndexError
from impart.files import blake2b_hex
from impart.video.decode.sampler import DecodedSegment, DecodeFailed, DecodeFinished
from impart.video.index.events import (
    Action,
    Counts,
    Event,
    VideoAbsent,
    VideoCopied,
    VideoDone,
    VideoFailed,
    VideoMoved,
    VideoProgress,
    VideoRemoved,
    VideoSkipped,
    VideoStarted,
)
from impart.video.index.files.plan import IndexPlan, IndexTask, hash_of
from impart.video.index.store import UNREAD, VideoRecord, is_current, path_id, revision_of
from impart.video.index.video_buffer import Times, VideoBuffer, take_photos
from impart.video.index.writer import CHUNK_ROWS, Writer

__all__ = ["Indexer", "VideoSource"]

_READ_AGAIN = "; the next run reads it again"
MOST_SAMPLES = 2**31 - 1  # of a column of the store
_AHEAD = 2  # batches given to the encoder and not yet taken back


class VideoSource(Protocol):
    """A decoder of many files, such as `impart.video.decode.decoder.Decoder`."""

    def decode(self, paths: Iterable[Path]) -> Iterator[DecodedSegment | DecodeFinished | DecodeFailed]: ...


@dataclass(frozen=True)
class _Step:
    """A step that is carried out in its turn, when the encoder has finished the batch that it needs."""

    do: Callable[[], Iterable[Event]]
    needs: Future[ImageEmbeddings] | None = None


@dataclass(frozen=True)
class _Photo:
    """A decoded photo that waits for its batch."""

    buffer: VideoBuffer
    item: DecodeFinished
    image: npt.NDArray[np.uint8]
    times: Times


@contextmanager
def _errors_of(video: VideoBuffer) -> Iterator[None]:
    """Make any error the failure of one video, but for those of the index itself."""
    try:
        yield
    except VideoIndexError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever one video raises, the rest of the run goes on
        video.failure = f"cannot be stored: {type(error).__name__}: {error}"


class Indexer:
    """Carries out one plan.

    Args:
        writer: of the index, entered.
        encoder: base or augmented, as in the index's manifest.
        decoder: decodes the files; None in a subclass that has them decoded elsewhere.
        batch: images per forward pass.
    """

    def __init__(self, writer: Writer, encoder: Encoder, *, decoder: VideoSource | None, batch: int) -> None:
        self._writer = writer
        self._encoder = encoder
        self._base = encoder.base if isinstance(encoder, AugmentedEncoder) else encoder
        self._decoder = decoder
        self._batch = batch
        self._precision = writer.manifest.index.precision
        self._counts = Counts()
        self._files_total = 0
        self._bytes_done = self._bytes_total = 0
        self._number = 0
        self._since_compaction = 0
        self._steps: deque[_Step] = deque()
        self._began = time.monotonic()

    def run(self, plan: IndexPlan) -> Generator[Event, None, Counts]:
        """Carry out the plan.

        Yields:
            An event per file, see `impart.video.index.events`.

        Returns:
            What was done.

        Raises:
            VideoIndexError: the index cannot be written; committed videos stay.
            EncoderError: the encoder cannot encode any image, such as one with a damaged model file.
        """
        writer = self._writer
        if plan.of("add", "update"):
            self._check_encoder()
        if plan.remove:
            writer.remove(plan.remove)
            self._counts += Counts(removed=len(plan.remove))
            yield from (VideoRemoved(path=record.path) for record in plan.remove)
        writer.forget_failures(plan.forget)
        yield from self._without_decoding(plan)
        decoded = plan.of("add", "update")
        yield from self._decode(decoded)
        # Copies come last: their original may have been new itself.
        wanted = {task.content_hash for task in plan.of("copy")}
        originals = {
            record.content_hash: record
            for record in reversed(list(writer.videos.values()))
            if record.content_hash in wanted and record.problem is None and is_current(record, writer.manifest)
        }
        orphans: list[IndexTask] = []
        copies: list[tuple[VideoRecord, VideoRecord]] = []
        for task in plan.of("copy"):
            original = originals.get(task.content_hash or "")
            if original is None:  # it could not be read whole: try this file by itself
                action: Action = "add" if task.replaced is None else "update"
                orphans.append(dataclasses.replace(task, action=action, record=task.replaced))
                continue
            copies.append((original, self._record_at(task, original, video_id=self._video_id(task))))
        writer.copy(copies)
        self._counts += Counts(copied=len(copies))
        yield from (VideoCopied(path=record.path, original=original.path) for original, record in copies)
        yield from self._decode(orphans)
        return self._counts

    def _check_encoder(self) -> None:
        """Encode a blank image: a model that does not load is one error, not a failure of every video."""
        side = self._base.traits.image_size_px
        try:
            self._base.encode_images([np.zeros((side, side, 3), dtype=np.uint8)])
        except ImpartError:
            raise
        except Exception as error:  # anybody may write an encoder
            raise EncoderError(
                f"encoder {self._base.traits.id!r} cannot encode a blank image ({error}); no video was read"
            ) from error

    def _without_decoding(self, plan: IndexPlan) -> Iterator[Event]:
        """Carry out what changes rows of `videos` alone: however many files, it is one commit."""
        tasks = plan.of("touch", "move")
        # First: a path belongs to one video at any moment. The content of these is no longer there.
        replaced = [task.replaced for task in tasks if task.replaced is not None]
        if replaced:
            self._writer.remove(replaced)
        known = [(task, task.record) for task in tasks if task.record is not None]
        self._writer.update([self._record_at(task, record, video_id=record.video_id) for task, record in known])
        self._writer.forget_failures([task.file.path for task in tasks])
        for task, record in known:
            if task.action == "move":
                self._counts += Counts(moved=1)
                yield VideoMoved(path=task.file.path, old_path=record.path)
        for task in plan.of("skip"):
            assert task.failure is not None
            if task.failure.no_video:
                self._counts += Counts(no_video=1)
                continue
            self._counts += Counts(skipped=1)
            yield VideoSkipped(path=task.file.path, reason=task.failure.reason, attempts=task.failure.attempts)

    def _decode(self, tasks: Sequence[IndexTask]) -> Iterator[Event]:
        """Decode, encode and commit files."""
        self._files_total += len(tasks)
        self._bytes_total += sum(task.file.size_bytes for task in tasks)
        for task in tasks:
            if task.file.problem is not None:
                yield self._fail(task, task.file.problem, lasting=task.file.lasting)
        yield from self._decode_readable([task for task in tasks if task.file.problem is None])

    def _decode_readable(self, tasks: Sequence[IndexTask]) -> Iterator[Event]:
        """Decode, encode and commit files that can be opened."""
        assert self._decoder is not None
        hashes: dict[Path, str | None] = {}
        by_path = {task.file.path: task for task in tasks}

        def paths() -> Iterator[Path]:
            for task in tasks:
                hashes[task.file.path] = task.content_hash or hash_of(task.file)
                yield task.file.path

        video: VideoBuffer | None = None
        photos: list[_Photo] = []
        executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="impart-encoder")
        try:
            for item in self._decoder.decode(paths()):
                if video is None:
                    failed_at_once = isinstance(item, DecodeFailed)
                    video = self._buffer(by_path[item.path], hashes.pop(item.path), failed=failed_at_once)
                    still = isinstance(item, DecodedSegment) and item.still
                    if not still:
                        self._steps.append(_Step(partial(self._begin, video, announce=not failed_at_once)))
                if still and isinstance(item, DecodeFinished):
                    (image,), times = video.take_frames()
                    photos.append(_Photo(video, item, image, times))
                    video = None
                    if len(photos) >= self._batch:
                        self._encode_photos(photos, executor)
                        photos = []
                elif isinstance(item, DecodedSegment):
                    video.add_frame(item)
                    if video.waiting_frames >= self._batch and not still:
                        self._encode(video, executor)
                else:
                    if isinstance(item, DecodeFinished):
                        self._encode(video, executor)
                    self._steps.append(_Step(partial(self._end, video, item)))
                    video = None
                yield from self._carry_out(ahead=_AHEAD)
            if photos:
                self._encode_photos(photos, executor)
            yield from self._carry_out(ahead=0)
        finally:
            self._steps.clear()
            executor.shutdown(cancel_futures=True)

    def _buffer(self, task: IndexTask, digest: str | None, *, failed: bool = False) -> VideoBuffer:
        revision = revision_of(digest or "", self._writer.manifest)
        if task.record is not None and task.record.revision == revision:  # its rows stay until the commit
            revision = revision_of(digest or "", self._writer.manifest, again=True)
        video = VideoBuffer(task, revision=revision, content_hash=digest or "", precision=self._precision)
        if not digest and not failed:
            video.failure, video.lasting = "could not be read a second time", False
        return video

    def _carry_out(self, *, ahead: int) -> Iterator[Event]:
        """Carry out the steps whose turn has come; wait where the encoder is more than `ahead` batches behind."""
        while self._steps:
            needs = self._steps[0].needs
            if needs is not None and not needs.done() and sum(step.needs is not None for step in self._steps) <= ahead:
                return
            yield from self._steps.popleft().do()

    def _begin(self, video: VideoBuffer, *, announce: bool) -> Iterator[Event]:
        self._number += 1
        video.video_id = self._video_id(video.task)
        if announce:
            file = video.task.file
            yield VideoStarted(path=file.path, number=self._number, of=self._files_total, size_bytes=file.size_bytes)

    def _encode(self, video: VideoBuffer, executor: ThreadPoolExecutor) -> None:
        """Give the waiting frames to the encoder."""
        images, times = video.take_frames()
        if images and video.failure is None:
            coming = executor.submit(self._base.encode_images, images)
            self._steps.append(_Step(partial(self._take, video, coming, times), coming))

    def _take(self, video: VideoBuffer, coming: Future[ImageEmbeddings], times: Times) -> Iterator[Event]:
        """Take a batch back from the encoder; an error of the encoder fails this video only."""
        if video.failure is not None:
            return
        try:
            video.add_embeddings(coming.result(), times)
        except Exception as error:  # noqa: BLE001 - anybody may write an encoder: any error of it costs one file
            video.failure = f"the encoder failed on a frame near {times[-1][0]:.1f} s: {error}"
            return
        self._counts += Counts(encoded=len(times))
        if video.waiting_rows >= CHUNK_ROWS:
            with _errors_of(video):
                self._write(video)
        yield self._progress(video)

    def _encode_photos(self, photos: Sequence[_Photo], executor: ThreadPoolExecutor) -> None:
        """Give a batch of photos to the encoder."""
        coming = executor.submit(self._base.encode_images, [photo.image for photo in photos])
        self._steps.append(_Step(partial(self._take_photos, photos, coming), coming))

    def _take_photos(self, photos: Sequence[_Photo], coming: Future[ImageEmbeddings]) -> Iterator[Event]:
        """Take a batch of photos back from the encoder, and commit it in one step."""
        for photo, made in zip(photos, self._embeddings_of(photos, coming), strict=True):
            with _errors_of(photo.buffer):
                if made is not None and photo.buffer.failure is None:
                    photo.buffer.add_embeddings(made, photo.times)
                    photo.buffer.video_id = self._video_id(photo.buffer.task)
        ready = [photo.buffer for photo in photos if photo.buffer.failure is None]
        records: dict[Path, VideoRecord] = {}
        if ready:
            chunk = take_photos(ready, self._encoder)
            self._writer.add_photos([(buffer.video_id, buffer.revision) for buffer in ready], chunk)
            stored = [photo for photo in photos if photo.buffer.failure is None]
            records = {photo.item.path: self._record(photo.buffer, photo.item, problem=None) for photo in stored}
            self._writer.commit(*records.values())
        self._counts += Counts(encoded=len(ready))
        for photo in photos:
            self._number += 1
            task, failure = photo.buffer.task, photo.buffer.failure
            size_bytes = task.file.size_bytes
            yield VideoStarted(path=task.file.path, number=self._number, of=self._files_total, size_bytes=size_bytes)
            if failure is None:
                yield self._done(photo.buffer, photo.item, records[task.file.path])
            else:
                yield self._fail(task, failure, lasting=photo.buffer.lasting)
        yield self._progress(VideoBuffer(photos[-1].buffer.task, precision=self._precision))
        self._compact_in_time(1)

    def _embeddings_of(
        self, photos: Sequence[_Photo], coming: Future[ImageEmbeddings]
    ) -> Iterator[ImageEmbeddings | None]:
        """Yield the embeddings of each photo; None where the encoder fails on it."""
        try:
            made = coming.result()
        except Exception:  # noqa: BLE001 - as in `_take`; one photo is the cause, and the others are encoded again
            for photo in photos:
                try:
                    yield self._base.encode_images([photo.image])
                except Exception as error:  # noqa: BLE001 - as in `_take`
                    photo.buffer.failure = photo.buffer.failure or f"the encoder failed on it: {error}"
                    yield None
        else:
            for number in range(len(photos)):
                one = slice(number, number + 1)
                yield ImageEmbeddings(made.embeddings[one], made.retrieval[one])

    def _end(self, video: VideoBuffer, item: DecodeFinished | DecodeFailed) -> Iterator[Event]:
        if isinstance(item, DecodeFinished):
            yield self._finish(video, item)
        else:
            yield self._fail(video.task, item.reason, lasting=item.lasting, video=video)
        yield self._progress(VideoBuffer(video.task, precision=self._precision))
        self._compact_in_time(1)

    def _compact_in_time(self, commits: int) -> None:
        """Count commits, and compact the tables where they are many."""
        self._since_compaction += commits
        if self._since_compaction >= self._writer.manifest.index.compact_every:
            self._since_compaction = 0
            self._writer.compact()

    def _write(self, video: VideoBuffer) -> None:
        """Append the encoded rows to the store; they are visible after the commit."""
        self._writer.add_segments(video.video_id, video.revision, video.take_chunk(self._encoder))

    def _finish(self, video: VideoBuffer, item: DecodeFinished) -> Event:
        if video.failure is None and not video.encoded:
            video.failure = "has no frame"
        if video.failure is not None:
            return self._fail(video.task, video.failure, lasting=video.lasting, video=video)
        known, problem = video.task.record, item.problem
        if not item.lasting:
            if known is not None and (known.problem is None or known.samples >= item.samples):
                reason = f"{problem}; what was indexed before is kept"
                return self._fail(video.task, reason, lasting=False, video=video)
            problem = f"{problem}{_READ_AGAIN}"
        committed: list[VideoRecord] = []
        with _errors_of(video):
            committed.append(self._commit(video, item, problem=problem))
        if not committed:
            return self._fail(video.task, video.failure or "", lasting=video.lasting, video=video)
        return self._done(video, item, committed[0])

    def _done(self, video: VideoBuffer, item: DecodeFinished, record: VideoRecord) -> Event:
        """Count a committed file, and report it."""
        replaced = video.task.action == "update"
        self._counts += Counts(
            added=int(not replaced),
            updated=int(replaced),
            partial=int(record.problem is not None),
            photos=int(record.kind == "photo"),
            segments=record.segments,
            samples=record.samples,
            video_s=record.duration_s,
        )
        self._bytes_done += video.task.file.size_bytes
        return VideoDone(
            path=record.path,
            video_id=record.video_id,
            duration_s=record.duration_s,
            segments=record.segments,
            samples=record.samples,
            scenes=len(record.scene_starts),
            problem=record.problem,
            notes=item.notes,
            replaced=replaced,
            kind=record.kind,
        )

    def _commit(self, video: VideoBuffer, item: DecodeFinished, *, problem: str | None) -> VideoRecord:
        if item.samples > MOST_SAMPLES:
            raise OverflowError(f"{item.samples} samples: its timestamps cannot be right")
        if video.waiting_rows:
            self._write(video)
        record = self._record(video, item, problem=problem)
        self._writer.commit(record)
        return record

    def _record(self, video: VideoBuffer, item: DecodeFinished, *, problem: str | None) -> VideoRecord:
        """Make the record of a file whose segments are written."""
        task, info, manifest = video.task, item.info, self._writer.manifest
        scenes = video.scenes(item.steps, fps=manifest.decode.fps, threshold=manifest.index.cut_threshold)
        return VideoRecord(
            video_id=video.video_id,
            revision=video.revision,
            path=task.file.path,
            size_bytes=task.file.size_bytes,
            mtime_ns=task.file.mtime_ns if item.lasting else UNREAD,
            content_hash=video.content_hash,
            duration_s=info.duration_s,
            width=info.width,
            height=info.height,
            codec=info.codec,
            container=info.container,
            fps=info.fps,
            samples=item.samples,
            segments=video.written,
            scene_starts=scenes.first,
            scene_start_s=scenes.start_s,
            scene_end_s=scenes.end_s,
            scene_kinds=scenes.kinds,
            problem=problem,
            indexed_at=time.time(),
            kind=info.kind,
            recorded_at=info.recorded_at,
        )

    def _fail(self, task: IndexTask, reason: str, *, lasting: bool, video: VideoBuffer | None = None) -> Event:
        """Report a file that cannot be indexed; remember it where the file itself is the cause."""
        file = task.file
        if video is not None and video.written:
            self._writer.discard([(video.video_id, video.revision)])
        self._bytes_done += file.size_bytes
        if not lasting:
            self._counts += Counts(failed=1)
            return VideoFailed(path=file.path, reason=f"{reason}{_READ_AGAIN}", attempts=1)
        record = self._writer.remember_failure(
            file.path, size_bytes=file.size_bytes, mtime_ns=file.mtime_ns, reason=reason
        )
        if record.no_video:
            self._counts += Counts(no_video=1)
            return VideoAbsent(path=file.path, reason=reason)
        self._counts += Counts(failed=1)
        return VideoFailed(path=file.path, reason=reason, attempts=record.attempts)

    def _video_id(self, task: IndexTask) -> str:
        """Choose the id of a file: that of the video it updates, or a new one.

        A moved video keeps its id, so another file at its old path needs a different one.
        """
        if task.action == "update" and task.record is not None:
            return task.record.video_id
        if task.replaced is not None:
            return task.replaced.video_id
        video_id = path_id(task.file.path)
        while video_id in self._writer.videos:
            video_id = blake2b_hex(video_id, size_bytes=8)
        return video_id

    def _record_at(self, task: IndexTask, record: VideoRecord, *, video_id: str) -> VideoRecord:
        file = task.file
        mtime_ns = UNREAD if record.mtime_ns == UNREAD else file.mtime_ns
        place = {"video_id": video_id, "path": file.path, "size_bytes": file.size_bytes, "mtime_ns": mtime_ns}
        return dataclasses.replace(record, **place, indexed_at=time.time())  # type: ignore[arg-type]

    def _progress(self, video: VideoBuffer) -> Event:
        counts = self._counts
        return VideoProgress(
            path=video.task.file.path,
            files_done=counts.files_done,
            files_total=self._files_total,
            bytes_done=self._bytes_done,
            bytes_total=self._bytes_total,
            position_s=video.position_s,
            video_s=counts.video_s + video.position_s,
            samples=counts.samples + video.samples,
            encoded=counts.encoded,
            elapsed_s=time.monotonic() - self._began,
        )
