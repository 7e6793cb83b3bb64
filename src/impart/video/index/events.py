"""What `VideoIndex.add` tells its caller while it works: one frozen dataclass an event.

A run yields, in this order: `PathFailed` for paths that cannot be walked, one `ScanDone`, then for each file of the
plan one of `VideoDone`, `VideoFailed`, `VideoMoved`, `VideoCopied`, `VideoRemoved`, `VideoSkipped` (with `VideoStarted`
and `VideoProgress` before the first two), and `IndexDone` at the end. A dry run yields `Planned` in their place.
Files that have not changed make no event; they are counted in `ScanDone`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

__all__ = [
    "Action",
    "Event",
    "IndexDone",
    "PathFailed",
    "Planned",
    "VideoProgress",
    "ScanDone",
    "VideoCopied",
    "VideoDone",
    "VideoFailed",
    "VideoMoved",
    "VideoRemoved",
    "VideoSkipped",
    "VideoStarted",
]

Action: TypeAlias = Literal["add", "update", "move", "copy", "touch", "skip", "remove"]
"""What happens to a file; `touch`: its time changed and its content did not; `skip`: it failed before."""


@dataclass(frozen=True, kw_only=True)
class PathFailed:
    """A path given to `add`, or a folder below one, that cannot be walked. The rest goes on."""

    path: Path
    reason: str


@dataclass(frozen=True, kw_only=True)
class ScanDone:
    """All folders are walked and compared with the index.

    Attributes:
        files: video files found.
        unchanged: of these, in the index as they are.
        to_add, to_update, to_move, to_copy, to_remove: what will be done.
        to_skip: files that failed before and have not changed since.
        bytes_total: size of the files to decode (`to_add` and `to_update`).
    """

    files: int
    unchanged: int
    to_add: int
    to_update: int
    to_move: int
    to_copy: int
    to_skip: int
    to_remove: int
    bytes_total: int


@dataclass(frozen=True, kw_only=True)
class Planned:
    """Dry run: what would be done with a file. `detail`: the other path of a move or copy, or why it is skipped."""

    path: Path
    action: Action
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class VideoStarted:
    """The first frame of a file has arrived. `number` counts from 1 to `of`."""

    path: Path
    number: int
    of: int
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class VideoProgress:
    """After each encoded batch, and after each file: enough for a bar with an estimate of the time left.

    Attributes:
        path: the file being encoded.
        files_done, files_total: files to decode.
        bytes_done, bytes_total: sizes of files finished and of all files to decode. The fraction of bytes is the best
            estimate of the work done, since durations are not known before decoding.
        position_s: how far into the present file, in seconds.
        video_s: seconds of video finished in this run, the present file included.
        samples: frames sampled (at `decode.fps`); encoded: of these, run through the encoder.
        elapsed_s: seconds since decoding began.
    """

    path: Path
    files_done: int
    files_total: int
    bytes_done: int
    bytes_total: int
    position_s: float
    video_s: float
    samples: int
    encoded: int
    elapsed_s: float


@dataclass(frozen=True, kw_only=True)
class VideoDone:
    """A video is committed: searches find it from now on.

    Attributes:
        duration_s: seconds of video; segments: rows of the index; samples: frames they stand for.
        problem: what cut it short (the part before is indexed), or None.
        replaced: whether it took the place of an older version.
    """

    path: Path
    video_id: str
    duration_s: float
    segments: int
    samples: int
    scenes: int
    problem: str | None
    replaced: bool


@dataclass(frozen=True, kw_only=True)
class VideoFailed:
    """A file could not be indexed. It is remembered and not tried again until it changes or is asked for."""

    path: Path
    reason: str
    attempts: int


@dataclass(frozen=True, kw_only=True)
class VideoSkipped:
    """A file that failed before and has not changed since."""

    path: Path
    reason: str
    attempts: int


@dataclass(frozen=True, kw_only=True)
class VideoMoved:
    """A video known under another path, which is gone; nothing was decoded."""

    path: Path
    old_path: Path


@dataclass(frozen=True, kw_only=True)
class VideoCopied:
    """A second file with the content of an indexed one; nothing was decoded."""

    path: Path
    original: Path


@dataclass(frozen=True, kw_only=True)
class VideoRemoved:
    """A video whose file is gone was taken out of the index (`prune`)."""

    path: Path


@dataclass(frozen=True, kw_only=True)
class IndexDone:
    """The end of a run.

    Attributes:
        added, updated, moved, copied, removed, failed: files in this run; partial: of those added or updated, the ones
            that could be read only up to a point.
        skipped: failed in an earlier run, not tried again.
        path_failures: paths that could not be walked.
        segments, samples, encoded, video_s: totals over the videos of this run.
        elapsed_s: wall time of the run, the scan included.
    """

    added: int
    updated: int
    moved: int
    copied: int
    removed: int
    failed: int
    partial: int
    skipped: int
    path_failures: int
    unchanged: int
    segments: int
    samples: int
    encoded: int
    video_s: float
    elapsed_s: float


Event: TypeAlias = (
    PathFailed
    | ScanDone
    | Planned
    | VideoStarted
    | VideoProgress
    | VideoDone
    | VideoFailed
    | VideoSkipped
    | VideoMoved
    | VideoCopied
    | VideoRemoved
    | IndexDone
)
