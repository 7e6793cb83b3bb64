"""Writes are atomic, digests keep their values, and read-ahead keeps order, bounds memory and stops promptly."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from impart import files


class Syncs:
    """Records syncs and renames in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[str] = []
        fsync, replace = os.fsync, os.replace

        def recorded_fsync(number: int) -> None:
            self.seen.append("folder" if stat.S_ISDIR(os.fstat(number).st_mode) else "file")
            fsync(number)

        def recorded_replace(source: Path, target: Path) -> None:
            self.seen.append("rename")
            replace(source, target)

        monkeypatch.setattr(os, "fsync", recorded_fsync)
        monkeypatch.setattr(os, "replace", recorded_replace)


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> Syncs:
    return Syncs(monkeypatch)


@pytest.mark.skipif(os.name == "nt", reason="folders cannot be synced there")
def test_a_write_syncs_the_file_then_renames_then_syncs_the_folder(tmp_path: Path, syncs: Syncs) -> None:
    files.write_atomic(tmp_path / "a", "text")
    assert syncs.seen == ["file", "rename", "folder"]
    syncs.seen.clear()
    files.write_json_atomic(tmp_path / "a.json", {})
    files.write_csv_atomic(tmp_path / "a.csv", ("x",), [(1,)])
    assert syncs.seen == ["file", "rename", "folder"] * 2


@pytest.mark.skipif(os.name == "nt", reason="folders cannot be synced there")
def test_a_folder_is_moved_after_all_its_files_are_synced(tmp_path: Path, syncs: Syncs) -> None:
    (tmp_path / "part" / "deep").mkdir(parents=True)
    (tmp_path / "part" / "one").write_bytes(b"1")
    (tmp_path / "part" / "deep" / "two").write_bytes(b"2")
    files.move_synced(tmp_path / "part", tmp_path / "whole")
    assert syncs.seen == ["file", "folder", "file", "folder", "rename", "folder"]
    assert (tmp_path / "whole" / "deep" / "two").read_bytes() == b"2"
    assert not (tmp_path / "part").exists()


def test_texts_are_written_as_utf8_and_bytes_unchanged(tmp_path: Path) -> None:
    files.write_atomic(tmp_path / "a", "ä\n")
    assert (tmp_path / "a").read_bytes() == b"\xc3\xa4\n"
    files.write_atomic(tmp_path / "a", b"\r\n\xff")
    assert (tmp_path / "a").read_bytes() == b"\r\n\xff"


def test_json_and_csv_are_written_as_before(tmp_path: Path) -> None:
    content = {"name": "ä", "n": [1]}
    files.write_json_atomic(tmp_path / "a", content)
    assert (tmp_path / "a").read_text("utf-8") == json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    files.write_json_atomic(tmp_path / "a", content, indent=None, ascii_only=True)
    assert (tmp_path / "a").read_text("utf-8") == json.dumps(content) + "\n"
    files.write_csv_atomic(tmp_path / "b", ("x", "y"), iter([(1, "a,b")]), line_end="\r\n")
    assert (tmp_path / "b").read_bytes() == b'x,y\r\n1,"a,b"\r\n'


def test_an_error_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_text("old", encoding="utf-8")

    def interrupted() -> None:
        with files.atomic_path(target) as part:
            part.write_text("half", encoding="utf-8")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert target.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_an_error_of_the_rename_leaves_no_other_file(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(OSError):
        files.write_atomic(tmp_path / "a", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_two_writers_of_one_process_have_separate_files(tmp_path: Path) -> None:
    with files.atomic_path(tmp_path / "a") as one, files.atomic_path(tmp_path / "a") as two:
        assert one != two
        one.write_text("1", encoding="utf-8")
        two.write_text("2", encoding="utf-8")
    assert (tmp_path / "a").read_text(encoding="utf-8") == "1"  # the outer block ends last


def test_the_suffix_is_kept_on_demand(tmp_path: Path) -> None:
    with files.atomic_path(tmp_path / "a.mp4", keep_suffix=True) as part:
        assert part.suffix == ".mp4"
        assert part.name.startswith(".a")
        part.touch()
    with files.atomic_path(tmp_path / "a.json") as part:  # so that no pattern such as *.json finds half a file
        assert part.suffix == ".part"
        part.touch()


def test_a_killed_writer_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_text("old", encoding="utf-8")
    program = f"""
import os, pathlib, signal
from impart import files
with files.atomic_path(pathlib.Path({str(target)!r})) as part:
    part.write_text("half")
    os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 9
    assert target.read_text(encoding="utf-8") == "old"


def test_digests_are_those_of_hashlib(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"content" * 100_000)
    content = path.read_bytes()
    assert files.sha256_of_file(path) == hashlib.sha256(content).hexdigest()
    assert files.blake2b_of_file(path) == hashlib.blake2b(content, digest_size=16).digest()
    assert files.sha256_hex("ä", b"x") == hashlib.sha256("äx".encode()).hexdigest()
    assert files.blake2b_hex("ä", b"x") == hashlib.blake2b("äx".encode(), digest_size=16).hexdigest()
    assert files.blake2b_hex("a", size_bytes=8) == hashlib.blake2b(b"a", digest_size=8).hexdigest()
    assert files.sha256_int("a") == int.from_bytes(hashlib.sha256(b"a").digest()[:8], "big")
    digest = files.new_sha256("a")
    digest.update(b"b")
    assert digest.hexdigest() == hashlib.sha256(b"ab").hexdigest()
    assert files.new_blake2b("a", b"b").hexdigest() == hashlib.blake2b(b"ab", digest_size=16).hexdigest()
    assert files.digest_of(["ab", "c"]) == hashlib.sha256(b"2 ab 1 c ").hexdigest()


def test_stamps_name_path_size_and_time(tmp_path: Path) -> None:
    path = tmp_path / "a"
    assert files.file_state(path) == ""
    assert files.file_stamp(path) == f"{path.resolve()} missing"
    path.write_bytes(b"123")
    os.utime(path, ns=(5, 7_000_000_000))
    assert files.file_state(path) == "3 7000000000"
    assert files.file_stamp(path) == f"{path.resolve()} 3 7000000000"
    assert files.file_key(path) == hashlib.sha256(f"{path.absolute()}|3 7000000000".encode()).hexdigest()[:32]


def test_stale_files_are_removed_except_those_to_keep(tmp_path: Path) -> None:
    for name in ("pairs-1.arrow", "pairs-2.arrow", ".pairs-3.arrow.77-0.part", "other"):
        (tmp_path / name).touch()
    files.remove_stale(tmp_path, ("pairs-*", ".pairs-*"), keep={"pairs-2"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "pairs-2.arrow"]


def test_read_ahead_keeps_the_order_of_the_items() -> None:
    def slow(number: int) -> int:
        time.sleep(0.02 if number % 3 == 0 else 0)
        return number * number

    assert list(files.read_ahead(range(20), slow, workers=4, ahead=8)) == [n * n for n in range(20)]
    assert list(files.read_ahead([], slow, workers=1, ahead=1)) == []


@pytest.mark.parametrize(("workers", "ahead"), [(1, 1), (2, 5), (4, 3)])
def test_read_ahead_never_takes_more_than_its_bound(workers: int, ahead: int) -> None:
    taken = 0

    def items():
        nonlocal taken
        while True:  # endless
            taken += 1
            yield taken

    with closing(files.read_ahead(items(), lambda n: n, workers=workers, ahead=ahead)) as results:
        for received, result in enumerate(results, start=1):
            assert result == received
            assert taken - received < ahead
            if received == 30:
                break


def test_read_ahead_raises_an_error_in_its_place() -> None:
    def fails(number: int) -> int:
        if number == 3:
            raise ValueError("three")
        return number

    results = files.read_ahead(range(9), fails, workers=2, ahead=6)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)


def test_read_ahead_stops_when_closed() -> None:
    begun: list[int] = []
    before = threading.active_count()

    def slow(number: int) -> int:
        begun.append(number)
        time.sleep(0.05)
        return number

    with closing(files.read_ahead(range(1000), slow, workers=2, ahead=100)) as results:
        assert next(results) == 0
    assert len(begun) < 20  # of a hundred waiting items
    assert threading.active_count() == before


def test_the_clock_and_versions_are_as_manifests_have_them() -> None:
    assert len(files.now()) == len("2024-01-01T00:00:00+00:00")
    assert files.now().endswith("+00:00")
    assert list(files.library_versions()) == ["impart", "numpy", "pillow", "pyarrow"]
    assert list(files.library_versions(("av",))) == ["av"]


def test_a_new_folder_is_synced_in_each_folder_that_lists_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr("impart.files._sync_folder", synced.append)
    files.make_folder(tmp_path / "a" / "b" / "c")
    assert synced == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]
    assert (tmp_path / "a" / "b" / "c").is_dir()
    synced.clear()
    files.make_folder(tmp_path / "a")
    assert synced == [tmp_path], "a killed process may have made it without the sync"
    with pytest.raises(FileNotFoundError):
        files.make_folder(tmp_path / "gone" / "new", parents=False)


def test_many_files_are_synced_and_those_that_are_gone_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / f"{number}" for number in range(20)]
    for file in paths[1:]:
        file.touch()
    count = []
    monkeypatch.setattr("os.fsync", lambda number: count.append(number))
    files.sync_together([*paths, tmp_path])
    assert len(count) == 20
    files.sync_together([])
