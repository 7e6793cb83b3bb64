"""Find the faces of the indexed videos: decode one frame per second, in the decoder's own process."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from impart.config import DecodeSettings
from impart.errors import ImpartError
from impart.images import load_image
from impart.video.decode.decoder import Decoder
from impart.video.decode.sampler import DecodedSegment, DecodeFailed
from impart.video.faces.detector import Face, find_faces
from impart.video.faces.store import FaceStore, VideoFaces
from impart.video.index.store import VideoRecord
from impart.video.index.writer import write_lock

__all__ = ["FacesFound", "find_in_videos"]

FPS = 1.0
"""Frames per second in which faces are searched for."""

SHORT_SIDE_PX = 480
"""Short side of these frames; faces below a twelfth of it are missed."""

_SAVE_EVERY_S = 30.0


@dataclass(frozen=True, kw_only=True)
class FacesFound:
    """The faces of one video were searched for.

    Attributes:
        frames: searched.
        faces: found in them.
        done, total: videos.
        problem: why only a part of the video, or nothing of it, was searched; None for the whole.
    """

    path: Path
    frames: int
    faces: int
    done: int
    total: int
    problem: str | None


def find_in_videos(
    index: Path, records: Sequence[VideoRecord], settings: DecodeSettings
) -> Generator[FacesFound, None, VideoFaces]:
    """Find the faces of the videos that were not searched yet. A run may be stopped at any moment.

    Args:
        index: folder of the index.
        records: its videos.
        settings: of the index's decoder.

    Yields:
        An event per video. The work is done while they are consumed.

    Returns:
        All faces of the index.

    Raises:
        MissingExtraError: dlib or its models are not installed.
        IndexLockedError: another process was writing to the index when faces were saved.
    """
    find_faces(np.zeros((64, 64, 3), np.uint8))  # a missing extra is one error, not one per video
    store = FaceStore(index)
    committed = frozenset((record.video_id, record.revision) for record in records)
    known = store.videos().only(committed)
    new = [record for record in records if (record.video_id, record.revision) not in known.searched]
    ours = dataclasses.replace(settings, fps=FPS, fit="crop")
    saved_at = time.monotonic()
    with Decoder(ours, short_side_px=SHORT_SIDE_PX) as decoder:
        for number, record in enumerate(new, 1):
            found, frames, problem = _photo(record) if record.kind == "photo" else _video(record, decoder)
            known = known.joined(found)
            if time.monotonic() - saved_at > _SAVE_EVERY_S:
                _save(store, index, known)
                saved_at = time.monotonic()
            yield FacesFound(
                path=record.path, frames=frames, faces=len(found), done=number, total=len(new), problem=problem
            )
    _save(store, index, known)
    return known


def _save(store: FaceStore, index: Path, faces: VideoFaces) -> None:
    with write_lock(index):
        store.save_videos(faces)


def _photo(record: VideoRecord) -> tuple[VideoFaces, int, str | None]:
    try:
        image = load_image(record.path)[0]
        image.thumbnail((4 * SHORT_SIDE_PX, 2 * SHORT_SIDE_PX))
    except (ImpartError, OSError) as error:
        return VideoFaces.none(), 0, str(error)
    return _faces(record, [(0.0, record.duration_s, find_faces(np.asarray(image)))]), 1, None


def _video(record: VideoRecord, decoder: Decoder) -> tuple[VideoFaces, int, str | None]:
    found: list[tuple[float, float, list[Face]]] = []
    problem = None
    for item in decoder.decode([record.path]):
        if isinstance(item, DecodedSegment):
            found.append((item.start_s, item.end_s, find_faces(item.image)))
        elif isinstance(item, DecodeFailed):
            return VideoFaces.none(), len(found), item.reason  # not kept as searched: the next run tries again
        else:
            problem = item.problem
    return _faces(record, found), len(found), problem


def _faces(record: VideoRecord, found: Sequence[tuple[float, float, list[Face]]]) -> VideoFaces:
    rows = [(start_s, end_s, face) for start_s, end_s, faces in found for face in faces]
    key = (record.video_id, record.revision)
    return VideoFaces(
        searched=frozenset([key]),
        keys=(key,) * len(rows),
        start_s=np.array([start_s for start_s, _, _ in rows], np.float64),
        end_s=np.array([end_s for _, end_s, _ in rows], np.float64),
        boxes=_matrix([face.box for _, _, face in rows], 4),
        descriptors=_matrix([face.descriptor for _, _, face in rows], 128),
    )


def _matrix(rows: list[npt.NDArray[np.float32]], width: int) -> npt.NDArray[np.float32]:
    return np.array(rows, np.float32).reshape(-1, width)
