"""Indexing jobs in real processes: progress, pause, cancel, crashes, locks, and the end of the server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers.clips import truncate, write_clip
from helpers.job_queues import TESTS, make_queue
from helpers.tiny_encoder import COLOURS, TinyEncoder
from impart.serve.jobs.job import Job
from impart.serve.jobs.queue import JobQueue
from impart.serve.jobs.refusal import JobRefusedError
from impart.video.index.durable.lock import write_lock
from impart.video.index.index import VideoIndex
from impart.video.index.pause import pause

pytestmark = pytest.mark.timeout(180)
QUICK_S = 45.0


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Three films of four shots."""
    folder = tmp_path / "films"
    folder.mkdir()
    names = list(COLOURS)
    for number in range(3):
        write_clip(folder / f"film {number}.mp4", colours=names[number : number + 4], seconds_each=2.0, fps=8)
    return folder


@pytest.fixture
def queues(tmp_path: Path) -> Iterator[Callable[..., JobQueue]]:
    made: list[JobQueue] = []

    def make(*roots: Path, **options: object) -> JobQueue:
        made.append(make_queue(tmp_path / "index", *roots, **options))
        return made[-1]

    yield make
    for queue in made:
        queue.close(0.0)


def until(what: Callable[[], object], timeout_s: float = QUICK_S) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline, "it never came to hold"
        time.sleep(0.02)


def kinds(job: Job) -> list[str]:
    return [event.kind for event in job.log.after(0) or []]


def committed(index: Path) -> list[str]:
    return [record.path.name for record in VideoIndex.open(index, TinyEncoder()).videos()]


def films_done(job: Job) -> int:
    return kinds(job).count("video")


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def idle(pids: list[int]) -> bool:
    """Whether processes use no CPU time for 0.7 s."""

    def used() -> list[list[str]]:
        return [Path(f"/proc/{pid}/stat").read_text().split()[13:15] for pid in pids]

    before = used()
    time.sleep(0.7)
    return used() == before


def test_a_job_indexes_the_roots_and_reports_each_video(films: Path, tmp_path: Path, queues) -> None:
    truncate(write_clip(films / "broken.mp4", colours=["red"]), 0.5)
    job = queues(films).index()
    assert job.wait(QUICK_S)
    view = job.view()
    assert view["status"] == "partly_failed"
    assert view["index"]["counts"] | {"found": 4, "added": 3, "failed": 1} == view["index"]["counts"]
    assert view["index"]["files_done"] == view["index"]["files_total"] == 4
    assert view["index"]["bytes_done"] == view["index"]["bytes_total"] > 0
    assert view["index"]["remaining_s"] == 0.0
    assert view["index"]["speed"] > 0
    (failure,) = view["failures"]
    assert (failure["name"], failure["kind"], failure["attempts"]) == ("broken.mp4", "failed", 1)
    assert failure["reason"]
    assert committed(tmp_path / "index") == ["film 0.mp4", "film 1.mp4", "film 2.mp4"]

    events = job.log.after(0)
    assert events is not None
    assert [event.number for event in events] == list(range(1, len(events) + 1))
    assert events[-1].kind == "done"
    assert events[-1].data == view
    videos = [event.data for event in events if event.kind == "video"]
    assert [video["action"] for video in videos] == ["added"] * 3
    ids = {record.video_id for record in VideoIndex.open(tmp_path / "index", TinyEncoder()).videos()}
    assert {video["video_id"] for video in videos} == ids
    assert [event.data["status"] for event in events if event.kind == "status"] == [
        "queued",
        "running",
        "partly_failed",
    ]


def test_a_job_ends_after_what_follows_indexing(films: Path, tmp_path: Path, queues) -> None:
    seen: list[tuple[str, int]] = []
    queue = queues(films, on_indexed=lambda: seen.append((job.status, len(committed(tmp_path / "index")))))
    job = queue.index()
    until(lambda: job.ended)
    assert (job.status, seen) == ("done", [("running", 3)])


def test_a_retry_tries_failed_files_again(films: Path, queues) -> None:
    (films / "broken.mp4").write_bytes(b"\0" * 5000)
    queue = queues(films)
    job = queue.index([str(films)])
    assert job.wait(QUICK_S)
    unchanged = queue.index([str(films)])
    assert unchanged.wait(QUICK_S)
    assert unchanged.view()["failures"][0]["kind"] == "skipped"
    again = queue.retry(job.id)
    assert again.wait(QUICK_S)
    (failure,) = again.view()["failures"]
    assert (failure["kind"], failure["attempts"]) == ("failed", 2)
    assert again.view()["index"]["counts"]["unchanged"] == 3


def test_a_pause_stops_decoding_and_encoding_until_it_is_resumed(films: Path, queues) -> None:
    job = queues(films, pause_s=0.1, progress_s=0.0).index()
    until(lambda: "progress" in kinds(job) and job.view()["index"]["current"])
    job.pause()
    until(lambda: job.status == "paused")
    assert job.pid is not None
    events, active_s = job.log.last, job.view()["index"]["active_s"]
    decoders = children_of(job.pid)
    assert decoders
    until(lambda: idle(decoders))  # after what is decoded ahead
    assert job.log.last == events
    assert job.view()["index"]["active_s"] == active_s
    job.resume()
    assert job.status == "running"
    assert job.wait(QUICK_S)
    assert job.status == "done"
    with pytest.raises(JobRefusedError, match="is done: only a job that runs can be paused"):
        job.pause()


def test_the_end_of_the_server_does_not_wait_for_a_paused_index(films: Path, tmp_path: Path, queues) -> None:
    queue = queues(films, pause_s=0.1, progress_s=0.0)
    job = queue.index()
    until(lambda: job.view()["index"]["current"])
    pause(tmp_path / "index")
    until(lambda: job.view()["index"]["index_paused"])
    assert job.status == "running"
    began = time.monotonic()
    queue.close(20.0)
    assert time.monotonic() - began < 10
    assert job.status == "cancelled"
    assert job.view()["error"]["code"] == "server_stopped"


def test_cancel_keeps_the_finished_videos_and_ends_the_process(films: Path, tmp_path: Path, queues) -> None:
    job = queues(films, pause_s=0.3).index()
    until(lambda: films_done(job) == 1)
    assert job.pid is not None
    everyone = [job.pid, *children_of(job.pid)]
    job.cancel()
    assert job.wait(5)
    assert job.status == "cancelled"
    assert committed(tmp_path / "index") == ["film 0.mp4"]
    until(lambda: not any(exists(pid) for pid in everyone), 5)


def test_cancel_works_while_paused_and_while_waiting(films: Path, queues) -> None:
    queue = queues(films, pause_s=0.3)
    job, waiting = queue.index(), queue.index()
    assert waiting.status == "queued"
    waiting.cancel()
    assert waiting.status == "cancelled"
    until(lambda: "progress" in kinds(job))
    job.pause()
    until(lambda: job.status == "paused")
    job.cancel()
    assert job.wait(5)
    assert job.status == "cancelled"


def test_one_job_runs_at_a_time_and_a_full_queue_refuses(films: Path, queues) -> None:
    queue = queues(films, pause_s=0.2, waiting=2)
    jobs = [queue.index()]
    until(lambda: jobs[0].status == "running")
    jobs += [queue.index(), queue.index()]
    with pytest.raises(JobRefusedError) as refused:
        queue.index()
    assert (refused.value.status, refused.value.code) == (429, "queue_full")
    assert refused.value.retry_after_s is not None
    assert [job.status for job in jobs] == ["running", "queued", "queued"]
    assert queue.list() == jobs[::-1]


def test_a_lock_that_another_process_holds_fails_the_job_with_the_reason(films: Path, tmp_path: Path, queues) -> None:
    queue = queues(films)
    assert queue.index().wait(QUICK_S)
    with write_lock(tmp_path / "index"):
        job = queue.index()
        assert job.wait(QUICK_S)
    view = job.view()
    assert (view["status"], view["error"]["code"]) == ("failed", "index_locked")
    assert "another process is writing to the index" in view["error"]["detail"]


def test_a_crash_costs_the_job_alone(films: Path, tmp_path: Path, queues) -> None:
    write_clip(films / "film 1b.mp4", colours=["orange"])
    queue = queues(films, crash=True)
    job = queue.index()
    assert job.wait(QUICK_S)
    error = job.view()["error"]
    assert job.status == "failed"
    assert error["code"] == "process_ended"
    assert "crashed with SIGABRT" in error["detail"]
    assert committed(tmp_path / "index")[:1] == ["film 0.mp4"]
    (films / "film 1b.mp4").unlink()
    again = queue.retry(job.id)
    assert again.wait(QUICK_S)
    assert again.status == "done"


def test_the_end_of_the_server_lets_the_video_in_progress_commit(films: Path, tmp_path: Path, queues) -> None:
    queue = queues(films, pause_s=0.15)
    job, waiting = queue.index(), queue.index()
    until(lambda: job.view()["index"]["current"])
    queue.close(QUICK_S)
    assert (job.status, waiting.status) == ("cancelled", "cancelled")
    assert job.view()["error"]["code"] == "server_stopped"
    assert kinds(job)[-1] == "done"
    assert committed(tmp_path / "index") == ["film 0.mp4"]
    with pytest.raises(JobRefusedError, match="the server stops"):
        queue.index()


def test_the_end_of_the_server_does_not_wait_longer_than_the_grace(films: Path, tmp_path: Path, queues) -> None:
    queue = queues(films, pause_s=5)
    job = queue.index()
    until(lambda: job.pid)
    began = time.monotonic()
    queue.close(0.5)
    assert time.monotonic() - began < 4
    assert job.ended
    assert job.pid is None


SERVER = """
import sys, time
sys.path.insert(0, {tests!r})
from pathlib import Path
from helpers.job_queues import make_queue

queue = make_queue(Path(sys.argv[1]), Path(sys.argv[2]), pause_s={pause_s}, nice=10)
job = queue.index()
while not job.view()["index"]["current"]:
    time.sleep(0.01)
try:
    print(job.pid, flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    queue.close(20)
    print(job.status, flush=True)
"""


def start_server(index: Path, films: Path, *, pause_s: float) -> tuple[subprocess.Popen[str], int]:
    """Start a process with a queue; return it and the process of its job, once a film is in progress."""
    script = SERVER.format(tests=str(TESTS), pause_s=pause_s)
    server = subprocess.Popen(
        [sys.executable, "-c", script, str(index), str(films)], stdout=subprocess.PIPE, text=True, process_group=0
    )
    assert server.stdout is not None
    return server, int(server.stdout.readline())


def test_a_killed_server_leaves_no_process(films: Path, tmp_path: Path) -> None:
    server, pid = start_server(tmp_path / "index", films, pause_s=30)
    everyone = [pid, *children_of(pid)]
    assert len(everyone) == 2
    server.kill()
    server.communicate()
    until(lambda: not any(exists(one) for one in everyone), 5)


def test_ctrl_c_in_the_terminal_lets_the_video_commit(films: Path, tmp_path: Path) -> None:
    server, pid = start_server(tmp_path / "index", films, pause_s=0.15)
    assert os.getpgid(pid) != os.getpgid(server.pid)
    assert os.getsid(pid) == os.getsid(server.pid), "in a session of its own, its priority would not count"
    assert os.getpriority(os.PRIO_PROCESS, pid) >= 10
    os.killpg(server.pid, signal.SIGINT)  # as a terminal does
    out, _ = server.communicate(timeout=90)  # its priority is low, and other tests' processes may be busy
    assert out.split() == ["cancelled"]
    assert committed(tmp_path / "index") == ["film 0.mp4"]
    assert not exists(pid)


def test_only_the_last_finished_jobs_are_kept(films: Path, queues) -> None:
    queue = queues(films, kept=1)
    first, second = queue.index(), queue.index()
    assert second.wait(QUICK_S)
    until(lambda: len(queue.list()) == 1)
    assert queue.get(second.id) is second
    with pytest.raises(JobRefusedError, match="there is no job"):
        queue.get(first.id)


def test_what_a_job_has_indexed_is_told_before_its_end(queues: Callable[..., JobQueue], films: Path) -> None:
    told: list[str] = []
    queue = queues(films, on_indexed=lambda: told.append(queue.list()[0].status))
    job = queue.index()
    assert job.wait(QUICK_S)
    assert told == ["running"]
