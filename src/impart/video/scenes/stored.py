"""Scenes of an indexed video, from the index alone: nothing is decoded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from impart.errors import QueryError, VideoIndexError
from impart.video.index.store import SEGMENTS, Store, VideoRecord
from impart.video.scenes.bounds import SceneBounds
from impart.video.scenes.scene import Scene, scenes_of

__all__ = ["stored_bounds", "stored_scenes"]


def stored_bounds(record: VideoRecord, start_s: npt.NDArray[np.float64], end_s: npt.NDArray[np.float64]) -> SceneBounds:
    """Return the bounds of the scenes of a video; where the index has none stored, those of its segments.

    Args:
        start_s, end_s: (n,) of its segments, seconds.
    """
    count = len(record.scene_starts)
    if len(record.scene_start_s) == len(record.scene_end_s) == len(record.scene_kinds) == count:
        return SceneBounds(record.scene_starts, record.scene_start_s, record.scene_end_s, record.scene_kinds)
    first = np.array(record.scene_starts, np.int64)
    last = np.append(first[1:], len(start_s)) - 1
    return SceneBounds(record.scene_starts, tuple(start_s[first]), tuple(end_s[last]), ("cut",) * count)


def stored_scenes(store: Store, path: str | os.PathLike[str]) -> list[Scene]:
    """Read the scenes of an indexed video.

    Args:
        path: of the video, as given to `add` or relative to the working folder; a bare name is enough where only one
            video has it.

    Raises:
        QueryError: the video is not in the index, or several have the name.
        VideoIndexError: the video lacks rows; names the remedy.
        TableGoneError: a table changed meanwhile; read again (`Store.retry`).
    """
    record = _record_of(store.videos(), path, folder=store.folder)
    rows = store.read(
        SEGMENTS,
        columns=["number", "start_s", "end_s", "weight", "vector"],
        where=f"video_id = '{record.video_id}' AND revision = '{record.revision}'",
    ).sort_by("number")
    if len(rows) != record.segments:
        raise VideoIndexError(
            f"{record.path} lacks rows in the index {store.folder}: impart index {record.path} --index {store.folder} "
            "indexes it again"
        )
    start_s, end_s, weights = (rows[name].to_numpy() for name in ("start_s", "end_s", "weight"))
    vectors = rows["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(len(rows), -1)
    return scenes_of(stored_bounds(record, start_s, end_s), vectors, starts_s=start_s, weights=weights)


def _record_of(records: Sequence[VideoRecord], path: str | os.PathLike[str], *, folder: Path) -> VideoRecord:
    given = Path(os.path.abspath(os.path.expanduser(path)))  # noqa: PTH100, PTH111
    found = [record for record in records if record.path in (given, Path(path))]
    if not found and Path(path).name == str(path):
        found = [record for record in records if record.path.name == str(path)]
        if len(found) > 1:
            raise QueryError(f"{len(found)} indexed videos are called {path}: give the path of one of them")
    if not found:
        raise QueryError(f"{given} is not in the index {folder}: index it first, or check its path")
    return found[0]
