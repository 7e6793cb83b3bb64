"""What code, tests and docs point at is there: files of the project, and modules and names of the package."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PLACES = ("src", "tests", "docs", "benchmarks", "examples", "findings")
FILES = [path for place in PLACES for kind in ("py", "md", "toml") for path in (ROOT / place).rglob(f"*.{kind}")]
TOP = {ROOT / name for name in ("README.md", "CONTRIBUTING.md", "pyproject.toml", "mkdocs.yml")}
READ = sorted({*FILES, *TOP} - {Path(__file__).resolve()})
FOLDERS = sorted(path.name for path in (ROOT / "src" / "impart").iterdir() if path.is_dir())
FILE = re.compile(
    rf"(?<![\w./-])(?:(?:src/|impart/|docs/|benchmarks/|tests/|(?:{'|'.join(FOLDERS)})/(?=[\w/]+\.py\b))[\w./-]*\w|[A-Z_]+\.md\b)"
)
MODULE = re.compile(r"`(impart(?:\.\w+)+)\b")


def cited(pattern: re.Pattern[str], path: Path) -> list[str]:
    return list(dict.fromkeys(found.group(found.re.groups) for found in pattern.finditer(path.read_text("utf-8"))))


def is_there(name: str, beside: Path) -> bool:
    """Whether a file or folder is called so: from the top, from the package, or from where it is cited."""
    if any((start / name).exists() for start in (ROOT, ROOT / "src", ROOT / "src" / "impart", beside)):
        return True
    return "/" not in name and any(path.name == name for path in READ)


def is_defined(name: str) -> bool:
    """Whether a module of the package is called so, or a name in the text of one."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        place = ROOT.joinpath("src", *parts[:count])
        for file in (place.with_suffix(".py"), place / "__init__.py"):
            if file.is_file():
                text = file.read_text("utf-8")
                return all(re.search(rf"\b{re.escape(part)}\b", text) for part in parts[count:])
    return False


@pytest.mark.parametrize("path", READ, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_are_cited_exist(path: Path) -> None:
    assert [name for name in cited(FILE, path) if not is_there(name, path.parent)] == []


@pytest.mark.parametrize("path", READ, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_and_names_that_are_cited_exist(path: Path) -> None:
    assert [name for name in cited(MODULE, path) if not is_defined(name)] == []


def test_a_citation_is_recognised() -> None:
    text = (
        "see `src/impart/config.py`, docs/data.md, (recipes/mini/two_sizes.py) and NOTES.md; not https://x.org/docs/a"
    )
    found = [one.group() for one in FILE.finditer(text)]
    assert found == ["src/impart/config.py", "docs/data.md", "recipes/mini/two_sizes.py", "NOTES.md"]
    assert not is_there("src/impart/nothing.py", ROOT)
    assert not is_there("NOTES" + ".md", ROOT)
    assert is_defined("impart.config.VanillaSettings")
    assert not is_defined("impart.config.NoSettings")
