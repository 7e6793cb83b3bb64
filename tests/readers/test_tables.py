"""Rows of tables whose texts have quotes that are no quotes of CSV."""

from __future__ import annotations

from pathlib import Path

import pytest

from impart.readers.columns import Columns
from impart.readers.tables import CsvTable, samples_of_table


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        (
            "tabs.tsv",
            'file\tcaption\n1.jpg\t"no end\n2.jpg\ta 5" screen\n3.jpg\t"a" or b\n4.jpg\tin full"\n5.jpg\tlast\n',
            ['"no end', 'a 5" screen', '"a" or b', 'in full"', "last"],
        ),
        ("commas.csv", 'file,caption\n1.jpg,"no end\n2.jpg,b\n3.jpg,c\n', ['"no end', "b", "c"]),
        (
            "quoted.csv",
            'file,caption\r\n1.jpg,"two\r\nlines, and ""more"""\r\n2.jpg,"b"\r\n',
            ['two lines, and "more"', "b"],
        ),
        ("quoted.tsv", 'file\tcaption\n1.jpg\t"two\nlines"\n2.jpg\tb\n', ["two lines", "b"]),
    ],
)
def test_a_quote_without_an_end_swallows_no_rows(name: str, content: str, expected: list[str], tmp_path: Path) -> None:
    table = tmp_path / name
    table.write_bytes(content.encode())
    samples = list(samples_of_table(table, Columns()))
    assert [caption for sample in samples for caption in sample.captions] == expected
    assert not any(sample.problem for sample in samples)


def test_lines_after_a_quote_without_an_end_keep_their_numbers(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text('file,caption\n1.jpg,"no end\n2.jpg,b\n3.jpg,c,d\n')
    rows = list(CsvTable.open(table).rows())
    assert [(number, row["file"]) for number, row, _ in rows] == [(2, "1.jpg"), (3, "2.jpg"), (4, "3.jpg")]
    assert "3 cells in line 4" in rows[2][2]
