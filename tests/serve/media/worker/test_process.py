"""Worker processes: what ends one of them costs one request."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from helpers.coded_films import write_coded_film
from helpers.media_server import record_of
from impart.errors import DataError
from impart.serve.media.work import CancelledWorkError
from impart.serve.media.worker.process import WorkerProcesses
from impart.serve.media.worker.source import MediaSource


@pytest.fixture
def film(tmp_path: Path) -> MediaSource:
    write_coded_film(tmp_path / "film.mp4", frames=100)
    return MediaSource.of(record_of(tmp_path / "film.mp4"))


def frame(source: MediaSource, time_s: float = 1.0) -> dict[str, Any]:
    return {"task": "frame", "source": source.to_json(), "time_s": time_s, "width_px": 160}


def process_of(processes: WorkerProcesses) -> Any:
    (one,) = processes._all
    return one._popen


def test_a_process_is_kept_between_requests(film):
    processes = WorkerProcesses()
    assert processes.request(frame(film)).startswith(b"RIFF")
    number = process_of(processes).pid
    assert processes.request(frame(film, 2.0)).startswith(b"RIFF")
    assert process_of(processes).pid == number
    processes.close()
    assert process_of(processes).wait(5) is not None


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_crash_costs_one_request(film):
    processes = WorkerProcesses()
    processes.start()
    os.kill(process_of(processes).pid, signal.SIGSEGV)
    with pytest.raises(DataError, match=r"film\.mp4 cannot be decoded: the decoder crashed with SIGSEGV"):
        processes.request(frame(film))
    assert processes.request(frame(film)).startswith(b"RIFF")
    processes.close()


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_process_that_does_not_respond_is_ended(film):
    processes = WorkerProcesses(stall_s=0.5)
    processes.start()
    os.kill(process_of(processes).pid, signal.SIGSTOP)
    with pytest.raises(DataError, match=r"no frame for"):
        processes.request(frame(film))
    processes.close()


def test_an_idle_process_ends_and_is_replaced(film):
    processes = WorkerProcesses(idle_s=0.2)
    processes.request(frame(film))
    assert process_of(processes).wait(10) is not None
    assert processes.request(frame(film)).startswith(b"RIFF")
    processes.close()


def test_a_request_is_cancelled(film, tmp_path):
    write_coded_film(tmp_path / "long.mkv", frames=2500)
    source = MediaSource.of(record_of(tmp_path / "long.mkv"))
    processes, cancelled = WorkerProcesses(), threading.Event()
    processes.start()
    preview = {"task": "preview", "source": source.to_json(), "start_s": 0, "end_s": 100}
    threading.Timer(0.3, cancelled.set).start()
    began = time.monotonic()
    with pytest.raises(CancelledWorkError):
        processes.request(preview | {"target": str(tmp_path / "part.mp4")}, cancelled=cancelled)
    assert time.monotonic() - began < 4
    assert processes.request(frame(film)).startswith(b"RIFF")
    processes.close()


def test_errors_of_a_file_and_of_the_disk_are_told_apart(film, tmp_path):
    processes = WorkerProcesses()
    (tmp_path / "text.mp4").write_text("nothing " * 1000)
    text = MediaSource(path=tmp_path / "text.mp4", kind="video", container="", duration_s=1)
    with pytest.raises(DataError, match=r"text\.mp4"):
        processes.request(frame(text))
    if Path("/dev/full").exists():
        (tmp_path / "full.mp4").symlink_to("/dev/full")
        preview = {"task": "preview", "source": film.to_json(), "start_s": 0, "end_s": 3}
        with pytest.raises(OSError, match="No space left"):
            processes.request(preview | {"target": str(tmp_path / "full.mp4")})
    processes.close()


def test_each_thread_has_its_own(film):
    processes = WorkerProcesses()
    together = threading.Barrier(2)

    def ask() -> bytes:
        together.wait(5)
        return processes.request(frame(film))

    with ThreadPoolExecutor(2) as pool:
        assert len({one.result() for one in [pool.submit(ask), pool.submit(ask)]}) == 1
    assert len(processes._all) == 2
    processes.close()


def test_closing_ends_what_runs(film, tmp_path):
    processes = WorkerProcesses(stall_s=60)
    write_coded_film(tmp_path / "long.mkv", frames=2500)
    source = MediaSource.of(record_of(tmp_path / "long.mkv"))
    preview = {"task": "preview", "source": source.to_json(), "start_s": 0, "end_s": 100}
    threading.Timer(1.0, processes.close).start()
    with pytest.raises(CancelledWorkError):
        processes.request(preview | {"target": str(tmp_path / "part.mp4")})
