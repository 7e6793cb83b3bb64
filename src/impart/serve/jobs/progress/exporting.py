"""Progress of an export job, computed from the messages of its process."""

from __future__ import annotations

from typing import Any

from impart.serve.jobs.progress.event_log import EventKind
from impart.serve.jobs.requests import ExportRequest

__all__ = ["ExportProgress"]


class ExportProgress:
    """State of an export job.

    Args:
        request: of the job.
        most_failures: left out spans that are listed; all are counted.
    """

    def __init__(self, request: ExportRequest, most_failures: int) -> None:
        self._request = request
        self._most_failures = most_failures
        self._done = 0
        self._notes: list[str] = []
        self._file: dict[str, Any] | None = None
        self.failures: list[dict[str, Any]] = []
        self.failures_count = 0

    @property
    def failed(self) -> bool:
        """Whether a span was left out."""
        return self.failures_count > 0

    @property
    def file_name(self) -> str | None:
        """Name of the finished file."""
        return None if self._file is None else self._file["name"]

    def pause(self, now: float) -> None:
        """Do nothing: an export has no clock."""

    def resume(self, now: float) -> None:
        """Do nothing: an export has no clock."""

    def apply(self, message: dict[str, Any]) -> list[tuple[EventKind, dict[str, Any]]]:
        """Take a message of the process; return events of the job."""
        match message["type"]:
            case "span":
                self._done = message["done"]
            case "skipped":
                return [("failure", self.skip(message["number"], message["reason"]))]
            case "written":
                self._done = message["spans"]
                self._notes = message["notes"]
                self._file = {name: message[name] for name in ("name", "size_bytes", "media_type", "files")}
            case _:
                return []
        return [("progress", self.view())]

    def skip(self, number: int, reason: str) -> dict[str, Any]:
        """Note that a span, counted from 1, is left out."""
        failure = {"number": number, "video_id": self._request.spans[number - 1].video_id, "reason": reason}
        self.failures_count += 1
        if len(self.failures) < self._most_failures:
            self.failures.append(failure)
        return failure

    def view(self, _now: float = 0.0) -> dict[str, Any]:
        """Return the progress as plain values, see `impart.serve.schemas.exports.ExportProgressOut`."""
        return {
            "form": self._request.form,
            "spans_done": self._done,
            "spans_total": len(self._request.spans),
            "notes": list(self._notes),
            "file": None if self._file is None else dict(self._file),
        }
