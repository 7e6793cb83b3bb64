"""Imports point one way, torch stays in its places, and nothing below the command line prints or exits."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import impart

SOURCE = Path(impart.__file__).parent
MODULES = sorted(SOURCE.rglob("*.py"))
GROUND = {"errors", "config", "files", "metrics"}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "config": {"errors"},
    "files": {"errors", "config"},
    "metrics": {"errors", "config", "files"},
    "encoders": GROUND,
    "reference": GROUND | {"encoders"},
    "augment": GROUND | {"encoders", "reference"},
    "train": GROUND | {"encoders", "reference", "augment"},
    "evaluate": GROUND | {"encoders", "reference", "augment"},
    "video": GROUND | {"encoders", "reference", "augment"},
    "cli": GROUND | {"encoders", "reference", "augment", "train", "evaluate", "video"},
    "__main__": {"cli"},
}
TORCH_PLACES = {"encoders/torch_towers.py", "blending/ram.py"}
RUN: dict[str, Any] = {"check": True, "capture_output": True, "text": True}
LINUX_ONLY = {"fork", "forkpty", "sched_setaffinity", "sched_getaffinity", "memfd_create", "posix_fadvise", "sendfile"}


def part_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    """Dotted names of all modules that a file imports, at any depth."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module
            if node.module == "impart":
                yield from (f"impart.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_one_way(path: Path) -> None:
    part = part_of(path)
    if part == "__init__":
        return
    for name in imported(path):
        pieces = name.split(".")
        if pieces[0] == "impart" and len(pieces) > 1 and pieces[1] != part and pieces[1] != "__version__":
            assert pieces[1] in ALLOWED[part], f"{part} must not import {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_torch_is_imported_only_where_it_belongs(path: Path) -> None:
    relative = path.relative_to(SOURCE).as_posix()
    if relative in TORCH_PLACES or relative.startswith("train/"):
        return
    assert "torch" not in {name.split(".")[0] for name in imported(path)}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_nothing_below_the_command_line_prints_or_exits(path: Path) -> None:
    relative = path.relative_to(SOURCE).as_posix()
    if relative.startswith("cli/"):
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"print", "sys.exit", "exit", "quit"}, f"{relative}:{node.lineno} calls {called}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_call_that_only_linux_has(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "os":
            assert node.attr not in LINUX_ONLY, f"{path.name}:{node.lineno} uses os.{node.attr}"
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names} if isinstance(node, ast.Import) else {node.module or ""}
            assert not names & {"fcntl", "resource", "pwd", "grp", "termios"}, f"{path.name}:{node.lineno}: {names}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_only_files_replaces_syncs_and_digests(path: Path) -> None:
    if path.relative_to(SOURCE).as_posix() == "files.py":
        return
    assert "hashlib" not in {name.split(".")[0] for name in imported(path)}, f"{path}: use a digest of impart.files"
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        where = f"{path.name}:{node.lineno} calls {called}: use atomic_path or move_synced of impart.files"
        assert called not in {"os.replace", "os.rename", "os.renames", "os.fsync", "os.fdatasync", "shutil.move"}, where
        # str.replace takes two arguments, dataclasses.replace the fields by name: one alone is a path's.
        if isinstance(node.func, ast.Attribute) and node.func.attr in {"replace", "rename"}:
            assert len(node.args) != 1 or node.keywords, where


def test_files_is_cheap_to_import() -> None:
    program = "import sys; import impart.files as files; print(*sorted(sys.modules))"
    before = subprocess.run([sys.executable, "-c", "import sys, impart; print(*sorted(sys.modules))"], **RUN).stdout
    after = subprocess.run([sys.executable, "-c", program], **RUN).stdout
    heavy = {"asyncio", "concurrent.futures", "importlib.metadata", "numpy", "pyarrow", "torch"}
    assert not (set(after.split()) - set(before.split())) & heavy


def test_every_module_says_what_it_is() -> None:
    for path in MODULES:
        said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        assert len(said.split()) > 2, path


def test_the_readme_lists_a_folder_below_those_it_imports_from() -> None:
    text = (SOURCE.parent.parent / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `src/impart/(\w+)` \|", text, flags=re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in SOURCE.iterdir() if (path / "__init__.py").is_file())
    for place, part in enumerate(listed):
        assert ALLOWED[part] & set(listed) <= set(listed[:place]), part
