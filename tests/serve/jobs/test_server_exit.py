"""The end of a real server while a job runs and a client follows it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from helpers.clips import write_frames
from impart.video.index.index import VideoIndex


@pytest.mark.timeout(120)
def test_ctrl_c_ends_streams_and_jobs_once_the_video_is_committed(tmp_path: Path) -> None:
    films = tmp_path / "films"
    films.mkdir()
    rng = np.random.default_rng(1)
    for name in "abcdef":  # each frame differs from the one before: none is reused
        images = [rng.integers(0, 256, (32, 32, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1) for _ in range(64)]
        write_frames(films / f"{name}.mp4", images, times_s=[frame / 4 for frame in range(64)], last_s=0.25)
    command = [sys.executable, "-m", "impart", "serve", "--index", str(tmp_path / "index"), "--root", str(films)]
    server = subprocess.Popen([*command, "--port", "0"], stderr=subprocess.PIPE, text=True, process_group=0)
    try:
        assert server.stderr is not None
        address = re.search(r"http://\S+", server.stderr.readline())
        assert address is not None
        events: list[tuple[str, dict[str, Any]]] = []
        started = threading.Event()

        def follow() -> None:
            kind = ""
            with httpx2.Client(base_url=f"{address[0]}api/v1/", timeout=60) as client:
                job = client.post("jobs/index", json={}).json()
                with client.stream("GET", f"jobs/{job['id']}/events") as answer:
                    for line in answer.iter_lines():
                        name, _, value = line.partition(": ")
                        if name == "event":
                            kind = value
                        elif name == "data":
                            events.append((kind, json.loads(value)))
                            if kind == "progress" and events[-1][1]["current"]:
                                started.set()

        client = threading.Thread(target=follow)
        client.start()
        assert started.wait(60), events
        began = time.monotonic()
        os.killpg(server.pid, signal.SIGINT)  # as a terminal does
        server.wait(60)
        assert time.monotonic() - began < 40, "it did not wait for a stream that would not end"
        client.join(10)
        assert server.stderr.read() == ""
    finally:
        server.kill()
        server.wait()
    kind, job = events[-1]
    assert kind == "done"
    assert (job["status"], job["error"]["code"]) == ("cancelled", "server_stopped")
    names = [record.path.name for record in VideoIndex.open(tmp_path / "index").videos()]
    assert "a.mp4" in names
    assert len(names) == job["index"]["counts"]["added"] < 6
