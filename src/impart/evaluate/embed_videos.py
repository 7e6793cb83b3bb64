"""Videos to embeddings of their frames: one by one, kept in the cache; what is unreadable or cut short is told.

How frames are read is the caller's: `impart.evaluate` decodes nothing. What an augmentation adds is computed from the
base's cached embeddings, so ten reference sets on one set of videos decode and encode them once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from impart.blending.encoder import AugmentedEncoder
from impart.encoders.base import Encoder, Float32, ImageEmbeddings, l2_normalise
from impart.errors import DataError, DecodeError
from impart.evaluate.cache import EmbeddingCache
from impart.evaluate.embed import Progress, base_of
from impart.files import digest_of, file_stamp

__all__ = ["EmbeddedVideo", "FrameReader", "embed_videos", "mean_vector", "sampling_of"]

Span: TypeAlias = tuple[float, float]
Frame: TypeAlias = tuple[float, float, npt.NDArray[np.uint8]]
"""From when to when it is shown (s after the start), and the image (h, w, 3), RGB."""

FrameReader: TypeAlias = Callable[[Path], Iterator[Frame]]
"""Frames of a video in order of time; raises DecodeError or DataError where it cannot be read.

A generator may return why what it yielded is not the whole video (a file that is cut short, or damaged); None = it is.

The cache knows a reader by its module, its name and the keywords of a `functools.partial`; what has no name that
lasts (a lambda, a function within a function) is not cached.
"""


@dataclass(frozen=True, kw_only=True)
class EmbeddedVideo:
    """The frames of one video of a set.

    Attributes:
        number: of the video in the set.
        spans: (f, 2) from when to when each frame is shown, in seconds after the start.
        embeddings: (f, D) L2-normalised; v' where the encoder is augmented. Empty where the video is unreadable.
        retrieval: (f, R) L2-normalised retrieval embeddings, always the base's.
        unreadable: why the video could not be read, or None.
        problem: why the frames are not the whole video, or None. Of a part of the video it is told all the same.
    """

    number: int
    spans: npt.NDArray[np.float64]
    embeddings: Float32
    retrieval: Float32
    unreadable: str | None = None
    problem: str | None = None

    def within(self, span: Span | None) -> EmbeddedVideo:
        """The frames shown in a part of the video, their times cut to it; None = all of it."""
        if span is None:
            return self
        cut = np.clip(self.spans, *span)
        inside = cut[:, 1] > cut[:, 0]
        return EmbeddedVideo(
            number=self.number,
            spans=cut[inside],
            embeddings=self.embeddings[inside],
            retrieval=self.retrieval[inside],
            unreadable=self.unreadable,
            problem=self.problem,
        )


def embed_videos(
    encoder: Encoder,
    videos: Sequence[Path],
    frames: FrameReader,
    *,
    cache: EmbeddingCache | None = None,
    batch: int = 32,
    on_progress: Progress | None = None,
) -> Iterator[EmbeddedVideo]:
    """Embed the frames of videos, one video after another; a file that is listed several times is read once.

    Args:
        encoder: plain or augmented; an augmented one's frames are embedded by its base and blended afterwards.
        videos: n files.
        frames: reads one.
        cache: where embeddings are kept, video by video: a killed run goes on. None = nowhere.
        batch: frames in one forward pass.
        on_progress: told the videos done.

    Yields:
        n videos; in the order given where no file is listed twice, else each file's entries together.
    """
    places: dict[Path, list[int]] = {}
    for number, path in enumerate(videos):
        places.setdefault(Path(path), []).append(number)
    base, sampling, done = base_of(encoder), sampling_of(frames), 0
    for path, numbers in places.items():
        stored = None
        key: tuple[str, ...] = ()
        if cache is not None and sampling is not None:
            key = (base.fingerprint[:16], "videos", digest_of([file_stamp(path), sampling])[:24])
            stored = _whole(cache.load(*key))
        if stored is None:
            stored = _read(base, path, frames, batch)
            if isinstance(stored, dict) and cache is not None and key:
                cache.store(*key, **stored)
        for number in numbers:
            if isinstance(stored, str):
                none = [np.zeros((0, width), np.float32) for width in (base.traits.dim, base.traits.retrieval_dim)]
                yield EmbeddedVideo(
                    number=number, spans=np.zeros((0, 2)), embeddings=none[0], retrieval=none[1], unreadable=stored
                )
            else:
                plain = ImageEmbeddings(stored["embeddings"].astype(np.float32), stored["retrieval"].astype(np.float32))
                yield EmbeddedVideo(
                    number=number,
                    spans=stored["spans"],
                    embeddings=_seen(encoder, plain),
                    retrieval=plain.retrieval,
                    problem=str(stored["problem"]) or None,
                )
        done += len(numbers)
        if on_progress is not None:
            on_progress(done, len(videos))


def mean_vector(video: EmbeddedVideo, *, without: npt.NDArray[np.int64] | None = None) -> Float32:
    """The mean (D,) of the frames' vectors, each weighing as long as it is shown, normalised (IMPART 3.3).

    Args:
        video: has at least one frame.
        without: numbers of frames that are held out.
    """
    weights = video.spans[:, 1] - video.spans[:, 0]
    if without is not None:
        weights[without] = 0.0
    return np.asarray(l2_normalise((weights @ video.embeddings)[None])[0])


def sampling_of(frames: FrameReader) -> str | None:
    """What the cache knows a reader by; None where it has no lasting name.

    >>> sampling_of(lambda path: iter(())) is None
    True
    """
    function: object = frames
    settings: list[str] = []
    if isinstance(frames, functools.partial):
        function = frames.func
        settings = [repr(value) for value in frames.args]
        settings += [f"{name}={value!r}" for name, value in sorted(frames.keywords.items())]
    name = getattr(function, "__qualname__", "<")
    return None if "<" in name else " ".join([f"{getattr(function, '__module__', '')}.{name}", *settings])


def _read(base: Encoder, path: Path, frames: FrameReader, batch: int) -> dict[str, npt.NDArray[Any]] | str:
    """Spans and base embeddings of a video, and why they are not all of it; or why it cannot be read."""
    spans: list[Span] = []
    parts: list[ImageEmbeddings] = []
    pending: list[npt.NDArray[np.uint8]] = []
    try:
        reading = _Reading(frames(path))
        for start_s, end_s, image in reading:
            spans.append((start_s, end_s))
            pending.append(image)
            if len(pending) == batch:
                parts.append(base.encode_images(pending))
                pending = []
    except (DecodeError, DataError) as error:
        return error.reason if isinstance(error, DecodeError) else str(error)
    if pending:
        parts.append(base.encode_images(pending))
    if not parts:
        return "it has no frame"
    return {
        "spans": np.array(spans, dtype=np.float64),
        "embeddings": np.concatenate([part.embeddings for part in parts]),
        "retrieval": np.concatenate([part.retrieval for part in parts]),
        "problem": np.array(reading.problem or ""),
    }


class _Reading:
    """The frames of a reader, and afterwards what it returned."""

    def __init__(self, frames: Iterator[Frame]) -> None:
        self._frames = frames
        self.problem: str | None = None

    def __iter__(self) -> Iterator[Frame]:
        if isinstance(self._frames, Generator):
            self.problem = yield from self._frames
        else:
            yield from self._frames


def _whole(stored: Mapping[str, npt.NDArray[Any]] | None) -> dict[str, npt.NDArray[Any]] | str | None:
    if stored is None or not {"spans", "embeddings", "retrieval", "problem"} <= stored.keys():
        return None
    return dict(stored)


def _seen(encoder: Encoder, plain: ImageEmbeddings) -> Float32:
    if isinstance(encoder, AugmentedEncoder):
        return encoder.apply(plain.embeddings, encoder.blend(plain))
    return plain.embeddings
