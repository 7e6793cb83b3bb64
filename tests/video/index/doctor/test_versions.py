"""Versions of tables, read and made without the database; each is compared with what the database says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lancedb
import pyarrow as pa
import pytest

from impart.video.index.doctor.versions import count_rows, read_version, with_files, without


@pytest.fixture
def table(tmp_path: Path) -> Any:
    """A table of three fragments with rows 0 to 5; row 3 is deleted."""
    made = lancedb.connect(str(tmp_path)).create_table("t", schema=pa.schema([("n", pa.int64())]))
    for first in (0, 2, 4):
        made.add(pa.table({"n": [first, first + 1]}))
    made.delete("n = 3")
    return made


def newest(folder: Path) -> Path:
    return min((folder / "t.lance" / "_versions").glob("*.manifest"))


def numbers(folder: Path) -> list[int]:
    return sorted(lancedb.connect(str(folder)).open_table("t").search().to_arrow()["n"].to_pylist())


def test_a_version_states_its_files(table: Any, tmp_path: Path) -> None:
    version = read_version(newest(tmp_path).read_bytes())
    assert version.number == table.version
    assert [(one.id, one.rows, bool(one.deletions)) for one in version.fragments] == [
        (0, 2, False),
        (1, 2, True),
        (2, 2, False),
    ]
    for fragment in version.fragments:
        for name, size in fragment.files:
            content = (tmp_path / "t.lance" / "data" / name).read_bytes()
            assert (len(content), count_rows(content)) == (size, 2)
    assert (tmp_path / "t.lance" / "_deletions" / version.fragments[1].deletions).is_file()
    assert (tmp_path / "t.lance" / "_transactions" / version.transaction).is_file()


def test_the_database_reads_a_version_without_a_fragment(table: Any, tmp_path: Path) -> None:
    file = newest(tmp_path)
    content = file.read_bytes()
    file.write_bytes(without(content, {0}))
    assert numbers(tmp_path) == [2, 4, 5]
    file.write_bytes(without(content, set(), {1}))
    assert numbers(tmp_path) == [0, 1, 2, 3, 4, 5]
    opened = lancedb.connect(str(tmp_path)).open_table("t")
    opened.add(pa.table({"n": [6]}))
    opened.optimize()
    assert numbers(tmp_path) == [0, 1, 2, 3, 4, 5, 6]


def test_the_database_reads_a_version_made_of_files(table: Any, tmp_path: Path) -> None:
    files = [
        (file.name, file.stat().st_size, count_rows(file.read_bytes()))
        for file in sorted((tmp_path / "t.lance" / "data").glob("*.lance"))
    ]
    other = lancedb.connect(str(tmp_path / "other")).create_table("t", pa.table({"n": [9]}))
    made = newest(tmp_path / "other")
    made.write_bytes(with_files(made.read_bytes(), files))
    for file in (tmp_path / "t.lance" / "data").glob("*.lance"):
        (tmp_path / "other" / "t.lance" / "data" / file.name).hardlink_to(file)
    assert numbers(tmp_path / "other") == [0, 1, 2, 3, 4, 5]
    del other


@pytest.mark.parametrize("place", range(0, 100, 7))
def test_a_damaged_version_is_an_error(table: Any, tmp_path: Path, place: int) -> None:
    content = newest(tmp_path).read_bytes()
    for wrong in (content[:place], content[: -place - 1], bytes(len(content)), b"\xff" * len(content)):
        with pytest.raises(ValueError, match=r".+"):
            read_version(wrong)


def test_changed_bytes_end_in_a_version_or_an_error(table: Any, tmp_path: Path) -> None:
    content = newest(tmp_path).read_bytes()
    outcomes = set()
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 0x55
        try:
            read_version(bytes(changed))
            outcomes.add("read")
        except ValueError:
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}
