"""Read tables: csv, tsv, and jsonl (one json object per line)."""

from __future__ import annotations

import csv
import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from impart.errors import DataError
from impart.readers.captions import captions_of
from impart.readers.columns import Columns
from impart.readers.sample import ImageSample

__all__ = ["CsvTable", "JsonLines", "samples_of_table"]

_LONGEST_CELL = 16 * 2**20


@dataclass(frozen=True)
class CsvTable:
    """A table with a header, in UTF-8 (or UTF-16 with its mark); the delimiter is the most frequent in the header.

    Attributes:
        path: the file.
        columns: names of the columns.
        delimiter: comma, tab, semicolon or bar; a `.tsv` has tabs.
    """

    path: Path
    columns: tuple[str, ...]
    delimiter: str

    @classmethod
    def open(cls, path: Path) -> CsvTable:
        """Read the header.

        Raises:
            DataError: the file cannot be read, or is no text.
        """
        csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_CELL))
        try:
            with _opened(path) as file:
                header = file.readline()
                delimiter = "\t" if path.suffix.lower() == ".tsv" else max(",\t;|", key=header.count)
                file.seek(0)
                columns = next(csv.reader(file, delimiter=delimiter), [])
        except (OSError, UnicodeError, csv.Error) as error:
            raise cls._unreadable(path, error) from error
        return cls(path, tuple(name.strip() for name in columns), delimiter)

    def rows(self) -> Iterator[tuple[int, dict[str, str], str]]:
        """Yield (line number, row, problem); missing cells are empty, a row of too many cells has a problem.

        Raises:
            DataError: the file cannot be read to its end.
        """
        try:
            with _opened(self.path) as file:
                records = _records(file, self.delimiter)
                next(records, None)
                for number, cells in records:
                    if not cells:
                        continue
                    problem = ""
                    if any(cell.strip() for cell in cells[len(self.columns) :]):
                        problem = (
                            f"{len(cells)} cells in line {number}, {len(self.columns)} in the header: "
                            "put a text with the delimiter in quotes"
                        )
                    cells += [""] * (len(self.columns) - len(cells))
                    row = {name: cell.strip() for name, cell in zip(self.columns, cells, strict=False)}
                    yield number, row, problem
        except (OSError, UnicodeError, csv.Error) as error:
            raise self._unreadable(self.path, error) from error

    @staticmethod
    def _unreadable(path: Path, error: Exception) -> DataError:
        reason = error.strerror if isinstance(error, OSError) else f"{error}: save it as UTF-8"
        return DataError(f"cannot read table {path}: {reason if isinstance(error, OSError | UnicodeError) else error}")


@dataclass(frozen=True)
class JsonLines:
    """A file with one json object per line.

    Attributes:
        path: the file.
        columns: fields of all objects, in the order of their first occurrence.
    """

    path: Path
    columns: tuple[str, ...]

    @classmethod
    def open(cls, path: Path) -> JsonLines:
        """Read the names of the fields.

        Raises:
            DataError: the file cannot be read.
        """
        return cls(path, tuple(dict.fromkeys(name for _, row, _ in cls(path, ()).rows() for name in row)))

    def rows(self) -> Iterator[tuple[int, dict[str, Any], str]]:
        """Yield (line number, object, problem); absent fields are empty.

        Raises:
            DataError: the file cannot be read.
        """
        try:
            with _opened(self.path) as file:
                for number, line in enumerate(file, start=1):
                    if not line.strip():
                        continue
                    try:
                        value = json.loads(line)
                    except ValueError as error:
                        value, problem = {}, f"line {number} is not json: {error}"
                    else:
                        problem = "" if isinstance(value, dict) else f"line {number} is no json object"
                    found = value if isinstance(value, dict) else {}
                    yield number, dict.fromkeys(self.columns, "") | found, problem
        except (OSError, UnicodeError) as error:
            raise DataError(f"cannot read table {self.path}: {error}") from error


def samples_of_table(path: Path, columns: Columns) -> Iterator[ImageSample]:
    """List the samples of a table, one per row.

    Images are beside the table, or in `images` beside it.

    Raises:
        DataError: the table cannot be read, or lacks its columns.
    """
    table = JsonLines.open(path) if path.suffix.lower() == ".jsonl" else CsvTable.open(path)
    picked = columns.pick(table.columns, table=path)
    root = path.resolve().parent
    for line, row, problem in table.rows():
        if not problem and not columns.selects(row):
            continue
        name = str(row[picked.image] or "")
        place = root / name
        if name and not place.is_file() and (root / "images" / name).is_file():
            place = root / "images" / name
        texts = () if problem else captions_of(row[picked.text])
        yield ImageSample(
            image=place if name else None,
            path=name or f"{path.name}::{line}",
            location=str(place) if name else f"{path.resolve()}::{line}",
            captions=() if picked.labels else texts,
            labels=texts if picked.labels else (),
            source=str(row[picked.source] or "") if picked.source else "",
            licence=str(row[picked.licence] or "") if picked.licence else "",
            problem=problem,
        )


def _records(file: TextIO, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (number of its last line, cells) of each row.

    A quote that opens no cell of CSV is a character of the text: it has no end, its end is no end of a cell, or it
    would join lines of a table with tabs. Without this rule the lines up to the next quote would become one cell.
    """
    lines = _Lines(file)
    while True:
        try:
            for cells in csv.reader(lines, delimiter=delimiter, strict=True):
                if delimiter == "\t" and any("\t" in cell and "\n" in cell for cell in cells):
                    yield lines.only_first(delimiter)
                else:
                    yield lines.number, cells
                lines.held.clear()
            return
        except csv.Error:
            if not lines.held:
                raise
            yield lines.only_first(delimiter)
            lines.held.clear()


class _Lines:
    """Lines of a file, with those of the current row; they can be given back.

    Attributes:
        held: lines of the current row.
        number: of the last line.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._given_back: deque[str] = deque()
        self.held: list[str] = []
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._given_back.popleft() if self._given_back else next(self._file)
        self.held.append(line)
        self.number += 1
        return line

    def only_first(self, delimiter: str) -> tuple[int, list[str]]:
        """Give back all lines of the row but its first; return (number, cells) of that line, quotes as characters."""
        first, *others = self.held
        self._given_back.extendleft(reversed(others))
        self.number -= len(others)
        return self.number, next(csv.reader([first], delimiter=delimiter, quoting=csv.QUOTE_NONE), [])


def _opened(path: Path) -> TextIO:
    with path.open("rb") as file:
        marked = file.read(2) in (b"\xff\xfe", b"\xfe\xff")
    return path.open(encoding="utf-16" if marked else "utf-8-sig", newline="")
