#!/usr/bin/env bash
# WebDataset makes one sample of all files whose names have one beginning up to the first dot.
#
# Versions: webdataset 0.2.111, Python 3.11, Linux x86-64.
# Input:    a shard with IMG.0001.jpg, IMG.0001.txt, IMG.0002.jpg, IMG.0002.txt.
# Expected: two samples with `jpg` and `txt`, or an error.
# Seen:     one sample with the key `IMG` and the fields `0001.jpg`, `0001.txt`, `0002.jpg`, `0002.txt`; no error.
#           A pipeline that asks for `jpg` and `txt` finds no sample.
# Remedy:   find images by the full names of members (`tar_file_expander`), and group members with the whole shard in
#           view.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet webdataset==0.2.111
"$work/venv/bin/python" - "$work/0.tar" <<'PY'
import io
import sys
import tarfile
from importlib.metadata import version

import webdataset

with tarfile.open(sys.argv[1], "w") as tar:
    for name in ("IMG.0001.jpg", "IMG.0001.txt", "IMG.0002.jpg", "IMG.0002.txt"):
        member = tarfile.TarInfo(name)
        member.size = 1
        tar.addfile(member, io.BytesIO(b"x"))
found = [
    (sample["__key__"], sorted(name for name in sample if not name.startswith("__")))
    for sample in webdataset.WebDataset(sys.argv[1], shardshuffle=False)
]
print(f"webdataset {version('webdataset')}: {found}")
if found != [("IMG", ["0001.jpg", "0001.txt", "0002.jpg", "0002.txt"])]:
    sys.exit("the behaviour has changed")
PY
