"""Read YFCC-style metadata: the official YFCC100M dump, and subsets such as YFCC15M.

The official dump is tab-separated, without header and quoting. Its texts are percent-encoded, with `+` for a space. It
has 23 columns; the later release has 25, with a row number first and a hash after the photoid. Subsets are csv, tsv or
parquet files with a header.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from impart.data.captions import decode_percent
from impart.errors import DataError

__all__ = ["OFFICIAL", "MetaRow", "read_metadata"]

# fmt: off
OFFICIAL = [
    "photoid", "uid", "unickname", "datetaken", "dateuploaded", "capturedevice", "title", "description", "usertags",
    "machinetags", "longitude", "latitude", "accuracy", "pageurl", "downloadurl", "licensename", "licenseurl",
    "serverid", "farmid", "secret", "secretoriginal", "ext", "marker",
]
# fmt: on
"""Columns of the official dump, in their order."""
OFFICIAL_LATER = ["line", OFFICIAL[0], "hash", *OFFICIAL[1:]]

_NAMES = {
    "photoid": ("photoid", "photo_id", "photo id"),
    "url": ("downloadurl", "download_url", "image_url", "url"),
    "title": ("title",),
    "description": ("description",),
    "usertags": ("usertags", "user_tags"),
    "licence": ("licensename", "license_name", "licencename", "license"),
    "licence_url": ("licenseurl", "license_url", "licenceurl"),
    "uid": ("uid", "user_nsid", "nsid"),
    "marker": ("marker",),
}
_TEXTS = ("title", "description", "usertags")
_SAMPLE_ROWS = 1000
_MAX_FIELD = 1 << 24
_MAX_LINES = 50  # of one quoted row


@dataclass(frozen=True, kw_only=True)
class MetaRow:
    """One row of metadata; texts are decoded but not cleaned.

    Attributes:
        photoid: as stored. A row without photoid, or with a fault, gets the file name and the row number.
        fault: reason why the row cannot be read; empty if it can.
    """

    photoid: str = ""
    url: str = ""
    title: str = ""
    description: str = ""
    usertags: str = ""
    licence: str = ""
    licence_url: str = ""
    uid: str = ""
    marker: str = ""
    fault: str = ""


def read_metadata(path: Path) -> Iterator[MetaRow]:
    """Read the rows of a csv, tsv or parquet file (csv and tsv also as .gz and .bz2), in the order of the file.

    Raises:
        DataError: the file is missing, damaged, or not YFCC-style metadata.
    """
    path = path.expanduser()
    if not path.is_file():
        raise DataError(f"{path} does not exist: give YFCC-style metadata as csv, tsv or parquet (.gz and .bz2 too)")
    try:
        if path.suffix.lower() == ".parquet":
            yield from _rows(path, *_parquet(path))
        else:
            with _opened(path) as lines:
                yield from _rows(path, *_text(path, lines))
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read {path}: {error}; is the file complete?") from error


def _opened(path: Path) -> IO[str]:
    binary: gzip.GzipFile | bz2.BZ2File | io.BufferedReader
    if path.suffix.lower() == ".gz":
        binary = gzip.GzipFile(path)
    elif path.suffix.lower() == ".bz2":
        binary = bz2.BZ2File(path)
    else:
        binary = path.open("rb")
    return io.TextIOWrapper(binary, encoding="utf-8-sig", errors="replace", newline="")


def _text(path: Path, lines: IO[str]) -> tuple[list[str], bool, Iterator[Sequence[str]]]:
    """Read a csv or tsv file: its column names, whether it is the official dump, and its rows."""
    csv.field_size_limit(_MAX_FIELD)
    first = lines.readline()
    if not first.strip():
        raise DataError(f"{path} is empty")
    fields = first.rstrip("\r\n").split("\t")
    for columns in (OFFICIAL, OFFICIAL_LATER):
        if len(fields) == len(columns) and fields[columns.index("downloadurl")].lower().startswith("http"):
            rows = (line.rstrip("\r\n").split("\t") for line in itertools.chain([first], lines))
            return list(columns), True, rows
    delimiter = max(",\t;|", key=first.count)
    if delimiter == "\t":
        header = next(csv.reader([first], delimiter="\t"))
        return header, False, _tab_rows(lines, len(header))
    reader = csv.reader(itertools.chain([first], lines), delimiter=delimiter)
    return next(reader), False, reader


def _tab_rows(lines: Iterable[str], width: int) -> Iterator[Sequence[str]]:
    """Read the rows of a tab-separated file that may or may not quote its fields.

    A line with `width` columns is a row, with any quotes in it; a single quote is a character. Other lines are read as
    csv, together with following lines that are not rows, since a quoted field may contain tabs and line breaks.
    """
    source, ahead = iter(lines), deque[str]()
    while line := ahead.popleft() if ahead else next(source, ""):
        plain = _split(line)
        open_end = plain[-1].startswith('"') and plain[-1].count('"') % 2 == 1
        if len(plain) == width and not open_end:
            yield [_unquoted(field) for field in plain]
            continue
        parts = [line]
        while "".join(parts).count('"') % 2 and len(parts) < _MAX_LINES:
            after = ahead.popleft() if ahead else next(source, "")
            if not after or len(_split(after)) == width:
                ahead.extendleft([after] if after else [])
                break
            parts.append(after)
        fields = next(csv.reader(parts, delimiter="\t"), [])
        if len(fields) == width and "".join(parts).count('"') % 2 == 0:
            yield fields
        else:
            yield [_unquoted(field) for field in plain]  # becomes a fault if its number of columns is wrong
            ahead.extendleft(reversed(parts[1:]))


def _split(line: str) -> list[str]:
    return line.rstrip("\r\n").split("\t")


def _unquoted(field: str) -> str:
    if len(field) > 1 and field[0] == field[-1] == '"' and field[1:-1].count('"') % 2 == 0:
        return field[1:-1].replace('""', '"')
    return field


def _parquet(path: Path) -> tuple[list[str], bool, Iterator[Sequence[str]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    known = {name for names in _NAMES.values() for name in names}
    columns = [name for name in file.schema_arrow.names if name.strip().lower() in known]

    def rows() -> Iterator[Sequence[str]]:
        for batch in file.iter_batches(batch_size=4096, columns=columns):
            values = [batch.column(i).to_pylist() for i in range(len(columns))]
            for row in zip(*values, strict=True):
                yield ["" if value is None else str(value) for value in row]

    if not columns:
        columns = list(file.schema_arrow.names)
    return columns, False, rows()


def _rows(path: Path, names: list[str], official: bool, rows: Iterator[Sequence[str]]) -> Iterator[MetaRow]:
    where = _locate(path, names)
    sample = list(itertools.islice(rows, _SAMPLE_ROWS))
    texts = [where[name] for name in _TEXTS if name in where]
    # A percent-encoded file has no space in any text, so one space means that `+` is a plus sign.
    plus = official or not any(" " in row[i] for row in sample if len(row) == len(names) for i in texts)
    for number, row in enumerate(itertools.chain(sample, rows), start=1):
        if not row or not any(row):
            continue
        if len(row) != len(names):
            yield MetaRow(photoid=f"{path.name}:{number}", fault=f"{len(row)} columns instead of {len(names)}")
            continue
        values = {name: row[i].strip() for name, i in where.items()}
        for name in _TEXTS:
            if name in values:
                values[name] = decode_percent(values[name], plus_is_space=plus)
        if not values["photoid"]:
            yield MetaRow(photoid=f"{path.name}:{number}", fault="no photoid")
        else:
            yield MetaRow(**values)


def _locate(path: Path, names: Sequence[str]) -> dict[str, int]:
    """Return the position of every column that the file has.

    Raises:
        DataError: a required column is missing.
    """
    lowered = [name.strip().lower() for name in names]
    where = {}
    for field, usual in _NAMES.items():
        found = next((name for name in usual if name in lowered), None)
        if found is not None:
            where[field] = lowered.index(found)
    missing = [shown for field, shown in (("photoid", "photoid"), ("url", "downloadurl")) if field not in where]
    if "title" not in where and "description" not in where:
        missing.append("title or description")
    if missing:
        found_columns = ", ".join(name if len(name) <= 30 else f"{name[:30]}…" for name in names[:30])
        raise DataError(
            f"{path} is not YFCC-style metadata: it has the columns {found_columns}; it lacks {', '.join(missing)}. "
            f"Give a header with photoid, downloadurl and title or description, or the {len(OFFICIAL)} or "
            f"{len(OFFICIAL_LATER)} tab-separated columns of the official YFCC100M dump"
        )
    return where
