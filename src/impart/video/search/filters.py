"""Filters: which videos of an index a search may return, and the segment that it starts from."""

from __future__ import annotations

import fnmatch
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from impart.errors import QueryError
from impart.video.index.scan import absolute
from impart.video.search.hits import timecode
from impart.video.search.query import SearchOptions
from impart.video.search.snapshot import Snapshot

__all__ = ["allowed_videos", "first_copies", "locate_segment", "path_mask"]


def allowed_videos(
    snapshot: Snapshot, options: SearchOptions, *, own: int | None = None
) -> npt.NDArray[np.bool_] | None:
    """Select the videos that a search may return.

    Args:
        own: number of the video that the search started from; it is taken in place of its copies.

    Returns:
        (V,) the selected videos; None = all.
    """
    videos = None if options.path_glob is None else path_mask(snapshot, options.path_glob)
    if options.fold_copies and snapshot.copies:
        videos = first_copies(snapshot, videos, own=own)
    return videos


def first_copies(
    snapshot: Snapshot, allowed: npt.NDArray[np.bool_] | None, *, own: int | None = None
) -> npt.NDArray[np.bool_]:
    """Select one of the videos with the same content: the first that is allowed.

    Args:
        allowed: (V,) videos; None = all.
        own: number of a video that is selected in place of its copies.

    Returns:
        (V,) the selected videos.
    """
    result = np.ones(len(snapshot.paths), bool) if allowed is None else allowed.copy()
    for copies in set(snapshot.copies.values()):
        first = own if own in copies else next((video for video in copies if result[video]), None)
        result[[video for video in copies if video != first]] = False
    return result


def locate_segment(snapshot: Snapshot, path: str | os.PathLike[str], at_s: float, *, folder: Path) -> int:
    """Find the segment of a video at a time. A bare file name is enough where only one video has it.

    Args:
        folder: of the index, for messages.

    Raises:
        QueryError: the video is not in the index, or is shorter.
    """
    given = absolute(path)
    known = {video: i for i, video in enumerate(snapshot.paths)}
    number = known.get(given, known.get(Path(path)))
    if number is None and Path(path).name == str(path):
        namesakes = [i for i, known_path in enumerate(snapshot.paths) if known_path.name == str(path)]
        if len(namesakes) > 1:
            raise QueryError(f"{len(namesakes)} indexed videos are called {path}: give the path of one of them")
        number = namesakes[0] if namesakes else None
    if number is None:
        raise QueryError(f"{given} is not in the index {folder}: index it first, or check its path")
    first, stop = int(snapshot.offsets[number]), int(snapshot.offsets[number + 1])
    end_s = float(snapshot.end_s[stop - 1])
    if not 0 <= at_s <= end_s:
        raise QueryError(f"{at_s:g} s is outside {snapshot.paths[number]}: it ends at {timecode(end_s)}")
    return first + max(0, int(np.searchsorted(snapshot.start_s[first:stop], at_s, side="right")) - 1)


def path_mask(snapshot: Snapshot, pattern: str) -> npt.NDArray[np.bool_]:
    """Match the paths of V videos with a shell pattern.

    A pattern without a slash is matched with the file name, one with a slash with the whole path or its end.
    """
    if "/" not in pattern and os.sep not in pattern:
        videos = [fnmatch.fnmatch(path.name, pattern) for path in snapshot.paths]
    else:
        tail = pattern if os.path.isabs(pattern) else f"*/{pattern}"  # noqa: PTH117
        videos = [fnmatch.fnmatch(path.as_posix(), tail.replace(os.sep, "/")) for path in snapshot.paths]
    return np.array(videos, bool)
