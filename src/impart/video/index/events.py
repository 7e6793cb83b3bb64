"""Events of `VideoIndex.add`: one frozen dataclass per kind.

A run yields, in this order: `PathFailed` for paths that cannot be walked, where asked for `PathIgnored` for those left
out; one `ScanDone`; for each file of the plan one of `VideoDone`, `VideoFailed`, `VideoAbsent`, `VideoMoved`,
`VideoCopied`, `VideoRemoved`, `VideoSkipped` (with `VideoStarted` and `VideoProgress` before the first two); and
`IndexDone`. A dry run yields `PathFailed`, `ScanDone` and `Planned`. Unchanged files have no event; `ScanDone` counts
them. Files in which an earlier run found no video have none either; `IndexDone` counts them. With `engine="ray"`
several files are in work at once, and `WorkerReady`, `WorkerLost` and `WorkerDone` come between.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

__all__ = [
    "Action",
    "Counts",
    "Event",
    "IndexDone",
    "PathFailed",
    "PathIgnored",
    "Planned",
    "RunPaused",
    "VideoProgress",
    "ScanDone",
    "VideoAbsent",
    "VideoCopied",
    "VideoDone",
    "VideoFailed",
    "VideoMoved",
    "VideoRemoved",
    "VideoSkipped",
    "VideoStarted",
    "WorkerDone",
    "WorkerLost",
    "WorkerReady",
]

Action: TypeAlias = Literal["add", "update", "move", "copy", "touch", "skip", "remove"]
"""Action on a file. `touch`: its time changed, its content did not. `skip`: it failed before."""


@dataclass(frozen=True, kw_only=True)
class PathFailed:
    """A path given to `add`, or a folder below one, that cannot be walked. The run continues."""

    path: Path
    reason: str


@dataclass(frozen=True, kw_only=True)
class ScanDone:
    """All folders are walked and compared with the index.

    Attributes:
        files: video and photo files found.
        unchanged: files found that are in the index already.
        to_add, to_update, to_move, to_copy, to_remove: files per action.
        to_skip: files that failed before and have not changed since.
        bytes_total: size of the files to decode (`to_add` and `to_update`).
        ignored: what was left out below given folders, counted by suffix or by the kind of folder.
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
    ignored: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PathIgnored:
    """A file or folder below a given folder that was left out: by its suffix, its content or its name."""

    path: Path
    reason: str


@dataclass(frozen=True, kw_only=True)
class Planned:
    """An action that a run would take. `detail`: the other path of a move or copy, or why a file is skipped."""

    path: Path
    action: Action
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class RunPaused:
    """The index is paused (`impart.video.index.pause`): the run waits. One per second, at any place of a run."""

    paused_s: float


@dataclass(frozen=True, kw_only=True)
class VideoStarted:
    """The first frame of a file was decoded. `number` counts from 1 to `of`."""

    path: Path
    number: int
    of: int
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class VideoProgress:
    """Progress after an encoded batch or a file: enough for a bar with an estimate of the remaining time.

    Attributes:
        path: the file that is being encoded.
        files_done, files_total: files to decode.
        bytes_done, bytes_total: sizes of finished files and of all files to decode. Their ratio is the best estimate of
            the work done, since durations are unknown before decoding.
        position_s: position in the current file, in seconds.
        video_s: seconds of video finished in this run, including the current file.
        samples: frames sampled (at `decode.fps`); encoded: frames that went through the encoder.
        elapsed_s: seconds since decoding began.
        worker: number of the worker that the file is with; 0 = this process.
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
    worker: int = 0

    @property
    def speed(self) -> float:
        """Seconds of video per second."""
        return _speed(self.video_s, self.elapsed_s)

    @property
    def per_minute(self) -> float:
        """Files per minute."""
        return 60 * _speed(self.files_done, self.elapsed_s)


@dataclass(frozen=True, kw_only=True)
class VideoDone:
    """A video is committed: searches find it from now on.

    Attributes:
        duration_s: seconds of video; segments: rows of the index; samples: frames that these represent.
        problem: what cut it short (the part before is indexed), or None.
        notes: what was left out on purpose, such as a second video stream.
        replaced: whether it replaced an older version.
        kind: `video` or `photo`.
        worker: number of the worker that decoded it; 0 = this process.
    """

    path: Path
    video_id: str
    duration_s: float
    segments: int
    samples: int
    scenes: int
    problem: str | None
    replaced: bool
    notes: tuple[str, ...] = ()
    kind: Literal["video", "photo"] = "video"
    worker: int = 0


@dataclass(frozen=True, kw_only=True)
class VideoFailed:
    """A file could not be indexed. It is recorded, and tried again only when it changes or on request.

    A read error of a disk, a missing permission or a file that vanished is not recorded: the next run tries again.
    """

    path: Path
    reason: str
    attempts: int


@dataclass(frozen=True, kw_only=True)
class VideoAbsent:
    """A file without a video or photo, such as a sound recording. It is recorded and not decoded again; no failure."""

    path: Path
    reason: str


@dataclass(frozen=True, kw_only=True)
class VideoSkipped:
    """A file that failed before and has not changed since."""

    path: Path
    reason: str
    attempts: int


@dataclass(frozen=True, kw_only=True)
class VideoMoved:
    """A video that was indexed under another path, which is gone; nothing was decoded."""

    path: Path
    old_path: Path


@dataclass(frozen=True, kw_only=True)
class VideoCopied:
    """A second file with the content of an indexed one; nothing was decoded."""

    path: Path
    original: Path


@dataclass(frozen=True, kw_only=True)
class VideoRemoved:
    """A video whose file is gone was removed from the index (`prune`)."""

    path: Path


@dataclass(frozen=True, kw_only=True)
class WorkerReady:
    """A worker of `engine="ray"` has loaded the encoder. `worker` counts from 1; host: name of its machine."""

    worker: int
    host: str
    pid: int


@dataclass(frozen=True, kw_only=True)
class WorkerLost:
    """A worker's process or machine is gone. `files` are given to other workers, and another one is started."""

    worker: int
    host: str
    files: int


@dataclass(frozen=True, kw_only=True)
class WorkerDone:
    """The end of the work of a worker: the files that it decoded, and the seconds from the start of the workers."""

    worker: int
    host: str
    files: int
    elapsed_s: float

    @property
    def per_minute(self) -> float:
        """Files per minute."""
        return 60 * _speed(self.files, self.elapsed_s)


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Counts of a run.

    Attributes:
        added, updated, moved, copied, removed, failed: files.
        partial: of the files added or updated, those that could be read only up to a point.
        skipped: files that failed in an earlier run and were not tried again.
        no_video: files without a video or photo, found in this run or before.
        photos: of the files added or updated, those that are photos.
        segments, samples, encoded, video_s: totals over the files added or updated.

    >>> Counts(added=1, video_s=2.5) + Counts(added=1, failed=1) == Counts(added=2, failed=1, video_s=2.5)
    True
    """

    added: int = 0
    updated: int = 0
    moved: int = 0
    copied: int = 0
    removed: int = 0
    failed: int = 0
    partial: int = 0
    skipped: int = 0
    no_video: int = 0
    photos: int = 0
    segments: int = 0
    samples: int = 0
    encoded: int = 0
    video_s: float = 0.0

    def __add__(self, other: Counts) -> Counts:
        names = [item.name for item in dataclasses.fields(Counts)]
        return Counts(**{name: getattr(self, name) + getattr(other, name) for name in names})

    @property
    def files_done(self) -> int:
        """Files that were decoded, or failed."""
        return self.added + self.updated + self.failed


@dataclass(frozen=True, kw_only=True)
class IndexDone(Counts):
    """End of a run, with its counts.

    Attributes:
        path_failures: paths that cannot be walked.
        unchanged: files found that were in the index already.
        elapsed_s: seconds of the run, including the scan.
    """

    path_failures: int
    unchanged: int
    elapsed_s: float

    @property
    def all_failures(self) -> int:
        """Files that could not be indexed and paths that cannot be walked."""
        return self.failed + self.path_failures

    @property
    def speed(self) -> float:
        """Seconds of video per second."""
        return _speed(self.video_s, self.elapsed_s)


def _speed(amount: float, elapsed_s: float) -> float:
    return amount / max(elapsed_s, 1e-6)


Event: TypeAlias = (
    PathFailed
    | PathIgnored
    | ScanDone
    | Planned
    | RunPaused
    | VideoStarted
    | VideoProgress
    | VideoDone
    | VideoFailed
    | VideoAbsent
    | VideoSkipped
    | VideoMoved
    | VideoCopied
    | VideoRemoved
    | WorkerReady
    | WorkerLost
    | WorkerDone
    | IndexDone
)
