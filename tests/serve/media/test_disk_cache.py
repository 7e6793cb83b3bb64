"""The bounded folder: least recently used goes first, whole files only, several processes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from impart.serve.media.disk_cache import DiskCache


def put(cache: DiskCache, key: str, size: int = 1000) -> None:
    with cache.writing(key) as part:
        part.write_bytes(b"x" * size)


def held(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.bin"))


def used_before(cache: DiskCache, key: str, age_s: float) -> None:
    path = cache.path(key)
    assert path is not None
    os.utime(path, (path.stat().st_atime, path.stat().st_mtime - age_s))


def test_what_is_written_is_found(tmp_path):
    cache = DiskCache(tmp_path / "new" / "cache", most_bytes=10_000, suffix=".bin")
    assert cache.read("a") is None
    put(cache, "a")
    assert cache.read("a") == b"x" * 1000
    assert DiskCache(tmp_path / "new" / "cache", most_bytes=10_000, suffix=".bin").read("a") == b"x" * 1000


def test_the_least_recently_used_are_deleted(tmp_path):
    cache = DiskCache(tmp_path, most_bytes=10_000, suffix=".bin")
    for number in range(10):
        put(cache, str(number))
        used_before(cache, str(number), age_s=100 - number)
    assert cache.read("0") is not None  # used now
    for number in range(10, 13):
        put(cache, str(number))
    assert held(tmp_path) <= 10_000
    assert cache.read("0") is not None
    assert cache.read("12") is not None
    assert cache.read("1") is None


def test_a_bound_below_one_file_keeps_the_newest(tmp_path):
    cache = DiskCache(tmp_path, most_bytes=100, suffix=".bin")
    put(cache, "a")
    put(cache, "b")
    assert cache.read("a") is None
    assert cache.read("b") is not None


def test_a_failed_write_leaves_nothing(tmp_path):
    cache = DiskCache(tmp_path, most_bytes=100, suffix=".bin")

    def fail() -> None:
        with cache.writing("a") as part:
            part.write_bytes(b"half")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_left_temporary_files_are_deleted_when_they_are_old(tmp_path):
    old, new = tmp_path / ".a.1-1.part.bin", tmp_path / ".b.1-2.part.bin"
    old.write_bytes(b"")
    new.write_bytes(b"")
    os.utime(old, (0, 0))
    put(DiskCache(tmp_path, most_bytes=100, suffix=".bin"), "a")
    assert not old.exists()
    assert new.exists()


def test_other_files_of_the_folder_are_kept(tmp_path):
    (tmp_path / "notes.txt").write_bytes(b"n" * 5000)
    cache = DiskCache(tmp_path, most_bytes=2000, suffix=".bin")
    for number in range(10):
        put(cache, str(number))
    assert (tmp_path / "notes.txt").exists()


WRITER = """
import sys
from pathlib import Path
from impart.serve.media.disk_cache import DiskCache
cache = DiskCache(Path(sys.argv[1]), most_bytes=100_000, suffix=".bin")
for number in range(300):
    key = f"{number % 97}"
    found = cache.read(key)
    assert found is None or len(set(found)) == 1 and len(found) == 2000, "torn"
    with cache.writing(key) as part:
        part.write_bytes(sys.argv[2].encode() * 2000)
"""


def test_two_processes_and_threads_share_a_folder(tmp_path):
    processes = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), letter]) for letter in "ab"]
    cache = DiskCache(tmp_path, most_bytes=100_000, suffix=".bin")
    threads = [
        threading.Thread(target=lambda n=n: [put(cache, f"t{n}-{i}", 2000) for i in range(100)]) for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    put(cache, "last", 11_000)
    assert held(tmp_path) <= 130_000
