"""Read annotation files: texts, tables and json, with errors that name the file and the line.

One malformed line is left out and counted, since published files have such lines; two or more are an error.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from impart.errors import DataError
from impart.readers.tables import CsvTable

__all__ = ["Malformed", "read_bytes", "read_json", "read_lines", "read_table", "read_text", "records", "table_name"]


@dataclass
class Malformed:
    """Malformed lines or records of an annotation file.

    Attributes:
        file: the annotation file.
        form: the expected form, for the message.
        unit: `line`, `entry` or another word for what the numbers count.
        found: (number, reason), in order.
    """

    file: Path
    form: str
    unit: str = "line"
    found: list[tuple[int, str]] = field(default_factory=list)

    def add(self, number: int, reason: str) -> None:
        """Record a malformed line."""
        self.found.append((number, reason))

    def notes(self) -> tuple[str, ...]:
        """Return a note on the malformed line, or no note if all lines are good.

        Raises:
            DataError: several lines are malformed; the message names the file and the first line.
        """
        if not self.found:
            return ()
        number, reason = self.found[0]
        if len(self.found) > 1:
            raise DataError(
                f"{self.file}, {self.unit} {number}: {reason}, and {len(self.found) - 1} more malformed; "
                f"expected {self.form}"
            )
        return (f"left out as malformed: 1 {self.unit} ({self.file.name}, {self.unit} {number}: {reason})",)


def read_bytes(path: Path) -> bytes:
    """Read a file.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


def read_text(path: Path, *, fallback: str | None = None) -> str:
    """Read a text file as UTF-8; `fallback` is the encoding to use if it is not UTF-8.

    Raises:
        DataError: the file cannot be read, or is not UTF-8 and there is no fallback.
    """
    data = read_bytes(path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if fallback is None:
            raise DataError(f"{path} is not UTF-8 text: save it as UTF-8") from error
        return data.decode(fallback, errors="replace")


def read_lines(path: Path, *, fallback: str | None = None) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, line) of the lines that are not blank."""
    for number, line in enumerate(read_text(path, fallback=fallback).split("\n"), start=1):
        if line.strip():
            yield number, line.rstrip("\r")


def read_json(path: Path, form: type) -> Any:
    """Read a json file whose outermost value is a `dict` or a `list`.

    Raises:
        DataError: the file is not json, or its outermost value is of another type than `form`.
    """
    try:
        value = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: not json ({error.msg}): download it again") from error
    if not isinstance(value, form):
        raise DataError(f"{path} contains a {type(value).__name__}, expected a {form.__name__}: download it again")
    return value


def read_table(path: Path, needs: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line number, row) of a csv with a header; missing cells of a short row are empty.

    Raises:
        DataError: the file cannot be read, or lacks one of the columns in `needs`.
    """
    table = CsvTable.open(path)
    absent = [name for name in needs if name not in table.columns]
    if absent:
        raise DataError(f"{path} lacks the column {absent[0]!r}; it has {', '.join(table.columns) or 'nothing'}")
    for line, row, _ in table.rows():
        yield line, row


def table_name(table: Path, split: str | None) -> str:
    """Return the name of a user's table in reports: its folder, and the split.

    >>> table_name(Path("/data/mine/captions.csv"), "test")
    'mine/test'
    """
    return table.resolve().parent.name + (f"/{split}" if split else "")


def records(values: Any, needs: tuple[str, ...], bad: Malformed) -> list[tuple[int, dict[str, Any]]]:
    """Return (number from 1, object) of the json objects with all needed fields; add the others to `bad`.

    Raises:
        DataError: `values` is not a list.
    """
    if not isinstance(values, list):
        raise DataError(f"{bad.file} does not have the expected form: {bad.form}. Download it again")
    good = []
    for number, value in enumerate(values, start=1):
        if isinstance(value, dict) and all(value.get(name) is not None for name in needs):
            good.append((number, value))
        else:
            bad.add(number, f"lacks {' or '.join(needs)}")
    return good
