"""Settings of jobs: all limits with their defaults."""

from __future__ import annotations

from dataclasses import dataclass

from impart.config import Device

__all__ = ["JobSettings"]

_KILL_S = 5.0  # until a process that is killed has ended


@dataclass(frozen=True, kw_only=True)
class JobSettings:
    """Limits of the jobs of one server.

    Attributes:
        waiting: jobs of one kind that may wait; more are refused.
        kept: finished jobs that are kept in memory.
        events: events that a job keeps for streams that resume.
        failures: failures and left out spans that a job lists; all are counted.
        progress_s: least seconds between two progress events.
        streams: streams of events that may be open at once.
        nice: how much lower the priority of jobs is, as of `nice`; 0 = not at all.
        device: of the encoder in an indexing job.
        threads: CPU threads of the encoder in an indexing job; 0 = one per core.
        cancel_s: seconds after which a cancelled job that does not stop is ended.
        grace_s: seconds that a job has to commit the video in progress when the server stops.
        export_spans: most spans of an export.
        export_hours: most hours of video in the clips or the reel of an export, handles included.
        export_mb: most megabytes of all finished exports; the oldest are deleted.
        export_age_s: seconds after which a finished export is deleted.
    """

    waiting: int = 8
    kept: int = 50
    events: int = 1000
    failures: int = 200
    progress_s: float = 0.25
    streams: int = 32
    nice: int = 10
    device: Device = "auto"
    threads: int = 1
    cancel_s: float = 10.0
    grace_s: float = 25.0
    export_spans: int = 1000
    export_hours: float = 4.0
    export_mb: int = 4096
    export_age_s: float = 24 * 3600.0

    @property
    def stops_s(self) -> float:
        """Seconds after which no job runs any more and its end has been told, when the server stops."""
        return self.grace_s + _KILL_S
