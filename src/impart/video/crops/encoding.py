"""Make the crops of the indexed videos: decode them again, and encode five parts of each frame.

The frames are those of the index, decoded larger: a part has as many pixels as the encoder takes.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from impart.config import DecodeSettings
from impart.encoders.base import Encoder
from impart.video.crops.store import PARTS, CropStore, key_of
from impart.video.decode.decoder import Decoder
from impart.video.decode.sampler import DecodedSegment, DecodeFailed
from impart.video.index.store import VideoRecord

__all__ = ["CropsMade", "make_crops", "parts_of"]

SHARE = 0.6
"""Of the sides of a frame that a part has."""


@dataclass(frozen=True, kw_only=True)
class CropsMade:
    """The crops of some frames, or of a whole video, were made.

    Attributes:
        done, total: frames of this run.
        problem: why the video has no crops; None = it has, or is not finished.
    """

    path: Path
    done: int
    total: int
    problem: str | None = None


def parts_of(image: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.uint8]]:
    """Cut out the four corners and the centre of an image (h, w, 3), each 60% of its sides.

    >>> [int(part[0, 0, 0]) for part in parts_of(np.arange(100, dtype=np.uint8).reshape(10, 10, 1))]
    [0, 4, 40, 44, 22]
    """
    height, width = image.shape[:2]
    rows, columns = (max(1, round(SHARE * side)) for side in (height, width))
    down, right = height - rows, width - columns
    corners = [(0, 0), (0, right), (down, 0), (down, right), (down // 2, right // 2)]
    return [np.ascontiguousarray(image[top : top + rows, left : left + columns]) for top, left in corners]


def make_crops(
    store: CropStore, records: Sequence[VideoRecord], settings: DecodeSettings, encoder: Encoder, *, batch: int
) -> Iterator[CropsMade]:
    """Make the crops of the videos that have none. A run may be stopped at any moment; the next one continues.

    Args:
        store: of the index; the caller holds its write lock.
        records: all videos of the index.
        settings: of the index's decoder.
        encoder: base encoder of the index.
        batch: images per forward pass.

    Yields:
        Events. The work is done while they are consumed.
    """
    store.keep(records)
    known = store.known()
    of_revision = {record.revision: key_of(record) for record in records if key_of(record) in known}
    new = [record for record in records if key_of(record) not in known]
    done, total = 0, sum(record.segments for record in new)
    side_px = encoder.traits.image_size_px
    large, small = Decoder(settings, short_side_px=round(side_px / SHARE)), Decoder(settings, short_side_px=side_px)
    with large, small:
        for record in new:
            problem: str | None = None
            same = of_revision.get(record.revision)  # a copy of the file
            rows = store.load(same) if same is not None else None
            # Segments of frames wider than 4,096 pixels depend a little on the size to which they are scaled.
            for decoder in (large, small):
                if rows is None or (problem is None and len(rows) != record.segments):
                    rows, problem = yield from _encoded(record, decoder, encoder, batch=batch, done=done, total=total)
            done += record.segments
            if rows is not None and problem is None and len(rows) == record.segments:
                store.save(key_of(record), rows)
                of_revision[record.revision] = key_of(record)
            else:
                problem = problem or "its frames are not those in the index: has the file changed?"
            yield CropsMade(path=record.path, done=done, total=total, problem=problem)


def _encoded(
    record: VideoRecord, decoder: Decoder, encoder: Encoder, *, batch: int, done: int, total: int
) -> Generator[CropsMade, None, tuple[npt.NDArray[np.float16], str | None]]:
    """Encode the parts of all frames of a video: (n, 5, R), and why this is impossible."""
    width = encoder.traits.retrieval_dim
    made = [np.zeros((0, PARTS, width), np.float16)]
    waiting: list[npt.NDArray[np.uint8]] = []
    count, problem = 0, None
    for item in decoder.decode([record.path]):
        if isinstance(item, DecodedSegment):
            waiting += parts_of(item.image)
        elif isinstance(item, DecodeFailed):
            problem = item.reason
        if waiting and (len(waiting) >= batch or not isinstance(item, DecodedSegment)):
            made.append(encoder.encode_images(waiting).retrieval.astype(np.float16).reshape(-1, PARTS, width))
            count += len(made[-1])
            waiting = []
            yield CropsMade(path=record.path, done=done + min(count, record.segments), total=total)
    return np.concatenate(made), problem
