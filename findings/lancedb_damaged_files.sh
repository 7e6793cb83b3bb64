#!/usr/bin/env bash
# A table whose newest version is zeros opens as an empty table; vectors with changed bits are read; `.tmp*` files stay.
#
# Versions: LanceDB 0.40.0, PyArrow 26.0.1, Python 3.11, Linux x86-64.
# Input:    a table of three commits with 100 rows each, then
#           1. the newest file of `_versions` overwritten with zeros;
#           2. the middle of a file of `data` overwritten with ones;
#           3. a file `data/.tmpA1b2C3`, as a process leaves it that is killed during compaction, and
#              `optimize(cleanup_older_than=..., delete_unverified=True)`.
# Expected: 1. an error; 2. an error; 3. the file is deleted.
# Seen:     1. no error, a table of 0 rows without columns; 2. no error, other numbers (there are no checksums);
#           3. the file is still there.
# Remedy:   compare the last four bytes of the newest version (`LANC`) before reading; count the rows that another table
#           promises; delete `.tmp*` under a lock that no other writer holds.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet lancedb==0.40.0 pyarrow==26.0.1
"$work/venv/bin/python" - "$work" <<'PY'
import sys
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path

import lancedb
import pyarrow as pa

ROWS = 100


def made(folder: Path) -> Path:
    table = lancedb.connect(folder).create_table("t", schema=pa.schema([("n", pa.float32())]))
    for commit in range(3):
        table.add(pa.table({"n": pa.array([float(commit * ROWS + row) for row in range(ROWS)], pa.float32())}))
    return folder / "t.lance"


def values(folder: Path) -> list[float]:
    return sorted(lancedb.connect(folder).open_table("t").search().to_arrow()["n"].to_pylist())


root = Path(sys.argv[1])
table = made(root / "version")
newest = min((table / "_versions").glob("*.manifest"))  # versions are numbered downwards
newest.write_bytes(bytes(newest.stat().st_size))
rows = lancedb.connect(root / "version").open_table("t").count_rows()

table = made(root / "bits")
before, file = values(root / "bits"), min((table / "data").iterdir())
content = bytearray(file.read_bytes())
content[100:200] = b"\x01" * 100
file.write_bytes(content)
changed = values(root / "bits") != before

table = made(root / "temporary")
left = table / "data" / ".tmpA1b2C3"
left.write_bytes(bytes(1000))
lancedb.connect(root / "temporary").open_table("t").optimize(
    cleanup_older_than=timedelta(milliseconds=1), delete_unverified=True
)
print(f"LanceDB {version('lancedb')}\nnewest version overwritten with zeros: {rows} rows of {3 * ROWS}, no error")
print(f"bits changed in a data file: {'other values, no error' if changed else 'the same values'}")
print(f"temporary file after optimize: {'still there' if left.exists() else 'deleted'}")
if (rows, changed, left.exists()) != (0, True, True):
    sys.exit("the behaviour has changed")
PY
