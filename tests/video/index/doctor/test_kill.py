"""A run that is killed leaves nothing that a later check takes for damage, and nothing is lost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers.clips import write_clip
from helpers.shades import register_tiny
from impart.video.index.closed import MARK as CLOSED
from impart.video.index.doctor.check import check_index
from impart.video.index.doctor.checksums import read_checksums
from impart.video.index.durable.roll_back import roll_back
from impart.video.index.durable.sync import MARK as WRITING
from impart.video.index.index import VideoIndex

_TESTS = Path(__file__).parents[3]
_RUN = """
import sys
from helpers.shades import register_tiny
register_tiny()
from impart.video.index.index import VideoIndex
for event in VideoIndex.open(sys.argv[1]).add([sys.argv[2]]):
    print("event", flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("seed", range(2))
def test_a_killed_run_is_no_damage(tmp_path: Path, seed: int) -> None:
    register_tiny()
    films, index = tmp_path / "films", tmp_path / "library.impart"
    films.mkdir()
    write_clip(films / "a.mp4", colours=["red", "blue"], seconds_each=0.4)
    list(VideoIndex.open(index).add([films]))
    for name in "bcdef":
        write_clip(films / f"{name}.mp4", colours=["green", name_colour(name)], seconds_each=0.4)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(_TESTS), *sys.path])}
    process = subprocess.Popen(
        [sys.executable, "-c", _RUN, str(index), str(films)], stdout=subprocess.PIPE, env=environment, text=True
    )
    assert process.stdout is not None
    rng = random.Random(seed)
    for _ in range(rng.randrange(2, 12)):
        process.stdout.readline()
    time.sleep(rng.uniform(0, 0.05))
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    stored = {video.path.name for video in VideoIndex.open(index).videos()}
    assert "a.mp4" in stored

    report = check_index(index)
    assert (report.damage, report.lacking, report.lost_records) == ((), (), 0)
    list(VideoIndex.open(index).add([films]))
    after = {video.path.name for video in VideoIndex.open(index).videos()}
    assert after == {f"{name}.mp4" for name in "abcdef"}
    report = check_index(index)
    assert (report.whole, report.not_recorded) == (True, 0), "the first check recorded what the killed run left"
    assert not (index / WRITING).exists()
    assert (index / CLOSED).exists()


def name_colour(name: str) -> str:
    return {"b": "white", "c": "yellow", "d": "cyan", "e": "magenta", "f": "black"}[name]


def test_a_version_that_is_undone_has_no_checksum(tmp_path: Path) -> None:
    register_tiny()
    films, index = tmp_path / "films", tmp_path / "library.impart"
    films.mkdir()
    write_clip(films / "a.mp4", colours=["red", "blue"], seconds_each=0.4)
    list(VideoIndex.open(index).add([films]))
    newest = min((index / "videos.lance" / "_versions").glob("*.manifest"))
    name = newest.relative_to(index).as_posix()
    assert name in read_checksums(index)
    (index / WRITING).write_text('{"versions": {"videos": 1}}', encoding="ascii")  # a writer began after version 1
    newest.write_bytes(bytes(newest.stat().st_size))  # ... and the power failed
    assert newest in roll_back(index)
    assert name not in read_checksums(index)
