"""Carries out a plan: decode, encode, cut into scenes, commit; one video after another, in the order of paths.

Decoding runs ahead in its own process, encoding in a thread of this one, and what is encoded is committed meanwhile:
no core waits for another step. Steps are carried out, and told of, strictly in order. Batches never cross the border
between two videos, so what is stored depends on the file alone and not on where an earlier run was interrupted.
"""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from impart.blending.encoder import AugmentedEncoder
from impart.encoders.base import Encoder, ImageEmbeddings
from impart.files import blake2b_hex
from impart.video.decode.sampler import DecodedSegment, DecodeFailed, DecodeFinished
from impart.video.index.events import (
    Event,
    VideoCopied,
    VideoDone,
    VideoFailed,
    VideoMoved,
    VideoProgress,
    VideoRemoved,
    VideoSkipped,
    VideoStarted,
)
from impart.video.index.plan import IndexPlan, IndexTask, hash_of
from impart.video.index.store import VideoRecord, path_id, revision_of
from impart.video.index.writer import CHUNK_ROWS, SegmentChunk, Writer
from impart.video.scenes.cuts import scene_bounds

__all__ = ["Indexer", "Totals", "VideoSource"]

_AHEAD = 2  # batches given to the encoder and not yet taken back
_Times = list[tuple[float, float, int]]  # start_s, end_s, weight


class VideoSource(Protocol):
    """What the indexer needs of a decoder; `impart.video.decode.process.Decoder` is one."""

    def decode(self, paths: Iterable[Path]) -> Iterator[DecodedSegment | DecodeFinished | DecodeFailed]: ...


@dataclass(kw_only=True)
class Totals:
    """Counts of a run; names as in `IndexDone` and `VideoProgress`."""

    added: int = 0
    updated: int = 0
    moved: int = 0
    copied: int = 0
    removed: int = 0
    failed: int = 0
    partial: int = 0
    skipped: int = 0
    segments: int = 0
    samples: int = 0
    encoded: int = 0
    video_s: float = 0.0
    files_done: int = 0
    bytes_done: int = 0


@dataclass(kw_only=True)
class _Video:
    """A video in hand: frames that wait for the encoder, rows that wait for the store."""

    task: IndexTask
    video_id: str = ""  # known when its turn has come
    revision: str = ""
    content_hash: str = ""
    images: list[npt.NDArray[np.uint8]] = field(default_factory=list)
    image_times: _Times = field(default_factory=list)  # of `images`
    times: _Times = field(default_factory=list)  # of rows not written
    vectors: list[npt.NDArray[Any]] = field(default_factory=list)  # (b, D) each; of rows not written
    retrieval: list[npt.NDArray[Any]] = field(default_factory=list)  # (b, R) each; of rows not written
    # Of the whole video, for the scenes: 74 MB for ten hours at 4 frames a second, R = 256.
    all_retrieval: list[npt.NDArray[Any]] = field(default_factory=list)
    all_starts: list[float] = field(default_factory=list)
    all_ends: list[float] = field(default_factory=list)
    encoded: int = 0
    written: int = 0
    samples: int = 0
    failure: str | None = None


@dataclass(frozen=True)
class _Step:
    """Something to carry out in its turn, when the encoder has finished what it needs."""

    do: Callable[[], Iterable[Event]]
    needs: Future[ImageEmbeddings] | None = None


class Indexer:
    """One run over a plan.

    Args:
        writer: of the index, entered.
        encoder: base or augmented, as the index's manifest says.
        decoder: gives the frames.
        batch: images in one forward pass.
    """

    def __init__(self, writer: Writer, encoder: Encoder, *, decoder: VideoSource, batch: int) -> None:
        self.totals = Totals()
        self._writer = writer
        self._encoder = encoder
        self._base = encoder.base if isinstance(encoder, AugmentedEncoder) else encoder
        self._decoder = decoder
        self._batch = batch
        self._dtype = np.float16 if writer.manifest.index.precision == "float16" else np.float32
        self._files_total = 0
        self._bytes_total = 0
        self._number = 0
        self._since_compaction = 0
        self._steps: deque[_Step] = deque()
        self._began = time.monotonic()

    def run(self, plan: IndexPlan) -> Iterator[Event]:
        """Do it, and tell.

        Raises:
            VideoIndexError: the index cannot be written; what was committed stays.
        """
        writer, totals = self._writer, self.totals
        if plan.remove:
            writer.remove(plan.remove)
            totals.removed = len(plan.remove)
            yield from (VideoRemoved(path=record.path) for record in plan.remove)
        writer.forget_failures(plan.forget)
        for task in plan.of("skip", "touch", "move"):
            yield from self._without_decoding(task)
        decoded = plan.of("add", "update")
        copies = plan.of("copy")
        self._files_total = len(decoded)
        self._bytes_total = sum(task.file.size_bytes for task in decoded)
        yield from self._decode(decoded)
        # Copies come last: their original may have been new itself.
        originals = {record.revision: record for record in reversed(list(writer.videos.values()))}
        orphans = []
        for task in copies:
            original = originals.get(revision_of(task.content_hash or "", writer.manifest))
            if original is None:  # it could not be decoded: let this one fail, or not, by itself
                orphans.append(task)
                continue
            writer.copy(original, self._record_at(task, original, video_id=self._video_id(task)))
            totals.copied += 1
            yield VideoCopied(path=task.file.path, original=original.path)
        self._files_total += len(orphans)
        self._bytes_total += sum(task.file.size_bytes for task in orphans)
        yield from self._decode(orphans)

    def _without_decoding(self, task: IndexTask) -> Iterator[Event]:
        if task.failure is not None:
            self.totals.skipped += 1
            yield VideoSkipped(path=task.file.path, reason=task.failure.reason, attempts=task.failure.attempts)
            return
        record = task.record
        assert record is not None
        self._writer.update(self._record_at(task, record, video_id=record.video_id))
        self._writer.forget_failures([task.file.path])
        if task.action == "move":
            self.totals.moved += 1
            yield VideoMoved(path=task.file.path, old_path=record.path)

    def _decode(self, tasks: Sequence[IndexTask]) -> Iterator[Event]:
        hashes: dict[Path, str | None] = {}
        by_path = {task.file.path: task for task in tasks}
        readable = [task for task in tasks if task.file.problem is None]
        for task in tasks:
            if task.file.problem is not None:
                yield self._fail(task, task.file.problem)

        def paths() -> Iterator[Path]:
            for task in readable:
                hashes[task.file.path] = task.content_hash or hash_of(task.file)
                yield task.file.path

        video: _Video | None = None
        executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="impart-encoder")
        try:
            for item in self._decoder.decode(paths()):
                if video is None:
                    digest = hashes.pop(item.path)
                    revision = revision_of(digest or "", self._writer.manifest)
                    video = _Video(task=by_path[item.path], revision=revision, content_hash=digest or "")
                    if digest is None and not isinstance(item, DecodeFailed):
                        video.failure = "could not be read twice: is it being written, or its disk failing?"
                    self._steps.append(_Step(partial(self._begin, video, told=not isinstance(item, DecodeFailed))))
                if isinstance(item, DecodedSegment):
                    video.images.append(item.image)
                    video.image_times.append((item.start_s, item.end_s, item.weight))
                    if len(video.images) >= self._batch:
                        self._encode(video, executor)
                else:
                    if isinstance(item, DecodeFinished):
                        self._encode(video, executor)
                    self._steps.append(_Step(partial(self._end, video, item)))
                    video = None
                yield from self._carry_out(ahead=_AHEAD)
            yield from self._carry_out(ahead=0)
        finally:
            self._steps.clear()
            executor.shutdown(cancel_futures=True)

    def _carry_out(self, *, ahead: int) -> Iterator[Event]:
        """Do all steps whose turn has come; wait where the encoder is more than `ahead` batches behind."""
        while self._steps:
            needs = self._steps[0].needs
            if needs is not None and not needs.done() and sum(step.needs is not None for step in self._steps) <= ahead:
                return
            yield from self._steps.popleft().do()

    def _begin(self, video: _Video, *, told: bool) -> Iterator[Event]:
        self._number += 1
        video.video_id = self._video_id(video.task)
        if told:
            yield self._started(video.task)

    def _encode(self, video: _Video, executor: ThreadPoolExecutor) -> None:
        """Give the waiting frames to the encoder."""
        images, times = video.images, video.image_times
        video.images, video.image_times = [], []
        if images and video.failure is None:
            coming = executor.submit(self._base.encode_images, images)
            self._steps.append(_Step(partial(self._take, video, coming, times), coming))

    def _take(self, video: _Video, coming: Future[ImageEmbeddings], times: _Times) -> Iterator[Event]:
        """Take a batch back from the encoder; its errors are the video's."""
        if video.failure is not None:
            return
        try:
            made = coming.result()
            vectors, retrieval = made.embeddings.astype(self._dtype), made.retrieval.astype(self._dtype)
            if not (np.isfinite(vectors).all() and np.isfinite(retrieval).all()):
                raise FloatingPointError("it gave a vector that is not finite")
        except Exception as error:  # noqa: BLE001 - encoders may be anybody's: whatever they raise costs one file
            video.failure = f"the encoder failed on a frame near {times[-1][0]:.1f} s: {error}"
            return
        video.encoded += len(times)
        self.totals.encoded += len(times)
        video.times += times
        video.samples += sum(weight for _, _, weight in times)
        video.vectors.append(vectors)
        video.retrieval.append(retrieval)
        video.all_retrieval.append(retrieval)
        if len(video.times) >= CHUNK_ROWS:
            self._write(video)
        yield self._progress(video)

    def _end(self, video: _Video, item: DecodeFinished | DecodeFailed) -> Iterator[Event]:
        if isinstance(item, DecodeFinished):
            yield self._finish(video, item)
        else:
            yield self._fail(video.task, item.reason, video=video)
        yield self._progress(_Video(task=video.task))
        self._since_compaction += 1
        if self._since_compaction >= self._writer.manifest.index.compact_every:
            self._since_compaction = 0
            self._writer.compact()

    def _write(self, video: _Video) -> None:
        """Append the encoded rows to the store, not yet visible."""
        vectors, retrieval = np.concatenate(video.vectors), np.concatenate(video.retrieval)  # (n, D), (n, R)
        starts, ends, weights = zip(*video.times, strict=True)
        blend = None
        if isinstance(self._encoder, AugmentedEncoder):
            # From the rounded vectors, as a later change of the reference set would.
            stored = ImageEmbeddings(vectors.astype(np.float32), retrieval.astype(np.float32))
            # One thread: the spinning of idle BLAS and OpenMP threads would take a core from the encoder.
            with threadpool_limits(limits=1):
                blend = self._encoder.blend(stored)
        chunk = SegmentChunk(
            first=video.written,
            start_s=np.array(starts, np.float64),
            end_s=np.array(ends, np.float64),
            weight=np.array(weights, np.int32),
            vectors=vectors,
            retrieval=retrieval,
            blend=blend,
        )
        self._writer.add_segments(video.video_id, video.revision, chunk)
        video.written += len(chunk)
        video.all_starts += starts
        video.all_ends += ends
        for waiting in (video.times, video.vectors, video.retrieval):
            waiting.clear()

    def _finish(self, video: _Video, item: DecodeFinished) -> Event:
        if video.failure is None and not video.encoded:
            video.failure = "has no frame"
        if video.failure is not None:
            return self._fail(video.task, video.failure, video=video)
        if video.times:
            self._write(video)
        task, writer, info, totals = video.task, self._writer, item.info, self.totals
        retrieval = np.concatenate(video.all_retrieval).astype(np.float32)
        starts, ends = np.array(video.all_starts, np.float64), np.array(video.all_ends, np.float64)
        with threadpool_limits(limits=1):
            scenes = scene_bounds(retrieval, starts, ends, writer.manifest.index.cut_threshold)
        record = VideoRecord(
            video_id=video.video_id,
            revision=video.revision,
            path=task.file.path,
            size_bytes=task.file.size_bytes,
            mtime_ns=task.file.mtime_ns,
            content_hash=video.content_hash,
            duration_s=info.duration_s,
            width=info.width,
            height=info.height,
            codec=info.codec,
            container=info.container,
            fps=info.fps,
            samples=item.samples,
            segments=video.written,
            scene_starts=tuple(int(first) for first, _ in scenes),
            problem=item.problem,
            indexed_at=time.time(),
        )
        writer.commit(record)
        totals.added += task.action != "update"
        totals.updated += task.action == "update"
        totals.partial += item.problem is not None
        totals.segments += record.segments
        totals.samples += record.samples
        totals.video_s += info.duration_s
        self._count(task)
        return VideoDone(
            path=record.path,
            video_id=record.video_id,
            duration_s=record.duration_s,
            segments=record.segments,
            samples=record.samples,
            scenes=len(record.scene_starts),
            problem=record.problem,
            replaced=task.action == "update",
        )

    def _fail(self, task: IndexTask, reason: str, *, video: _Video | None = None) -> Event:
        if video is not None and video.written:
            self._writer.discard([(video.video_id, video.revision)])
        record = self._writer.remember_failure(
            task.file.path, size_bytes=task.file.size_bytes, mtime_ns=task.file.mtime_ns, reason=reason
        )
        self.totals.failed += 1
        self._count(task)
        return VideoFailed(path=record.path, reason=reason, attempts=record.attempts)

    def _count(self, task: IndexTask) -> None:
        self.totals.files_done += 1
        self.totals.bytes_done += task.file.size_bytes

    def _video_id(self, task: IndexTask) -> str:
        """The id of the video at this path; a moved video keeps its own, so another file at its old place needs one."""
        if task.action == "update" and task.record is not None:
            return task.record.video_id
        video_id = path_id(task.file.path)
        while video_id in self._writer.videos:
            video_id = blake2b_hex(video_id, size_bytes=8)
        return video_id

    def _record_at(self, task: IndexTask, record: VideoRecord, *, video_id: str) -> VideoRecord:
        file = task.file
        place = {"video_id": video_id, "path": file.path, "size_bytes": file.size_bytes, "mtime_ns": file.mtime_ns}
        return dataclasses.replace(record, **place, indexed_at=time.time())  # type: ignore[arg-type]

    def _started(self, task: IndexTask) -> Event:
        size = task.file.size_bytes
        return VideoStarted(path=task.file.path, number=self._number, of=self._files_total, size_bytes=size)

    def _progress(self, video: _Video) -> Event:
        totals = self.totals
        position_s = video.times[-1][1] if video.times else video.all_ends[-1] if video.all_ends else 0.0
        return VideoProgress(
            path=video.task.file.path,
            files_done=totals.files_done,
            files_total=self._files_total,
            bytes_done=totals.bytes_done,
            bytes_total=self._bytes_total,
            position_s=position_s,
            video_s=totals.video_s + position_s,
            samples=totals.samples + video.samples,
            encoded=totals.encoded,
            elapsed_s=time.monotonic() - self._began,
        )
