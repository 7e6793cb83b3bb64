#!/usr/bin/env bash
# Two upserts of the same new keys insert them twice, without a conflict, where neither has read the other's commit.
#
# Versions: LanceDB 0.40.0, PyArrow 26.0.1, Python 3.11, Linux x86-64.
# Input:    a table with one row, and two handles of it that each `merge_insert` the same 100 new keys
#           (`when_matched_update_all().when_not_matched_insert_all()`).
# Expected: 101 rows: the commit that comes second finds the keys and updates them, or fails with a conflict.
# Seen:     101 rows where the second handle is opened after the first commit.
#           201 rows, and no error, where both handles are opened before (one upsert after the other, one thread).
#           201 rows, and no error, where both upserts run at the same time, in ten of ten tries, although both
#           connections have `read_consistency_interval=0`.
# Remedy:   one writer per table (a lock beside the folder), and `checkout_latest()` before the upsert.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet lancedb==0.40.0 pyarrow==26.0.1
"$work/venv/bin/python" - "$work" <<'PY'
import sys
import threading
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path

import lancedb
import pyarrow as pa

NEW = pa.table({"key": [f"key {number}" for number in range(100)], "value": list(range(100))})


def handle(folder: Path) -> lancedb.table.Table:
    return lancedb.connect(folder, read_consistency_interval=timedelta(0)).open_table("pairs")


def upsert(table: lancedb.table.Table) -> None:
    table.merge_insert("key").when_matched_update_all().when_not_matched_insert_all().execute(NEW)


def create(folder: Path) -> Path:
    lancedb.connect(folder).create_table("pairs", pa.table({"key": ["old"], "value": [0]}))
    return folder


def opened_after(folder: Path) -> int:
    upsert(lancedb.connect(folder).open_table("pairs"))
    upsert(lancedb.connect(folder).open_table("pairs"))
    return handle(folder).count_rows()


def opened_before(folder: Path) -> int:
    first, second = (lancedb.connect(folder).open_table("pairs") for _ in range(2))
    upsert(first)
    upsert(second)
    return handle(folder).count_rows()


def at_the_same_time(folder: Path) -> int:
    barrier = threading.Barrier(2)

    def write(table: lancedb.table.Table) -> None:
        barrier.wait()
        upsert(table)

    writers = [threading.Thread(target=write, args=(handle(folder),)) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    return handle(folder).count_rows()


root = Path(sys.argv[1])
after, before = opened_after(create(root / "after")), opened_before(create(root / "before"))
together = [at_the_same_time(create(root / str(number))) for number in range(10)]
print(f"LanceDB {version('lancedb')}\nopened after the first commit: {after} rows")
print(f"opened before it:              {before} rows\nat the same time:              {together} rows")
if (after, before, max(together)) != (101, 201, 201):
    sys.exit("the behaviour has changed")
PY
