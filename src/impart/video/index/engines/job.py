"""Job of a worker of `impart index`: decode and encode files. Nothing is written here; the driver commits.

The steps are those of a local run: a decoder process ahead, batches of the same size that never contain frames of two
videos, and at most two batches in the encoder. So the vectors are the same as well.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from impart.config import DecodeSettings
from impart.encoders.base import Encoder, ImageEmbeddings
from impart.encoders.cluster.encoder_source import EncoderSource
from impart.video.decode.decoder import Decoder
from impart.video.decode.sampler import DecodedSegment, DecodeFailed, DecodeFinished
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
from impart.video.index.files.plan import hash_of
from impart.video.index.files.scan import FoundFile
from impart.video.index.video_buffer import Times
from impart.video.scenes.samples import grey_thumbnail

__all__ = ["IndexJob", "make_index_job"]

_AHEAD = 2  # batches given to the encoder and not yet taken back


def make_index_job(source: EncoderSource, settings: DecodeSettings, *, batch: int, threads: int) -> IndexJob:
    """Load the encoder and make the job; called on the worker.

    Raises:
        EncoderError: the encoder cannot be loaded, or is another one here.
    """
    return IndexJob(source.load(threads=threads), settings, batch=batch)


@dataclass
class _Video:
    """Frames of the file that is being decoded, and of which not all are in the encoder."""

    images: list[npt.NDArray[np.uint8]] = field(default_factory=list)
    times: Times = field(default_factory=list)


class IndexJob:
    """Decodes and encodes units.

    Args:
        encoder: base encoder, loaded once.
        settings: of decoding.
        batch: images per forward pass.
    """

    def __init__(self, encoder: Encoder, settings: DecodeSettings, *, batch: int) -> None:
        self._encoder = encoder
        self._batch = batch
        self._decoder = Decoder(settings, short_side_px=encoder.traits.image_size_px)

    def run(self, unit: Files | Photos) -> Iterator[Message]:
        """Work on a unit; see `impart.video.index.engines.messages`."""
        if isinstance(unit, Files):
            return self._files(unit)
        return iter([self._photos(unit)])

    def _photos(self, unit: Photos) -> PhotosEncoded:
        try:
            return PhotosEncoded(unit.number, self._encoder.encode_images(list(unit.images)))
        except Exception as error:  # noqa: BLE001 - anybody may write an encoder
            return PhotosEncoded(unit.number, None, str(error))

    def _files(self, unit: Files) -> Iterator[Message]:
        """Decode files in order, with up to two batches of frames in the encoder."""
        digests: dict[Path, str] = {}
        readable: list[tuple[FoundFile, str | None]] = []
        for file, digest in zip(unit.files, unit.digests, strict=True):
            problem = _unseen(file)
            if problem is None:
                readable.append((file, digest))
                continue
            yield FileBegan(file.path, "", failed=True)
            yield FileEnded(file.path, DecodeFailed(file.path, problem, lasting=False), unseen=True)

        def paths() -> Iterator[Path]:
            for file, digest in readable:
                digests[file.path] = digest or hash_of(file) or ""
                yield file.path

        waiting: deque[tuple[Callable[[], Message], Future[ImageEmbeddings] | None]] = deque()
        executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="impart-encoder")
        video: _Video | None = None
        digest, still = "", False
        try:
            for item in self._decoder.decode(paths()):
                if video is None:
                    video, digest = _Video(), digests.pop(item.path)
                    still = isinstance(item, DecodedSegment) and item.still
                    if not still:
                        failed = isinstance(item, DecodeFailed)
                        waiting.append((partial(FileBegan, item.path, digest, failed), None))
                if isinstance(item, DecodedSegment):
                    video.images.append(item.image)
                    video.times.append((item.start_s, item.end_s, item.weight))
                    if len(video.images) >= self._batch and not still:
                        waiting.append(self._encode(item.path, video, executor))
                elif still and isinstance(item, DecodeFinished):
                    photo = partial(PhotoDecoded, item.path, digest, video.images[0], video.times, item)
                    waiting.append((photo, None))
                    video = None
                else:
                    if still:
                        waiting.append((partial(FileBegan, item.path, digest, True), None))
                    elif isinstance(item, DecodeFinished) and video.images:
                        waiting.append(self._encode(item.path, video, executor))
                    waiting.append((partial(FileEnded, item.path, item), None))
                    video = None
                yield from _ready(waiting, ahead=_AHEAD)
            yield from _ready(waiting, ahead=0)
        finally:
            executor.shutdown(cancel_futures=True)

    def _encode(
        self, path: Path, video: _Video, executor: ThreadPoolExecutor
    ) -> tuple[Callable[[], Message], Future[ImageEmbeddings]]:
        """Give the waiting frames to the encoder."""
        images, times = video.images, video.times
        video.images, video.times = [], []
        thumbs = tuple(grey_thumbnail(image) for image in images)
        coming = executor.submit(self._encoder.encode_images, images)
        return partial(_encoded, path, thumbs, times, coming), coming


def _encoded(
    path: Path, thumbs: tuple[npt.NDArray[np.uint8], ...], times: Times, coming: Future[ImageEmbeddings]
) -> Message:
    try:
        return FramesEncoded(path, thumbs, times, coming.result())
    except Exception as error:  # noqa: BLE001 - anybody may write an encoder: any error of it costs one file
        return FramesEncoded(path, thumbs, times, None, str(error))


def _ready(
    waiting: deque[tuple[Callable[[], Message], Future[ImageEmbeddings] | None]], *, ahead: int
) -> Iterator[Message]:
    """Yield messages whose turn has come; wait where the encoder is more than `ahead` batches behind."""
    while waiting:
        make, needs = waiting[0]
        if needs is not None and not needs.done() and sum(need is not None for _, need in waiting) <= ahead:
            return
        waiting.popleft()
        yield make()


def _unseen(file: FoundFile) -> str | None:
    """Name what this machine sees in place of a file of the scan, or return None where it is the same."""
    try:
        size_bytes = os.stat(file.path).st_size  # noqa: PTH116
    except FileNotFoundError:
        return "there is no such file"
    except OSError:
        return None  # the decoder names the reason
    return None if size_bytes == file.size_bytes else f"the file has {size_bytes:,} bytes, not {file.size_bytes:,}"
