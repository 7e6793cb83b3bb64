"""docs/evaluation.md lists every reader, with its splits, the files needed and where they are published."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from impart.evaluate.datasets import READERS

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "evaluation.md"


def rows() -> dict[str, list[str]]:
    """NAME -> the other cells of its row."""
    found = re.findall(r"^\| `([a-z0-9-]+)` \|(.*)\|$", DOCUMENT.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {name: [cell.strip() for cell in cells.split(" | ")] for name, cells in found}


def test_every_reader_has_a_row_and_every_row_a_reader() -> None:
    assert set(rows()) == set(READERS)


@pytest.mark.parametrize("name", sorted(READERS))
def test_a_row_agrees_with_its_reader(name: str) -> None:
    reader = READERS[name]
    splits, files, home, what = rows()[name]
    assert splits == (", ".join(reader.splits) or "defined by the files")
    plain = re.sub(r"<([a-z]+)>", lambda found: found[1].upper(), "; ".join(reader.files))  # <class> is CLASS there
    assert set(re.findall(r"[\w-]+\.[a-z]{2,4}\b", plain)) <= set(re.findall(r"[\w-]+\.[a-z]{2,4}\b", files))
    assert re.findall(r"https?://[^\s,;)>]+", reader.home) == re.findall(r"https?://[^\s,;)>]+", home)
    assert what
