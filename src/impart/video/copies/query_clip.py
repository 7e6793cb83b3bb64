"""Decode and encode a clip as an index run does, as it is and mirrored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from impart.config import DecodeSettings
from impart.encoders.base import Encoder, Float32
from impart.errors import DecodeError, QueryError
from impart.video.decode.decoder import Decoder
from impart.video.decode.sampler import DecodedSegment, DecodeFailed, DecodeFinished

__all__ = ["SHORTEST_S", "QueryClip", "read_clip"]

SHORTEST_S = 1.0
"""Shortest clip that can be looked for."""


@dataclass(frozen=True, kw_only=True)
class QueryClip:
    """Retrieval embeddings of a clip's frames.

    Attributes:
        path: of the file, absolute.
        views: (n, R) each, L2-normalised: of the frames as they are, and mirrored.
        starts_s, ends_s: (n,) seconds.
        problem: why only a part of the file could be read, or None.
    """

    path: Path
    views: tuple[Float32, ...]
    starts_s: npt.NDArray[np.float64]
    ends_s: npt.NDArray[np.float64]
    problem: str | None = None


def read_clip(
    path: Path,
    encoder: Encoder,
    settings: DecodeSettings,
    *,
    batch: int,
    on_frames: Callable[[int], None] | None = None,
) -> QueryClip:
    """Decode and encode a clip.

    Args:
        encoder: the base encoder of the index.
        settings: of decoding, those of the index.
        batch: images encoded at once.
        on_frames: called with the number of frames done.

    Raises:
        DecodeError: the file is missing, or no video that can be read.
        QueryError: the clip is shorter than a second.
    """
    if not path.is_file():
        raise DecodeError(f"{path}: no such file: check the path of the clip")
    views: tuple[list[Float32], list[Float32]] = ([], [])
    times: list[tuple[float, float]] = []
    waiting: list[npt.NDArray[np.uint8]] = []
    problem = None

    def encode() -> None:
        if waiting:
            views[0].append(encoder.encode_images(waiting).retrieval)
            views[1].append(
                encoder.encode_images([np.ascontiguousarray(image[:, ::-1]) for image in waiting]).retrieval
            )
            waiting.clear()
            if on_frames is not None:
                on_frames(len(times))

    with Decoder(settings, short_side_px=encoder.traits.image_size_px) as decoder:
        for item in decoder.decode([path]):
            if isinstance(item, DecodedSegment):
                waiting.append(item.image)
                times.append((item.start_s, item.end_s))
                if len(waiting) >= batch:
                    encode()
            elif isinstance(item, DecodeFinished):
                problem = item.problem
            elif isinstance(item, DecodeFailed):
                raise DecodeError(f"{path}: {item.reason}", lasting=item.lasting)
    encode()
    spans = np.array(times, np.float64).reshape(-1, 2)
    if spans[-1, 1] - spans[0, 0] < SHORTEST_S:
        raise QueryError(
            f"{path} is {spans[-1, 1] - spans[0, 0]:.2f} s long: a clip needs {SHORTEST_S:g} s or more. For a still "
            "image use impart search --image"
        )
    found = tuple(np.concatenate(view) for view in views)
    return QueryClip(path=path, views=found, starts_s=spans[:, 0], ends_s=spans[:, 1], problem=problem)
