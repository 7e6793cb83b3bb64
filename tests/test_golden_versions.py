"""Artefacts made by earlier versions: searched, changed, checked and repaired; and a migration that is interrupted.

`golden/make.py` makes the files of a version. Those of 0.1.0 have tests of their own (`test_golden.py`).
"""

from __future__ import annotations

import json
import shutil
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from helpers.damage import damage, data_in_force, found_videos
from helpers.shades import register_tiny
from impart.refset.check import check_set
from impart.video.index.doctor.check import check_index
from impart.video.index.doctor.doctor import repair_index
from impart.video.index.index import VideoIndex

GOLDEN = Path(__file__).parent / "golden"
sys.path.insert(0, str(GOLDEN))
MADE = sorted(GOLDEN.glob("made_by_*.json"))


@pytest.fixture(scope="module", params=MADE, ids=[path.stem for path in MADE])
def golden(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Unpack the files of one version; a folder that tests do not change, and what is expected."""
    register_tiny()
    folder = tmp_path_factory.mktemp("golden")
    with tarfile.open(request.param.with_suffix(".tar.gz")) as archive:
        archive.extractall(folder, filter="data")
    return folder, json.loads(request.param.read_text(encoding="utf-8"))


@pytest.fixture
def own(golden: tuple[Path, dict[str, Any]], tmp_path: Path) -> Path:
    return Path(shutil.copytree(golden[0], tmp_path / "own"))


def test_there_are_golden_files() -> None:
    assert MADE


def test_it_is_searched_as_it_was(golden: tuple[Path, dict[str, Any]], own: Path) -> None:
    from make import describe

    expected = golden[1]
    for kept in (True, False):
        if not kept:
            shutil.rmtree(own / "library.impart" / "cache")
        found = describe(own, made_by=expected["made_by"])
        for now, then in zip(found["searches"], expected["searches"], strict=True):
            assert [hit[0] for hit in now["hits"]] == [hit[0] for hit in then["hits"]], then["query"]
            for hit, old in zip(now["hits"], then["hits"], strict=True):
                assert hit[1:] == pytest.approx(old[1:], abs=2e-3)
        for part in ("names", "stats", "references"):
            assert found[part] == expected[part]


def test_it_is_changed_and_then_whole(own: Path) -> None:
    index = VideoIndex.open(own / "library.impart", create=False)
    done = list(index.add([own / "films"]))[-1]
    assert (done.moved, done.added, done.all_failures) == (5, 0, 0), "the films are at another place than before"
    (own / "films" / "red.mp4").unlink()
    assert list(index.add([own / "films"], prune=True))[-1].removed == 1
    index.use_references(None)
    assert found_videos(index) == ["blue.mp4", "green.mp4", "magenta.jpg", "yellow.jpg"]
    assert check_index(index.path).whole


def test_it_is_checked_and_repaired(own: Path) -> None:
    index = own / "library.impart"
    assert check_index(index).whole
    assert check_set(own / "colours.refset") == []
    list(VideoIndex.open(index, create=False).add([own / "films"]))
    data = data_in_force(index, "segments")
    damage(data, "bit")
    assert [one.file for one in check_index(index).damage] == [data]
    list(repair_index(index))
    assert check_index(index).whole
    assert found_videos(VideoIndex.open(index)) == sorted(path.name for path in (own / "films").iterdir())
