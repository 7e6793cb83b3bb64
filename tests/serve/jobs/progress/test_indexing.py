"""Progress of indexing jobs: counts, the remaining time, and pauses."""

from __future__ import annotations

from pathlib import Path

import pytest

from impart.serve.jobs.messages import event_of, line_of, message_of
from impart.serve.jobs.progress.event_log import EventLog
from impart.serve.jobs.progress.indexing import IndexProgress
from impart.video.index.events import (
    Event,
    IndexDone,
    PathFailed,
    RunPaused,
    ScanDone,
    VideoAbsent,
    VideoDone,
    VideoFailed,
    VideoProgress,
    VideoSkipped,
    VideoStarted,
)

A, B = Path("/films/a.mp4"), Path("/films/b.mp4")
SCAN = ScanDone(
    files=3, unchanged=0, to_add=3, to_update=0, to_move=0, to_copy=0, to_skip=0, to_remove=0, bytes_total=4000
)


def done(path: Path, **fields: object) -> VideoDone:
    known = {"video_id": "0" * 16, "duration_s": 10.0, "segments": 4, "samples": 40, "scenes": 1, "problem": None}
    return VideoDone(path=path, replaced=False, **{**known, **fields})  # type: ignore[arg-type]


def at(path: Path, *, files: int, size: int, position_s: float, video_s: float) -> VideoProgress:
    return VideoProgress(
        path=path, files_done=files, files_total=3, bytes_done=size, bytes_total=4000, position_s=position_s,
        video_s=video_s, samples=0, encoded=0, elapsed_s=0.0,
    )  # fmt: skip


def test_a_job_tells_that_the_index_is_paused_and_does_not_count_that_time() -> None:
    progress = IndexProgress(10)
    progress.apply(SCAN, 100.0)
    progress.apply(VideoStarted(path=A, number=1, of=3, size_bytes=1000), 100.0)
    made = progress.apply(RunPaused(paused_s=0.0), 102.0)
    assert [kind for kind, _ in made] == ["progress"]
    assert made[0][1]["index_paused"]
    assert progress.apply(RunPaused(paused_s=1.0), 103.0) == [], "told once"
    assert progress.view(150.0)["active_s"] == pytest.approx(2.0)
    progress.apply(at(A, files=0, size=0, position_s=5.0, video_s=5.0), 151.0)
    view = progress.view(152.0)
    assert not view["index_paused"]
    assert view["active_s"] == pytest.approx(3.0)


def test_the_remaining_time_counts_bytes_and_the_part_of_the_current_file() -> None:
    progress = IndexProgress(10)
    assert progress.view(0.0)["scanning"]
    progress.apply(SCAN, 100.0)
    progress.apply(VideoStarted(path=A, number=1, of=3, size_bytes=1000), 100.0)
    progress.apply(at(A, files=0, size=0, position_s=5.0, video_s=5.0), 101.0)
    view = progress.view(101.0)
    assert view["remaining_s"] is None, "nothing is known before the first file is done"
    assert view["speed"] == pytest.approx(5.0)
    progress.apply(done(A), 102.0)
    progress.apply(at(A, files=1, size=1000, position_s=0.0, video_s=10.0), 102.0)
    assert progress.view(102.0)["remaining_s"] == pytest.approx(6.0)
    progress.apply(VideoStarted(path=B, number=2, of=3, size_bytes=2000), 102.0)
    progress.apply(at(B, files=1, size=1000, position_s=10.0, video_s=20.0), 104.0)
    assert progress.view(104.0)["remaining_s"] == pytest.approx(4.0), "10 s of the current file are 1000 of its bytes"
    assert progress.view(104.0)["current"]["position_s"] == 10.0


def test_a_pause_does_not_count() -> None:
    progress = IndexProgress(10)
    progress.apply(SCAN, 100.0)
    progress.apply(at(A, files=1, size=1000, position_s=0.0, video_s=10.0), 102.0)
    progress.pause(102.0)
    assert progress.view(500.0)["active_s"] == pytest.approx(2.0)
    progress.resume(500.0)
    view = progress.view(501.0)
    assert (view["active_s"], view["remaining_s"]) == (pytest.approx(3.0), pytest.approx(9.0))


def test_failures_are_all_counted_and_a_bounded_number_is_listed() -> None:
    progress = IndexProgress(2)
    events: list[Event] = [
        PathFailed(path=Path("/gone"), reason="cannot be found"),
        VideoFailed(path=A, reason="broken \udcff", attempts=1),
        VideoSkipped(path=B, reason="broken", attempts=3),
        done(Path("/films/c\udcff.mp4"), problem="cut short"),
        VideoAbsent(path=Path("/films/d.mp4"), reason="has no video stream"),
    ]
    made = [one for event in events for one in progress.apply(event, 1.0)]
    assert [kind for kind, _ in made] == ["failure", "failure", "failure", "failure", "video", "video"]
    assert [data.get("kind") for kind, data in made if kind == "failure"] == ["path", "failed", "skipped", "partial"]
    assert (progress.failures_count, len(progress.failures)) == (4, 2)
    assert made[1][1]["reason"] == "broken \\udcff"
    assert made[3][1]["name"] == "c\\xff.mp4"
    assert progress.failed
    counts = {"paths_failed": 1, "failed": 1, "skipped": 1, "added": 1, "partial": 1, "no_video": 1}
    assert {name: count for name, count in progress.counts.items() if count} == counts
    end = IndexDone(path_failures=1, unchanged=5, elapsed_s=2.0, added=1, failed=1, skipped=1, partial=1, no_video=7)
    progress.apply(end, 2.0)
    assert progress.counts["no_video"] == 7, "those of earlier runs have no event"


@pytest.mark.parametrize("event", [SCAN, done(A, notes=("one",), kind="photo"), PathFailed(path=B, reason="x\udcff")])
def test_events_pass_a_pipe_unchanged(event: Event) -> None:
    assert event_of(message_of(line_of(event))) == event


def test_other_messages_are_no_events() -> None:
    assert [event_of({"type": kind}) for kind in ("paused", "Event", "dataclass", "Path")] == [None] * 4


def test_a_log_wakes_those_who_listen_and_knows_what_it_lost() -> None:
    log = EventLog(3)
    woken: list[int] = []
    assert log.after(0) == []
    assert log.after(1) is None, "a number that was never given"
    with log.listen(lambda: woken.append(log.last)):
        for number in range(5):
            log.append("progress", {"number": number})
    log.append("done", {})
    assert woken == [1, 2, 3, 4, 5]
    assert [event.number for event in log.after(3) or []] == [4, 5, 6]
    assert log.after(2) is None
    assert log.after(6) == []
