"""A build that was stopped is continued: nothing is encoded twice, and the set is that of one run."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest
from PIL import Image

from helpers.tiny_encoder import TinyEncoder
from impart.errors import ReferenceSetError
from impart.refset import journal
from impart.refset.build import Selection
from impart.refset.manifest import check_target
from impart.refset.refset import ReferenceSet

PAIRS = 60


class Stopped(BaseException):
    """The end of a killed process."""


class Counting(TinyEncoder):
    """Counts the images that it encodes, and stops after some."""

    def __init__(self, stop_after: int = 10_000) -> None:
        super().__init__()
        self.left = stop_after
        self.encoded = 0

    def encode_images(self, images):
        self.encoded += len(images)
        self.left -= len(images)
        if self.left < 0:
            raise Stopped
        return super().encode_images(images)


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table of 60 pairs, two of them of a missing file and two equal; parts of 10 pairs."""
    monkeypatch.setattr(journal, "PART_READ", 10)
    rows = [("file", "text")]
    for i in range(PAIRS - 4):
        Image.new("RGB", (4, 4), (i * 4, 10, 200)).save(tmp_path / f"{i}.png")
        rows.append((f"{i}.png", f"caption {i}"))
    rows[5:5] = [("missing.png", "gone"), ("0.png", "caption 0")]
    rows += [("missing 2.png", "gone"), ("1.png", "caption 1")]
    with (tmp_path / "all.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return tmp_path / "all.csv"


def build(table: Path, encoder: TinyEncoder, folder: Path, **options) -> ReferenceSet:
    return ReferenceSet.build(table, encoder, path=folder, batch=5, **options)


@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_a_stopped_build_continues_to_the_same_set(table: Path, tmp_path: Path, fraction: float) -> None:
    selection = Selection(fraction=fraction, seed=3)
    want = build(table, Counting(), tmp_path / "whole", selection=selection)
    first = Counting(stop_after=22)
    with pytest.raises(Stopped):
        build(table, first, tmp_path / "set", selection=selection)
    assert not (tmp_path / "set" / "manifest.json").exists()
    check_target(tmp_path / "set", overwrite=False)  # no other files
    told: list[int] = []
    second = Counting()
    found = build(table, second, tmp_path / "set", selection=selection, on_resume=told.append)
    assert told == [20]
    assert second.encoded <= len(want) - 18
    assert found.fingerprint == want.fingerprint
    assert (found.manifest.failed, found.manifest.duplicates) == (want.manifest.failed, want.manifest.duplicates)
    assert found.manifest.sources == want.manifest.sources
    names = {path.name for path in (tmp_path / "whole").iterdir()}
    assert {path.name for path in (tmp_path / "set").iterdir()} == names
    for name in names & {"failures.csv", "rest.csv"}:
        assert sorted((tmp_path / "set" / name).read_text().splitlines()) == sorted(
            (tmp_path / "whole" / name).read_text().splitlines()
        )


def test_a_damaged_part_is_encoded_again(table: Path, tmp_path: Path) -> None:
    want = build(table, Counting(), tmp_path / "whole")
    with pytest.raises(Stopped):
        build(table, Counting(stop_after=42), tmp_path / "set")
    part = tmp_path / "set" / journal.JOURNAL / "000002.arrow"
    os.truncate(part, part.stat().st_size // 2)
    told: list[int] = []
    found = build(table, Counting(), tmp_path / "set", on_resume=told.append)
    assert told == [20]
    assert found.fingerprint == want.fingerprint


def test_another_source_or_other_settings_are_not_continued(table: Path, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        build(table, Counting(stop_after=22), tmp_path / "set")
    with pytest.raises(ReferenceSetError, match=r"other settings \(licence\).*--overwrite to start anew"):
        build(table, Counting(), tmp_path / "set", licence="CC0")
    lines = table.read_text().splitlines()
    table.write_text("\n".join([lines[0], *lines[2:]]) + "\n")
    with pytest.raises(ReferenceSetError, match=r"lists other pairs.*delete .*pairs-resume"):
        build(table, Counting(), tmp_path / "set")
    made = build(table, Counting(), tmp_path / "set", licence="CC0", replace=True)
    assert not (tmp_path / "set" / journal.JOURNAL).exists()
    assert json.loads((tmp_path / "set" / "manifest.json").read_text())["count"] == len(made)


def test_a_build_that_fails_at_once_leaves_nothing(tmp_path: Path, table: Path) -> None:
    with pytest.raises(Stopped):
        build(table, Counting(stop_after=0), tmp_path / "set")
    assert not (tmp_path / "set").exists()
