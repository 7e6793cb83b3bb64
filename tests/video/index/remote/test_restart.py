"""After kills of a run and of the server, the next run ends with the rows of a local one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers.clips import write_clip
from helpers.index_rows import encoder, rows_of
from helpers.s3_server import S3Server
from impart.video.index.index import VideoIndex

SCRIPT = """
import sys, time
from helpers.index_rows import encoder
from impart.errors import ImpartError
from impart.video.index.index import VideoIndex

try:
    for event in VideoIndex.open(sys.argv[1], encoder()).add([sys.argv[2]]):
        print(type(event).__name__, flush=True)
        time.sleep(float(sys.argv[3]))
except ImpartError as error:
    print(f"error: {error}", flush=True)
"""


def start(url: str, films: Path, *, pause_s: float) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", SCRIPT, url, str(films), str(pause_s)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def wait_for(process: subprocess.Popen[str], event: str, *, times: int) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        times -= line.strip() == event
        if not times:
            return
    raise AssertionError(f"the run ended before {event}")


def test_killed_runs_and_a_killed_server_leave_the_rows_of_a_local_run(
    url: str, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("grey", "cyan", "yellow"):
        write_clip(films / f"{name}.mp4", colours=[name, "red"], seconds_each=0.5)
    local = VideoIndex.open(tmp_path / "local", encoder())
    list(local.add([films]))
    (tmp_path / "server").mkdir()
    with S3Server(tmp_path / "server") as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        process = start(url, films, pause_s=0.05)
        wait_for(process, "VideoDone", times=2)
        process.kill()
        process.wait()
        index = VideoIndex.open(url)
        killed = len(index.videos())
        assert 2 <= killed < 6

        process = start(url, films, pause_s=0.3)
        wait_for(process, "VideoDone", times=1)
        server.kill()
        began = time.monotonic()
        rest, _ = process.communicate(timeout=60)
        assert time.monotonic() - began < 30
        error = rest.splitlines()[-1]
        assert error.startswith("error: cannot ")
        assert f"the index {url}" in error
        assert "the server of the bucket 'films' does not answer" in error
        assert "give the same command again" in error

        server.start()
        assert killed <= len(index.videos()) < 6
        index = VideoIndex.open(url, encoder())
        list(index.add([films]))
        assert rows_of(index.path) == rows_of(local.path)
        assert not index.incomplete()
