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
from impart.errors import VideoIndexError
from impart.video.index.index import VideoIndex

SCRIPT = """
import sys, time
from helpers.index_rows import encoder
from impart.video.index.index import VideoIndex

for event in VideoIndex.open(sys.argv[1], encoder()).add([sys.argv[2]]):
    print(type(event).__name__, flush=True)
    time.sleep(0.05)
"""


def start(url: str, films: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", SCRIPT, url, str(films)]
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
        process = start(url, films)
        wait_for(process, "VideoDone", times=1)
        process.kill()
        process.wait()
        index = VideoIndex.open(url, encoder())
        killed = len(index.videos())
        assert 1 <= killed < 6

        events = index.add([films])
        while type(next(events)).__name__ != "VideoDone":
            pass
        server.kill()
        began = time.monotonic()
        with pytest.raises(VideoIndexError, match="the server of the bucket 'films' does not answer") as caught:
            list(events)
        assert time.monotonic() - began < 30
        assert f"the index {url}" in str(caught.value)
        assert "give the same command again" in str(caught.value)

        server.start()
        assert killed < len(index.videos()) < 6
        list(VideoIndex.open(url, encoder()).add([films]))
        assert rows_of(index.path) == rows_of(local.path)
        assert not index.incomplete()
