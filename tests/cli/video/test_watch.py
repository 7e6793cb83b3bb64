"""`impart watch`, `pause` and `resume` as processes: what is printed, and how they end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from helpers.clips import write_clip

PROGRAM = str(Path(__file__).resolve().parents[2] / "helpers" / "tiny_impart.py")
pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals are those of POSIX")


class Command:
    """A running command, with the lines that it has printed so far."""

    def __init__(self, *arguments: str, cwd: Path, **environment: str) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-u", PROGRAM, *arguments],
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | environment,
        )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines += iter(self.process.stdout.readline, "")

    @property
    def text(self) -> str:
        return "".join(self.lines)

    def until(self, reached: Callable[[], bool], *, seconds: float = 60) -> None:
        end_s = time.monotonic() + seconds
        while not reached():
            assert time.monotonic() < end_s, self.text
            assert self.process.poll() is None, self.text
            time.sleep(0.05)

    def end(self) -> int:
        code = self.process.wait(60)
        self._thread.join(10)
        return code


@contextmanager
def started(*arguments: str, cwd: Path, **environment: str) -> Iterator[Command]:
    command = Command(*arguments, cwd=cwd, **environment)
    try:
        yield command
    finally:
        command.process.kill()
        command.end()


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, PROGRAM, *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=True)


def videos(cwd: Path) -> int:
    return int(json.loads(run("stats", "--json", cwd=cwd).stdout)["videos"])


def test_watch_indexes_what_arrives_and_ends_with_code_0(tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    with started("watch", "films", "away", "-e", "tiny", "--nice", cwd=tmp_path) as watch:
        watch.until(lambda: "no videos or photos found" in watch.text)
        assert f"watching {tmp_path / 'films'}" in watch.text
        assert f"waiting for {tmp_path / 'away'}: it is not there" in watch.text
        write_clip(tmp_path / "films" / "a.mp4", seconds_each=1)
        watch.until(lambda: "1 added" in watch.text)
        if hasattr(os, "getpriority"):
            assert os.getpriority(os.PRIO_PROCESS, watch.process.pid) >= 10
        watch.process.send_signal(signal.SIGTERM)
        assert watch.end() == 0, watch.text
        assert watch.text.endswith("stopped\n")
    assert videos(tmp_path) == 1


def test_a_second_signal_stops_at_once_with_code_0(tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    film = write_clip(tmp_path / "films" / "a.mp4", colours=["red", "blue"], seconds_each=1)
    os.utime(film, (1, 1))
    with started("watch", "films", "-e", "tiny", cwd=tmp_path, TINY_SLEEP_S="6") as watch:
        watch.until(lambda: (tmp_path / "library.impart" / "segments.lance").exists())
        watch.process.send_signal(signal.SIGINT)
        watch.until(lambda: "again stops at once" in watch.text)
        watch.process.send_signal(signal.SIGINT)
        assert watch.end() == 0, watch.text
        assert "stopped at once" in watch.text


def test_pause_holds_a_run_and_resume_lets_it_go_on(tmp_path: Path) -> None:
    films = tmp_path / "films"
    films.mkdir()
    write_clip(films / "a.mp4", seconds_each=1)
    run("index", "films", "-e", "tiny", cwd=tmp_path)
    paused = run("pause", cwd=tmp_path)
    assert "indexing is paused" in paused.stdout
    assert "next: impart resume -i library.impart" in paused.stderr
    assert "indexing is paused" in run("stats", cwd=tmp_path).stderr
    assert json.loads(run("stats", "--json", cwd=tmp_path).stdout)["paused"] is True
    write_clip(films / "b.mp4", colours=["blue"], seconds_each=1)
    with started("index", "films", "--nice", cwd=tmp_path) as index:
        index.until(lambda: "paused; go on with: impart resume -i library.impart" in index.text)
        time.sleep(2)
        assert index.process.poll() is None
        assert index.text.count("paused; go on") == 1
        assert "indexing goes on" in run("resume", cwd=tmp_path).stdout
        assert index.end() == 0
        assert "1 added, 1 unchanged" in index.text
    assert "was not paused" in run("resume", cwd=tmp_path).stdout


def test_pause_without_an_index_names_the_remedy(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, PROGRAM, "pause"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "make one with impart index" in done.stderr
