"""Buffer of the video that is being indexed: frames that wait for the encoder, rows that wait for the store.

Rows are written in chunks, so that a film of ten hours needs little more memory than a short clip. A photo is a video
of one row; the rows of several are written together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from impart.blending.encoder import AugmentedEncoder
from impart.encoders.base import Encoder, ImageEmbeddings
from impart.video.decode.frames.changes import Step
from impart.video.decode.sampler import DecodedSegment
from impart.video.index.files.plan import IndexTask
from impart.video.index.writer import SegmentChunk
from impart.video.scenes.bounds import SceneBounds, find_scenes
from impart.video.scenes.samples import Samples, grey_thumbnail

__all__ = ["Times", "VideoBuffer", "take_photos"]

Times: TypeAlias = list[tuple[float, float, int]]
"""(start_s, end_s, weight) of consecutive segments."""


class VideoBuffer:
    """Frames and rows of one video, in order of time.

    Args:
        task: of the file.
        revision, content_hash: of the file's content; the hash is empty where it could not be read.
        precision: `float16` or `float32`, in which vectors are stored.

    Attributes:
        video_id: set when the turn of the video has come.
        failure: why the video cannot be indexed, or None; lasting: whether the file itself is the cause.
        encoded: frames encoded; samples: frames sampled that these represent; written: rows written.
    """

    def __init__(self, task: IndexTask, *, revision: str = "", content_hash: str = "", precision: str) -> None:
        self.task = task
        self.revision = revision
        self.content_hash = content_hash
        self.video_id = ""
        self.failure: str | None = None
        self.lasting = True
        self.encoded = self.samples = self.written = 0
        self._dtype = np.dtype(precision)
        self._images: list[npt.NDArray[np.uint8]] = []
        self._image_times: Times = []
        self._times: Times = []  # of rows not written, like the next two
        self._vectors: list[npt.NDArray[Any]] = []  # (b, D) each
        self._retrieval: list[npt.NDArray[Any]] = []  # (b, R) each
        # Of the whole video, to find its scenes: 74 MB for ten hours at 4 frames per second, R = 256.
        self._all_retrieval: list[npt.NDArray[Any]] = []
        self._all_starts: list[float] = []
        self._all_weights: list[int] = []
        self._thumbs: list[npt.NDArray[np.uint8]] = []
        self._end_s = 0.0

    @property
    def waiting_frames(self) -> int:
        """Frames that wait for the encoder."""
        return len(self._images)

    @property
    def waiting_rows(self) -> int:
        """Encoded rows that wait for the store."""
        return len(self._times)

    @property
    def position_s(self) -> float:
        """End of the last encoded segment."""
        if self._times:
            return self._times[-1][1]
        return self._end_s

    def add_frame(self, segment: DecodedSegment) -> None:
        """Append a decoded segment, represented by its first frame."""
        self._images.append(segment.image)
        self._thumbs.append(grey_thumbnail(segment.image))
        self._image_times.append((segment.start_s, segment.end_s, segment.weight))

    def add_thumbs(self, thumbs: Sequence[npt.NDArray[np.uint8]]) -> None:
        """Append the grey thumbnails of frames that were encoded elsewhere."""
        self._thumbs += thumbs

    def take_frames(self) -> tuple[list[npt.NDArray[np.uint8]], Times]:
        """Remove the frames that wait for the encoder, and return them with their times."""
        taken = self._images, self._image_times
        self._images, self._image_times = [], []
        return taken

    def add_embeddings(self, made: ImageEmbeddings, times: Times) -> None:
        """Append the embeddings of frames, in the precision of the index.

        Raises:
            FloatingPointError: an embedding is not finite.
        """
        vectors, retrieval = made.embeddings.astype(self._dtype), made.retrieval.astype(self._dtype)
        if not (np.isfinite(vectors).all() and np.isfinite(retrieval).all()):
            raise FloatingPointError("it returned a vector that is not finite")
        self._times += times
        self._vectors.append(vectors)
        self._retrieval.append(retrieval)
        self._all_retrieval.append(retrieval)
        self.encoded += len(times)
        self.samples += sum(weight for _, _, weight in times)

    def take_chunk(self, encoder: Encoder) -> SegmentChunk:
        """Remove the rows that wait for the store, and return them with their blends.

        Args:
            encoder: base or augmented; an augmented one computes the blends.
        """
        return _take([self], encoder)

    def scenes(self, steps: Sequence[Step], *, fps: float, threshold: float) -> SceneBounds:
        """Find the scenes, from the rows written and the steps between decoded frames.

        Args:
            fps: sampled frames per second.
            threshold: `IndexSettings.cut_threshold`.
        """
        samples = Samples.of_segments(
            np.concatenate(self._all_retrieval),
            np.stack(self._thumbs),
            starts_s=self._all_starts,
            weights=self._all_weights,
            fps=fps,
        )
        with threadpool_limits(limits=1):
            return find_scenes(samples, steps, end_s=self._end_s, threshold=threshold)

    def _written(self) -> None:
        """Forget the rows that waited for the store, but for what the scenes need."""
        self.written += len(self._times)
        self._all_starts += [start_s for start_s, _, _ in self._times]
        self._all_weights += [weight for _, _, weight in self._times]
        self._end_s = self._times[-1][1]
        for waiting in (self._times, self._vectors, self._retrieval):
            waiting.clear()


def take_photos(photos: Sequence[VideoBuffer], encoder: Encoder) -> SegmentChunk:
    """Remove the rows of P photos that wait for the store, and return them, one row each."""
    assert all(photo.waiting_rows == 1 for photo in photos)
    return _take(photos, encoder)


def _take(buffers: Sequence[VideoBuffer], encoder: Encoder) -> SegmentChunk:
    vectors = np.concatenate([part for buffer in buffers for part in buffer._vectors])  # (n, D)
    retrieval = np.concatenate([part for buffer in buffers for part in buffer._retrieval])  # (n, R)
    starts, ends, weights = zip(*(times for buffer in buffers for times in buffer._times), strict=True)
    blend = None
    if isinstance(encoder, AugmentedEncoder):
        # From the rounded vectors, as a later change of the reference set would.
        stored = ImageEmbeddings(vectors.astype(np.float32), retrieval.astype(np.float32))
        # One thread: idle BLAS and OpenMP threads that spin would take a core from the encoder.
        with threadpool_limits(limits=1):
            blend = encoder.blend(stored)
    chunk = SegmentChunk(
        first=buffers[0].written,
        start_s=np.array(starts, np.float64),
        end_s=np.array(ends, np.float64),
        weight=np.array(weights, np.int32),
        vectors=vectors,
        retrieval=retrieval,
        blend=blend,
    )
    for buffer in buffers:
        buffer._written()
    return chunk
