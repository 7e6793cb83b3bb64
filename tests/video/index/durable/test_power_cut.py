"""What was reported as stored survives a power cut; `benchmarks/power_loss.py` cuts the power a thousand times."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from helpers.power_cut import Recorder, tree_after_cut
from helpers.power_loads import FilesLoad, IndexLoad

pytestmark = pytest.mark.filterwarnings("ignore:optimize")


def losses(load: Any, tmp_path: Path, *, cuts: int) -> dict[int, list[str]]:
    """Run a program once, cut the power at random moments, and return what is wrong by seed."""
    disk = tmp_path / "disk"
    disk.mkdir()
    recorder = Recorder(disk)
    load.run(disk, recorder)
    assert recorder.syncs, "the program syncs something"
    wrong = {}
    for seed in range(cuts):
        rng = random.Random(seed)
        moment = rng.choice(recorder.moments)
        copy = tmp_path / f"cut {seed}"
        copy.mkdir()
        tree_after_cut(moment, copy, rng)
        wrong[seed] = load.check(copy, recorder, moment)
        shutil.rmtree(copy)
    return {seed: found for seed, found in wrong.items() if found}


def test_an_index_keeps_all_reported_videos_and_the_next_run_goes_on(tmp_path: Path) -> None:
    load = IndexLoad(tmp_path / "films")
    assert losses(load, tmp_path, cuts=12) == {}


def test_reference_sets_checkpoints_and_reports_are_kept(tmp_path: Path) -> None:
    assert losses(FilesLoad(), tmp_path, cuts=20) == {}


def test_the_model_loses_what_is_not_synced(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    recorder = Recorder(disk)
    with recorder.recording():
        (disk / "folder").mkdir()
        (disk / "folder" / "file").write_bytes(b"content")
        recorder.acknowledge("file", 1)
    found = set()
    for seed in range(40):
        copy = tmp_path / str(seed)
        copy.mkdir()
        tree_after_cut(recorder.moments[-1], copy, random.Random(seed))
        file = copy / "folder" / "file"
        found.add(file.read_bytes() if file.exists() else None)
    assert {None, b"", b"content", bytes(7)} <= found
