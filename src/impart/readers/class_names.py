"""Read the names of class numbers and codes: `classnames.txt`, `classes.csv`, or a file that the user gives."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from impart.errors import DataError
from impart.readers.names import label_text, shorten_names
from impart.readers.tables import CsvTable

__all__ = ["ClassNames"]

_FILES = ("classes.csv", "classnames.txt")


@dataclass(frozen=True, kw_only=True)
class ClassNames:
    """Names of classes.

    Attributes:
        file: the file that gives them.
        names: C names by class number; empty = the file gives none by number.
        codes: name by code, such as the name of a folder.
    """

    file: Path
    names: tuple[str, ...] = ()
    codes: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path) -> ClassNames:
        """Read names: one per line by number, a table (code in the first column, and `name`), or json (list or object).

        Raises:
            DataError: the file cannot be read, has another form, or a class has no name.
        """
        if file.suffix.lower() in (".csv", ".tsv"):
            return cls(file=file, codes=_of_table(file))
        try:
            text = file.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot read the class names {file}: {error}") from error
        if file.suffix.lower() == ".json":
            return _of_json(file, text)
        lines = [label_text(line) for line in text.rstrip().split("\n")]
        blank = next((number for number, line in enumerate(lines) if not line), None)
        if blank is not None:
            raise DataError(f"{file}, line {blank + 1} is blank: class {blank} has no name. Write one name per line")
        return cls(file=file, names=shorten_names(lines))

    @classmethod
    def beside(cls, folder: Path, files: Sequence[str] = _FILES) -> ClassNames | None:
        """Read the `classes.csv` or `classnames.txt` of a folder, or of the folder above it; None = there is none.

        Args:
            folder: the folder of the data.
            files: names of the files, the preferred first.

        Raises:
            DataError: as for `read`.
        """
        folder = folder.resolve()
        places = (place / name for name in files for place in (folder, folder.parent))
        found = next((file for file in places if file.is_file()), None)
        return cls.read(found) if found is not None else None

    def find(self, label: str) -> str | None:
        """Return the name of a code or class number; None = the file has none."""
        if label in self.codes:
            return self.codes[label]
        number = label.strip().removesuffix(".0")
        if number in self.codes:
            return self.codes[number]
        return self.names[int(number)] if number.isdecimal() and int(number) < len(self.names) else None


def _of_table(file: Path) -> dict[str, str]:
    table = CsvTable.open(file)
    if "name" not in table.columns:
        raise DataError(f"{file} lacks the column 'name'; it has {', '.join(table.columns)}")
    rows = [row for _, row, _ in table.rows()]
    names = shorten_names([label_text(row["name"]) for row in rows])
    return {row[table.columns[0]]: name for row, name in zip(rows, names, strict=True)}


def _of_json(file: Path, text: str) -> ClassNames:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise DataError(f"the class names {file} are not json: {error}") from error
    values = list(content.values()) if isinstance(content, dict) else content
    if not isinstance(values, list) or not all(isinstance(value, str) and value.strip() for value in values):
        raise DataError(f"{file}: expected a json list of class names, or an object with a name by code")
    names = shorten_names([label_text(value) for value in values])
    if isinstance(content, dict):
        return ClassNames(file=file, codes=dict(zip(content, names, strict=True)))
    return ClassNames(file=file, names=names)
