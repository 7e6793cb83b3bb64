"""Find the faces of the indexed videos: decode one frame per second, in the decoder's own process."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from impart.config import DecodeSettings
from impart.errors import ImpartError, IndexLockedError, VideoIndexError
from impart.images import load_image
from impart.video.decode.decoder import Decoder
from impart.video.decode.sampler import DecodedSegment, DecodeFailed
from impart.video.faces.detector import Face, find_faces
from impart.video.faces.store import FaceStore, VideoFaces
from impart.video.index.durable.lock import write_lock
from impart.video.index.store import VideoRecord

__all__ = ["FacesFound", "find_in_videos"]

FPS = 1.0
"""Frames per second in which faces are searched for."""

SHORT_SIDE_PX = 480
"""Short side of these frames; faces below a twelfth of it are missed."""

_SAVE_EVERY_S = 30.0
_WAIT_S = 60.0  # for the write lock, when all is found


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
        IndexLockedError: another process is writing to the index, at the start or for long at the end.
        VideoIndexError: all faces were deleted meanwhile.
    """
    find_faces(np.zeros((64, 64, 3), np.uint8))  # a missing extra is one error, not one per video
    store = FaceStore(index)
    committed = frozenset((record.video_id, record.revision) for record in records)
    with write_lock(index):
        known = store.videos().only(committed)
        store.save_videos(known)  # a run finds by this file that all faces were deleted meanwhile
    new = [record for record in records if (record.video_id, record.revision) not in known.searched]
    ours = dataclasses.replace(settings, fps=FPS, fit="crop")
    saved_at, unsaved = time.monotonic(), VideoFaces.none()
    try:
        with Decoder(ours, short_side_px=SHORT_SIDE_PX) as decoder:
            for number, record in enumerate(new, 1):
                found, frames, problem = _photo(record) if record.kind == "photo" else _video(record, decoder)
                unsaved = unsaved.joined(found)
                if time.monotonic() - saved_at > _SAVE_EVERY_S:
                    saved_at = time.monotonic()
                    with suppress(IndexLockedError):  # they are saved later
                        _save(store, index, unsaved)
                        unsaved = VideoFaces.none()
                yield FacesFound(
                    path=record.path, frames=frames, faces=len(found), done=number, total=len(new), problem=problem
                )
    except (KeyboardInterrupt, GeneratorExit):
        if unsaved.searched:
            with suppress(ImpartError):  # locked, or deleted meanwhile
                _save(store, index, unsaved)
        raise
    return _save(store, index, unsaved, wait_s=_WAIT_S)


def _save(store: FaceStore, index: Path, new: VideoFaces, *, wait_s: float = 0.0) -> VideoFaces:
    """Add faces to those on disk: another run may have saved some. Return all.

    Raises:
        IndexLockedError: another process is writing to the index.
        VideoIndexError: all faces were deleted since the run began.
    """
    with write_lock(index, wait_s=wait_s):
        if not store.on:
            raise VideoIndexError(
                f"all data of faces in {index} was deleted meanwhile, so none is saved; to find faces again: "
                f"impart names faces -i {index}"
            )
        faces = store.videos().without(new.searched).joined(new)
        store.save_videos(faces)
    return faces


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
