"""Embed the frames of videos for evaluation: one video at a time, cached, with what is unreadable or cut short.

Videos are decoded as for an index (`impart.video.decode`), or read by a function of the caller. An augmented encoder's
v' is computed from the cached embeddings of its base. So ten reference sets decode and encode a set of videos once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from impart.config import DecodeSettings
from impart.encoders.base import Encoder, Float32, ImageEmbeddings, l2_normalise
from impart.errors import DataError, DecodeError
from impart.evaluate.cache import Arrays, EmbeddingCache, Layout, key_of
from impart.evaluate.embed import Batches, Progress, base_of, blended
from impart.files import digest_of, file_stamp

__all__ = ["EmbeddedVideo", "FrameReader", "Frames", "decode_digest", "embed_videos", "frames_in_words", "mean_vector"]

Span: TypeAlias = tuple[float, float]
Frame: TypeAlias = tuple[float, float, npt.NDArray[np.uint8]]
"""Start and end of its display (s after the start of the video), and the image (h, w, 3), RGB."""

FrameReader: TypeAlias = Callable[[Path], Iterator[Frame]]
"""Reads the frames of a video in order of time; raises DecodeError or DataError where it cannot.

A generator may return the reason why its frames are not the whole video (the file is cut short, or damaged), or None.
"""

Frames: TypeAlias = DecodeSettings | FrameReader | None
"""Settings of the decoder (None = the defaults), or a function that yields frames, whose output is never cached."""


@dataclass(frozen=True, kw_only=True)
class EmbeddedVideo:
    """The frames of one video of a set.

    Attributes:
        number: of the video in the set.
        spans: (f, 2) start and end of each frame's display, in seconds after the start.
        embeddings: (f, D) L2-normalised; v' where the encoder is augmented. Empty where the video is unreadable.
        retrieval: (f, R) L2-normalised retrieval embeddings, always of the base encoder.
        unreadable: why the video could not be read, or None.
        problem: why the frames are not the whole video, or None. It is kept for parts of the video too.
    """

    number: int
    spans: npt.NDArray[np.float64]
    embeddings: Float32
    retrieval: Float32
    unreadable: str | None = None
    problem: str | None = None

    def within(self, span: Span | None) -> EmbeddedVideo:
        """Return the frames shown in a part of the video, their times cut to it; None = the whole video."""
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
    frames: Frames = None,
    *,
    cache: EmbeddingCache | None = None,
    batch: int = 32,
    on_progress: Progress | None = None,
) -> Iterator[EmbeddedVideo]:
    """Embed the frames of videos, one video after another; a file that is listed several times is read once.

    Args:
        encoder: plain or augmented; of an augmented one, the base encodes and the blend is added afterwards.
        videos: n files.
        frames: settings of the decoder, or a function that reads the frames of a video.
        cache: of the base encoder's embeddings, one file per video. It is not used for a `frames` that is a function.
            None = no cache.
        batch: frames per forward pass.
        on_progress: called with the videos done.

    Yields:
        n videos, in the given order. The entries of a file that is listed several times come together.
    """
    places: dict[Path, list[int]] = {}
    for number, path in enumerate(videos):
        places.setdefault(Path(path), []).append(number)
    base, done = base_of(encoder), 0
    decode = None if callable(frames) else decode_digest(base, frames)
    for path, numbers in places.items():
        stored: Arrays | str | None = None
        key: tuple[str, ...] = ()
        if cache is not None and decode is not None:
            key = ("videos", key_of([file_stamp(path), decode]))
            stored = cache.load(base, *key, layout=_layout(base))
        if stored is None:
            stored = _read(base, path, frames, batch)
            if isinstance(stored, dict) and cache is not None and key:
                cache.store(base, *key, arrays=stored)
        for number in numbers:
            yield _of_arrays(number, encoder, stored)
        done += len(numbers)
        if on_progress is not None:
            on_progress(done, len(videos))


def mean_vector(video: EmbeddedVideo, *, without: npt.NDArray[np.int64] | None = None) -> Float32:
    """Average the frames' vectors, weighted by display time, and normalise: (D,) (IMPART 3.3).

    Args:
        video: has at least one frame.
        without: numbers of frames that are held out.
    """
    weights = video.spans[:, 1] - video.spans[:, 0]
    if without is not None:
        weights[without] = 0.0
    return np.asarray(l2_normalise((weights @ video.embeddings)[None])[0])


def decode_digest(encoder: Encoder, decode: DecodeSettings | None = None) -> str:
    """Digest the settings that determine the decoded frames: equal digests, equal frames of a file."""
    return digest_of([json.dumps(_frame_settings(encoder, decode), sort_keys=True)])


def frames_in_words(encoder: Encoder, frames: Frames) -> str:
    """Name the way of reading frames, for reports."""
    if callable(frames):
        return getattr(frames, "__qualname__", "") or "a reader without a name"
    settings = _frame_settings(encoder, frames)
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def _frame_settings(encoder: Encoder, decode: DecodeSettings | None) -> dict[str, float | int | str]:
    """The settings that change frames; the others of the decoder (threads, look-ahead, time limit) do not."""
    decode = decode or DecodeSettings()
    return {
        "fps": float(decode.fps),
        "reuse_threshold": float(decode.reuse_threshold),
        "fit": decode.fit,
        "short_side_px": encoder.traits.image_size_px,
    }


def _decoded(encoder: Encoder, path: Path, decode: DecodeSettings | None) -> Iterator[Frame]:
    from impart.video.decode.sampler import sampled_frames  # here, so that images need no decoder

    decode = decode or DecodeSettings()
    return sampled_frames(
        path,
        short_side_px=encoder.traits.image_size_px,
        fps=decode.fps,
        reuse_threshold=decode.reuse_threshold,
        fit=decode.fit,
    )


def _read(base: Encoder, path: Path, frames: Frames, batch: int) -> Arrays | str:
    """Spans and base embeddings of a video, and why they are not all of it; or why it cannot be read."""
    spans: list[Span] = []
    batches = Batches(base, batch)
    try:
        reading = _Reading(frames(path) if callable(frames) else _decoded(base, path, frames))
        for start_s, end_s, image in reading:
            spans.append((start_s, end_s))
            batches.add(image)
    except (DecodeError, DataError) as error:
        return error.reason if isinstance(error, DecodeError) else str(error)
    if not spans:
        return "it has no frame"
    encoded = batches.finish()
    return {
        "spans": np.array(spans, dtype=np.float64),
        "embeddings": encoded.embeddings,
        "retrieval": encoded.retrieval,
        "problem": np.array(reading.problem or ""),
    }


def _layout(base: Encoder) -> Layout:
    """Arrays of one video."""
    return {
        "spans": ("f", ("n", 2)),
        "embeddings": ("f", ("n", base.traits.dim)),
        "retrieval": ("f", ("n", base.traits.retrieval_dim)),
        "problem": ("U", ()),
    }


def _of_arrays(number: int, encoder: Encoder, stored: Arrays | str) -> EmbeddedVideo:
    """A video of its base embeddings, or of the reason why it cannot be read."""
    if isinstance(stored, str):
        dim, retrieval_dim = encoder.traits.dim, encoder.traits.retrieval_dim
        return EmbeddedVideo(
            number=number,
            spans=np.zeros((0, 2)),
            embeddings=np.zeros((0, dim), np.float32),
            retrieval=np.zeros((0, retrieval_dim), np.float32),
            unreadable=stored,
        )
    plain = ImageEmbeddings(stored["embeddings"].astype(np.float32), stored["retrieval"].astype(np.float32))
    return EmbeddedVideo(
        number=number,
        spans=stored["spans"],
        embeddings=blended(encoder, plain),
        retrieval=plain.retrieval,
        problem=str(stored["problem"]) or None,
    )


class _Reading:
    """The frames of a reader, and afterwards the reason that it returned."""

    def __init__(self, frames: Iterator[Frame]) -> None:
        self._frames = frames
        self.problem: str | None = None

    def __iter__(self) -> Iterator[Frame]:
        if isinstance(self._frames, Generator):
            self.problem = yield from self._frames
        else:
            yield from self._frames
