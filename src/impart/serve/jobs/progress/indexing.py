"""Progress of an indexing job, computed from the events of the library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from impart.serve.jobs.progress.event_log import EventKind
from impart.serve.schemas.text import path_text
from impart.video.index.events import (
    Event,
    IndexDone,
    PathFailed,
    RunPaused,
    ScanDone,
    VideoAbsent,
    VideoCopied,
    VideoDone,
    VideoFailed,
    VideoMoved,
    VideoProgress,
    VideoRemoved,
    VideoSkipped,
    VideoStarted,
)

__all__ = ["COUNTS", "IndexProgress"]

COUNTS = (
    "found", "unchanged", "added", "updated", "moved", "copied", "removed", "failed", "partial", "skipped", "no_video",
    "photos", "paths_failed",
)  # fmt: skip
Made = list[tuple[EventKind, dict[str, Any]]]


class IndexProgress:
    """State of an indexing job.

    Args:
        most_failures: that are listed; all are counted.
    """

    def __init__(self, most_failures: int) -> None:
        self.counts = dict.fromkeys(COUNTS, 0)
        self.failures: list[dict[str, Any]] = []
        self.failures_count = 0
        self._most_failures = most_failures
        self._scanned = False
        self._files = self._bytes = (0, 0)  # done, total
        self._current: dict[str, Any] | None = None
        self._video_s = 0.0
        self._began: float | None = None
        self._paused_at: float | None = None
        self._paused_s = 0.0
        self._index_paused = False

    @property
    def failed(self) -> bool:
        """Whether a file or path could not be indexed completely, in this run or, unchanged, in an earlier one."""
        return any(self.counts[name] for name in ("failed", "partial", "skipped", "paths_failed"))

    def pause(self, now: float) -> None:
        """Stop the clock of speed and remaining time."""
        if self._paused_at is None:
            self._paused_at = now

    def resume(self, now: float) -> None:
        """Start the clock again."""
        if self._paused_at is not None:
            self._paused_s += now - self._paused_at
            self._paused_at = None

    def apply(self, event: Event, now: float) -> Made:
        """Take an event of the library.

        Args:
            now: a clock in seconds.

        Returns:
            Events of the job.
        """
        counts = self.counts
        if isinstance(event, RunPaused):
            told, self._index_paused = self._index_paused, True
            self.pause(now)
            return [] if told else [("progress", self.view(now))]
        if self._index_paused:
            self._index_paused = False
            self.resume(now)
        match event:
            case ScanDone():
                counts["found"], counts["unchanged"] = event.files, event.unchanged
                self._scanned, self._began, self._paused_s = True, now, 0.0
                self._files = (0, event.to_add + event.to_update)
                self._bytes = (0, event.bytes_total)
                return [("progress", self.view(now))]
            case VideoStarted():
                self._current = {
                    **_file(event.path), "number": event.number, "size_bytes": event.size_bytes, "position_s": 0.0
                }  # fmt: skip
                return [("progress", self.view(now))]
            case VideoProgress():
                self._files = (event.files_done, event.files_total)
                self._bytes = (event.bytes_done, event.bytes_total)
                self._video_s = event.video_s
                if self._current is not None:
                    self._current["position_s"] = event.position_s
                return [("progress", self.view(now))]
            case VideoDone():
                self._current = None
                return self._done(event)
            case VideoFailed():
                self._current = None
                counts["failed"] += 1
                return [self._failure(event.path, "failed", event.reason, attempts=event.attempts)]
            case VideoSkipped():
                counts["skipped"] += 1
                return [self._failure(event.path, "skipped", event.reason, attempts=event.attempts)]
            case PathFailed():
                counts["paths_failed"] += 1
                return [self._failure(event.path, "path", event.reason)]
            case VideoAbsent():
                self._current = None
                counts["no_video"] += 1
                return [_video(event.path, "no_video", problem=event.reason)]
            case VideoMoved():
                counts["moved"] += 1
                return [_video(event.path, "moved")]
            case VideoCopied():
                counts["copied"] += 1
                return [_video(event.path, "copied")]
            case VideoRemoved():
                counts["removed"] += 1
                return [_video(event.path, "removed")]
            case IndexDone():
                for name in counts.keys() - {"found", "paths_failed"}:
                    counts[name] = getattr(event, name)
                counts["paths_failed"], self._current = event.path_failures, None
                self._video_s = event.video_s
                return [("progress", self.view(now))]
            case _:
                return []

    def view(self, now: float) -> dict[str, Any]:
        """Return the progress as plain values, see `impart.serve.schemas.jobs.IndexProgressOut`."""
        active_s = self._active_s(now)
        return {
            "scanning": not self._scanned,
            "index_paused": self._index_paused,
            "files_done": self._files[0],
            "files_total": self._files[1],
            "bytes_done": self._bytes[0],
            "bytes_total": self._bytes[1],
            "current": None if self._current is None else dict(self._current),
            "video_s": self._video_s,
            "active_s": active_s,
            "speed": self._video_s / active_s if active_s > 0 else 0.0,
            "remaining_s": self._remaining_s(active_s),
            "counts": dict(self.counts),
        }

    def _active_s(self, now: float) -> float:
        """Compute the seconds since decoding began, without pauses."""
        if self._began is None:
            return 0.0
        return max(0.0, (self._paused_at or now) - self._began - self._paused_s)

    def _remaining_s(self, active_s: float) -> float | None:
        """Estimate the remaining seconds by the bytes done; None before the first file is done.

        The length of the current file is unknown. Its part that is done is estimated by the bytes per second of video
        of the files before it.
        """
        done, total = self._bytes
        if self._files[0] >= self._files[1] and self._scanned:
            return 0.0
        if not done or not active_s:
            return None
        if self._current is not None:
            position_s = self._current["position_s"]
            before_s = self._video_s - position_s
            if before_s > 0:
                done += min(self._current["size_bytes"], int(position_s * done / before_s))
        return max(0.0, (total - done) * active_s / done)

    def _done(self, event: VideoDone) -> Made:
        self.counts["updated" if event.replaced else "added"] += 1
        self.counts["photos"] += event.kind == "photo"
        made: Made = []
        if event.problem is not None:
            self.counts["partial"] += 1
            made.append(self._failure(event.path, "partial", event.problem))
        action = "updated" if event.replaced else "added"
        details = {name: getattr(event, name) for name in ("video_id", "kind", "duration_s", "scenes", "problem")}
        return [*made, _video(event.path, action, notes=list(event.notes), **details)]

    def _failure(
        self, path: Path, kind: str, reason: str, *, attempts: int | None = None
    ) -> tuple[EventKind, dict[str, Any]]:
        failure = {**_file(path), "kind": kind, "reason": _text(reason), "attempts": attempts}
        self.failures_count += 1
        if len(self.failures) < self._most_failures:
            self.failures.append(failure)
        return ("failure", failure)


def _video(path: Path, action: str, **details: Any) -> tuple[EventKind, dict[str, Any]]:
    return ("video", {**_file(path), "action": action, **details})


def _file(path: Path) -> dict[str, str]:
    return {"name": path_text(Path(path.name)), "path": path_text(path)}


def _text(reason: str) -> str:
    """Make a reason, which may name a file, a text that JSON can carry."""
    return reason.encode("utf-8", "backslashreplace").decode("utf-8")
