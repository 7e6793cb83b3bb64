"""Examples in docstrings run and give what they show; every public name has one."""

from __future__ import annotations

import doctest
import importlib
import inspect
from pathlib import Path

import pytest

import impart

SOURCE = Path(impart.__file__).parent
WITH_EXAMPLES = sorted(path for path in SOURCE.rglob("*.py") if ">>> " in path.read_text(encoding="utf-8"))


def module_of(path: Path) -> str:
    return ".".join(("impart", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=module_of)
def test_examples_give_what_they_show(path: Path) -> None:
    if path.relative_to(SOURCE).parts[0] in ("train", "recipes"):
        pytest.importorskip("torch", reason="training needs the extra `train`")
    found = doctest.testmod(importlib.import_module(module_of(path)))
    assert found.attempted > 0
    assert found.failed == 0


@pytest.mark.parametrize("name", [name for name in impart.__all__ if name != "evaluate"])
def test_a_public_name_has_an_example(name: str) -> None:
    assert ">>> " in (inspect.getdoc(getattr(impart, name)) or "")
