"""Filters: which videos of an index a search may return, by path, kind, date and length.

A filter that leaves few videos makes a search faster: all steps see a smaller snapshot (`narrowed_to`).
"""

from __future__ import annotations

import fnmatch
import os

import numpy as np
import numpy.typing as npt

from impart.video.index.files.scan import absolute
from impart.video.search.dates import end_of, length_s, start_of
from impart.video.search.query import SearchOptions
from impart.video.search.snapshot import Snapshot

__all__ = ["allowed_videos", "first_copies", "narrowed_to", "path_mask"]

_LARGEST_SHARE = 0.4  # of the segments, above which taking them out costs more than it saves (benchmarks/filters.py)


def allowed_videos(
    snapshot: Snapshot, options: SearchOptions, *, own: int | None = None
) -> npt.NDArray[np.bool_] | None:
    """Select the videos that a search may return.

    Args:
        own: number of the video that the search started from; it is taken in place of its copies.

    Returns:
        (V,) the selected videos; None = all.
    """
    videos = _filtered(snapshot, options)
    if options.fold_copies and snapshot.copies:
        videos = first_copies(snapshot, videos, own=own)
    return videos


def narrowed_to(snapshot: Snapshot, options: SearchOptions) -> npt.NDArray[np.int64] | None:
    """Find the videos that the filters allow, and their copies; a search of these alone has the same hits.

    Returns:
        Their numbers, in ascending order; None where most of the snapshot is allowed.
    """
    videos = _filtered(snapshot, options)
    if videos is None:
        return None
    kept = videos.copy()
    for copies in set(snapshot.copies.values()):
        kept[list(copies)] = videos[list(copies)].any()
    if np.diff(snapshot.offsets)[kept].sum() > _LARGEST_SHARE * len(snapshot):
        return None
    return np.flatnonzero(kept)


def _filtered(snapshot: Snapshot, options: SearchOptions) -> npt.NDArray[np.bool_] | None:
    """Select the videos (V,) that all filters allow; None where there is no filter."""
    masks: list[npt.NDArray[np.bool_]] = []
    if options.path_glob is not None:
        masks.append(path_mask(snapshot, options.path_glob))
    if options.folder is not None:
        folder = absolute(options.folder)
        places = {folder, folder.resolve()}
        masks.append(np.array([not places.isdisjoint(path.parents) for path in snapshot.paths], bool))
    if options.kind is not None:
        masks.append(np.array([kind == options.kind for kind in snapshot.kinds], bool))
    if options.since is not None or options.until is not None:
        dates = np.where(np.isnan(snapshot.recorded_at), snapshot.modified_at, snapshot.recorded_at)  # (V,)
        if options.since is not None:
            masks.append(dates >= start_of(options.since))  # never of an unknown date, which is NaN
        if options.until is not None:
            masks.append(dates < end_of(options.until))
    if options.min_length is not None or options.max_length is not None:
        masks.append(np.array([kind == "video" for kind in snapshot.kinds], bool))
        if options.min_length is not None:
            masks.append(snapshot.durations_s >= length_s(options.min_length))
        if options.max_length is not None:
            masks.append(snapshot.durations_s <= length_s(options.max_length))
    return np.logical_and.reduce(masks) if masks else None


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
