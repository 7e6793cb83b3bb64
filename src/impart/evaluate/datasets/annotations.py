"""Reading annotation files: texts, tables and json, with errors that name the file and the line.

One malformed line is left out and counted, as published files have them; more are an error.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from impart.errors import DataError

__all__ = ["Malformed", "read_json", "read_lines", "read_table", "read_text", "records"]


@dataclass
class Malformed:
    """Lines (or records) of an annotation file that do not have the form they should have.

    Attributes:
        file: the annotation file.
        form: what was expected, for the message.
        unit: what the number counts.
        found: (number, what is wrong), in order.
    """

    file: Path
    form: str
    unit: str = "line"
    found: list[tuple[int, str]] = field(default_factory=list)

    def add(self, number: int, reason: str) -> None:
        """Remember one that cannot be used."""
        self.found.append((number, reason))

    def notes(self) -> tuple[str, ...]:
        """A note on the one malformed line, if there is one.

        Raises:
            DataError: there are more than one; the message names the file and the first line.
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


def read_text(path: Path, *, fallback: str | None = None) -> str:
    """The text of an annotation file; `fallback` is tried where it is not UTF-8."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if fallback is None:
            raise DataError(f"{path} is not UTF-8 text: save it as UTF-8") from error
        return data.decode(fallback, errors="replace")


def read_lines(path: Path, *, fallback: str | None = None) -> Iterator[tuple[int, str]]:
    """(line number from 1, line) of the lines that are not blank."""
    for number, line in enumerate(read_text(path, fallback=fallback).split("\n"), start=1):
        if line.strip():
            yield number, line.rstrip("\r")


def read_json(path: Path, form: type) -> Any:
    """A json file whose outermost value is a `dict` or a `list`.

    Raises:
        DataError: it is not json, or something else.
    """
    try:
        value = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: not json ({error.msg}): download it again") from error
    if not isinstance(value, form):
        raise DataError(f"{path} holds a {type(value).__name__}, expected a {form.__name__}: download it again")
    return value


def read_table(path: Path, needs: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, row) of a csv with a header; a row that is too short has empty cells.

    Raises:
        DataError: it cannot be read, or lacks one of the columns that it needs.
    """
    rows = csv.DictReader(io.StringIO(read_text(path), newline=""), restval="")
    try:
        columns = [str(name).strip() for name in rows.fieldnames or []]
        absent = [name for name in needs if name not in columns]
        if absent:
            raise DataError(f"{path} lacks the column {absent[0]!r}; it has {', '.join(columns) or 'nothing'}")
        rows.fieldnames = columns
        for row in rows:
            yield rows.line_num, {name: str(value).strip() for name, value in row.items() if isinstance(name, str)}
    except csv.Error as error:
        raise DataError(f"{path}, line {rows.line_num}: {error}") from error


def records(values: Any, needs: tuple[str, ...], bad: Malformed) -> list[tuple[int, dict[str, Any]]]:
    """(number from 1, object) of those of a list of json objects that have all the fields; the others are malformed."""
    if not isinstance(values, list):
        raise DataError(f"{bad.file} does not have the form expected: {bad.form}. Download it again")
    good = []
    for number, value in enumerate(values, start=1):
        if isinstance(value, dict) and all(value.get(name) is not None for name in needs):
            good.append((number, value))
        else:
            bad.add(number, f"lacks {' or '.join(needs)}")
    return good
