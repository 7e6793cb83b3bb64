"""Names of class numbers and codes, from a list, a table or json."""

from __future__ import annotations

from pathlib import Path

import pytest

from impart.errors import DataError
from impart.readers.class_names import ClassNames


def written(path: Path, text: str) -> ClassNames:
    path.write_text(text, encoding="utf-8")
    return ClassNames.read(path)


def test_every_form(tmp_path: Path) -> None:
    for name, text in (
        ("a.txt", "tench, Tinca tinca\nfire_truck\n\n"),
        ("a.csv", 'code,name\n0,"tench, Tinca tinca"\n1,fire_truck\n'),
        ("a.tsv", "number\tname\n0\ttench\n1\tfire truck\n"),
        ("a.json", '["tench, Tinca tinca", "fire_truck"]'),
        ("b.json", '{"0": "tench", "1": "fire truck"}'),
    ):
        names = written(tmp_path / name, text)
        assert [names.find(label) for label in ("0", "1", "1.0", "2", "-1", "x")] == [
            *("tench", "fire truck", "fire truck"),
            *(None, None, None),
        ], name


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.txt", "dog\n\ncat\n", "line 2 is blank: class 1 has no name"),
        ("a.csv", "code,title\n0,dog\n", "lacks the column 'name'"),
        ("a.json", "{", "are not json"),
        ("a.json", '{"0": 1}', "expected a json list of class names"),
    ],
)
def test_other_content_is_refused(name: str, text: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=reason):
        written(tmp_path / name, text)
    with pytest.raises(DataError, match="cannot read the class names"):
        ClassNames.read(tmp_path / "absent.txt")


def test_names_beside_or_above_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    assert ClassNames.beside(folder, ("classnames.txt",)) is None
    (tmp_path / "a" / "classnames.txt").write_text("dog\n")
    above = ClassNames.beside(folder)
    assert above is not None
    assert above.find("0") == "dog"
