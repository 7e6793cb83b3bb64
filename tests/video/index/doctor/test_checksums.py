"""Checksums of an index: which files have one, when they are written, and when they no longer count."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from impart.video.index.doctor.checksums import (
    CHECKSUMS,
    Recorder,
    changed_file,
    forget,
    read_checksums,
    record,
)


@pytest.fixture
def index(tmp_path: Path) -> Path:
    for name in ("videos.lance/data/a.lance", "videos.lance/_versions/1.manifest", "cache/x.base"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "manifest.json").write_text("{}")
    return tmp_path


def test_files_are_recorded_once_and_forgotten_when_gone(index: Path) -> None:
    (index / "cache" / ".part").write_bytes(b"")
    record(index)
    assert sorted(read_checksums(index)) == [
        "cache/x.base",
        "manifest.json",
        "videos.lance/_versions/1.manifest",
        "videos.lance/data/a.lance",
    ]
    written = (index / CHECKSUMS).stat().st_mtime_ns
    record(index)
    assert (index / CHECKSUMS).stat().st_mtime_ns == written
    (index / "cache" / "x.base").unlink()
    record(index)
    assert "cache/x.base" not in read_checksums(index)


def test_a_file_of_a_table_must_stay_as_it_was(index: Path) -> None:
    record(index)
    file = index / "videos.lance" / "data" / "a.lance"
    names = sorted(read_checksums(index))
    assert changed_file(index, names) is None
    content = bytearray(file.read_bytes())
    content[3] ^= 1
    file.write_bytes(content)
    assert changed_file(index, names) == file
    record(index)
    assert changed_file(index, names) == file, "it is not recorded anew"


def test_another_file_may_be_replaced_but_not_decay(index: Path) -> None:
    record(index)
    file = index / "manifest.json"
    before = file.stat().st_mtime_ns
    file.write_text("[]")
    os.utime(file, ns=(before, before))
    assert changed_file(index, ["manifest.json"]) == file
    os.utime(file, ns=(before, before + 1000))
    assert changed_file(index, ["manifest.json"]) is None


def test_a_writer_records_only_what_it_made(index: Path) -> None:
    old = index / "videos.lance" / "data" / "a.lance"
    recorder = Recorder(index)
    new = index / "videos.lance" / "data" / "b.lance"
    new.write_bytes(b"new")
    recorder.record()
    assert sorted(read_checksums(index)) == ["videos.lance/data/b.lance"], f"{old} was never read"


def test_a_table_that_is_made_anew_has_no_old_checksums(index: Path) -> None:
    record(index)
    forget(index, "videos")
    assert sorted(read_checksums(index)) == ["cache/x.base", "manifest.json"]


def test_damaged_checksums_are_found(index: Path) -> None:
    record(index)
    content = bytearray((index / CHECKSUMS).read_bytes())
    content[5] ^= 1
    (index / CHECKSUMS).write_bytes(content)
    with pytest.raises(ValueError, match="own digest"):
        read_checksums(index)
    assert changed_file(index, ["manifest.json"]) is None
