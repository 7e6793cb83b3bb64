"""Imports point one way and in no circle, torch stays in its places, folders stay small, and one name is one thing."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import impart

SOURCE = Path(impart.__file__).parent
ROOT = SOURCE.parent.parent
MODULES = sorted(SOURCE.rglob("*.py"))
FLOORS = (
    ("errors",),
    ("validation",),
    ("config",),
    ("files",),
    ("raw_previews",),
    ("images",),
    ("metrics",),
    ("readers",),
    ("encoders",),
    ("retrieval",),
    ("refset",),
    ("blending",),
    ("video",),
    ("evaluate",),
    ("train", "data"),
    ("recipes",),
    ("serve",),
    ("cli",),
    ("__main__",),
)
"""A room imports itself and the rooms of lower floors. Nothing imports a recipe, not even the command line."""
TORCH_PLACES = {"encoders/torch_towers.py", "blending/ram.py", "blending/ram_export.py"}
TORCH_ROOMS = ("train/", "recipes/")
MOST_MODULES, MOST_ENTRIES = 12, 20
RUN: dict[str, Any] = {"check": True, "capture_output": True, "text": True}
LINUX_PLACES = {"video/decode/worker.py"}
"""Modules that may import what Linux alone has, behind a test of the system: the limit of the decoder's memory."""
LINUX_ONLY = {"fork", "forkpty", "sched_setaffinity", "sched_getaffinity", "memfd_create", "posix_fadvise", "sendfile"}


def relative(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def calls_of(path: Path) -> list[tuple[ast.Call, str]]:
    """List the calls of a module, and what each calls."""
    nodes = [node for node in ast.walk(parsed(path)) if isinstance(node, ast.Call)]
    return [(node, ast.unparse(node.func)) for node in nodes]


def dotted(path: Path) -> str:
    name = ".".join(("impart", *path.relative_to(SOURCE).with_suffix("").parts))
    return name.removesuffix(".__init__")


def allowed(room: str) -> set[str]:
    below: set[str] = set()
    for floor in FLOORS:
        if room in floor:
            return below | {room}
        below |= set(floor)
    raise AssertionError(f"room {room} stands on no floor")


def imported(tree: ast.AST) -> Iterator[str]:
    """Dotted names of all modules that a tree imports, at any depth; blocks under `TYPE_CHECKING` as well."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


class _WithoutTypeChecking(ast.NodeTransformer):
    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        return node.orelse if ast.unparse(node.test) == "TYPE_CHECKING" else self.generic_visit(node)


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_imports_point_one_way(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        return
    rooms = {room_of(module) for module in MODULES}
    for name in imported(parsed(path)):
        pieces = name.split(".")
        if pieces[0] == "impart" and len(pieces) > 1 and pieces[1] in rooms:
            assert pieces[1] in allowed(room), f"{room} must not import {name}"
            assert pieces[1] != "recipes" or room == "recipes", f"{room} must not import a recipe"


def test_there_is_no_import_circle() -> None:
    names = {dotted(path): path for path in MODULES}
    edges = {
        name: {
            found for found in imported(_WithoutTypeChecking().visit(parsed(path))) if found in names and found != name
        }
        for name, path in names.items()
        if name != "impart"
    }
    for name, found in edges.items():  # a package stands for its names only where a module of it is not meant
        edges[name] = {other for other in found if not any(more.startswith(f"{other}.") for more in found)}
    done: set[str] = set()

    def walk(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail[trail.index(name) :], name))
        if name not in done:
            for other in sorted(edges.get(name, ())):
                walk(other, (*trail, name))
            done.add(name)

    for name in edges:
        walk(name, ())


def test_every_module_imports_under_its_dotted_path() -> None:
    for path in MODULES:
        name = dotted(path)
        if name.endswith("__main__"):
            continue
        pytest.importorskip("torch") if relative(path).startswith(TORCH_ROOMS) else None
        namespace: dict[str, object] = {}
        exec(f"import {name} as module", namespace)  # the form that a shadowed package breaks
        assert namespace["module"] is importlib.import_module(name), name


def test_no_public_name_equals_a_sub_package() -> None:
    for package in (path for path in MODULES if path.name == "__init__.py"):
        module = importlib.import_module(dotted(package))
        inside = {
            item.stem for item in package.parent.iterdir() if item.suffix == ".py" or (item / "__init__.py").is_file()
        }
        for name in inside & set(getattr(module, "__all__", ())):
            assert getattr(module, name) is importlib.import_module(f"{dotted(package)}.{name}"), f"{package}: {name}"


def test_folders_stay_small() -> None:
    folders = {path.parent for path in MODULES}
    for folder in sorted(folders):
        entries = [item for item in folder.iterdir() if item.name not in ("__init__.py", "__main__.py", "__pycache__")]
        modules = [item for item in entries if item.suffix == ".py"]
        assert len(modules) <= MOST_MODULES, f"{folder}: {len(modules)} modules; a stage or a mode is a sub-package"
        assert len(entries) <= MOST_ENTRIES, f"{folder}: {len(entries)} entries"


def test_no_two_public_classes_of_one_name() -> None:
    homes: dict[str, list[str]] = defaultdict(list)
    for path in MODULES:
        for node in parsed(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(relative(path))
    assert not {name: places for name, places in homes.items() if len(places) > 1}


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_torch_is_imported_only_where_it_belongs(path: Path) -> None:
    if relative(path) in TORCH_PLACES or relative(path).startswith(TORCH_ROOMS):
        return
    assert "torch" not in {name.split(".")[0] for name in imported(parsed(path))}


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_nothing_below_the_command_line_prints_or_exits(path: Path) -> None:
    if relative(path).startswith("cli/"):
        return
    for node, called in calls_of(path):
        assert called not in {"print", "sys.exit", "exit", "quit"}, f"{relative(path)}:{node.lineno} calls {called}"


def on_linux_alone(path: Path) -> set[ast.AST]:
    """Find the imports behind `if sys.platform == "linux":` in the modules that may have some."""
    if relative(path) not in LINUX_PLACES:
        return set()
    tests = [node for node in ast.walk(parsed(path)) if isinstance(node, ast.If)]
    return {one for node in tests if ast.unparse(node.test) == "sys.platform == 'linux'" for one in node.body}


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_no_call_that_only_linux_has(path: Path) -> None:
    guarded = {node.lineno for node in on_linux_alone(path) if isinstance(node, ast.Import)}
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "os":
            assert node.attr not in LINUX_ONLY, f"{path.name}:{node.lineno} uses os.{node.attr}"
        if isinstance(node, ast.Import | ast.ImportFrom) and node.lineno not in guarded:
            names = {alias.name for alias in node.names} if isinstance(node, ast.Import) else {node.module or ""}
            assert not names & {"fcntl", "resource", "pwd", "grp", "termios"}, f"{path.name}:{node.lineno}: {names}"


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_only_files_replaces_syncs_and_digests(path: Path) -> None:
    if relative(path) == "files.py":
        return
    assert "hashlib" not in {name.split(".")[0] for name in imported(parsed(path))}, f"{path}: use impart.files"
    for node, called in calls_of(path):
        where = f"{path.name}:{node.lineno} calls {called}: use atomic_path or move_synced of impart.files"
        assert called not in {"os.replace", "os.rename", "os.renames", "os.fsync", "os.fdatasync", "shutil.move"}, where
        # str.replace takes two arguments, dataclasses.replace the fields by name: one alone is a path's.
        if isinstance(node.func, ast.Attribute) and node.func.attr in {"replace", "rename"}:
            assert len(node.args) != 1 or node.keywords, where


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_only_images_opens_and_converts_still_images(path: Path) -> None:
    if relative(path) == "images.py":
        return
    for node, called in calls_of(path):
        where = f"{relative(path)}:{node.lineno} calls {called}: use load_image, read_header or to_rgb of impart.images"
        assert called not in {"Image.open", "PIL.Image.open", "ImageOps.exif_transpose"}, where
        if called.endswith(".convert") and node.args:
            assert ast.unparse(node.args[0]) != "'RGB'", where


def test_files_is_cheap_to_import() -> None:
    program = "import sys; import impart.files as files; print(*sorted(sys.modules))"
    before = subprocess.run([sys.executable, "-c", "import sys, impart; print(*sorted(sys.modules))"], **RUN).stdout
    after = subprocess.run([sys.executable, "-c", program], **RUN).stdout
    heavy = {"asyncio", "concurrent.futures", "importlib.metadata", "numpy", "pyarrow", "torch"}
    assert not (set(after.split()) - set(before.split())) & heavy


def test_the_readme_lists_a_room_below_those_that_it_imports() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `src/impart/(\w+)` \|", text, flags=re.MULTILINE)
    floors = {room: number for number, floor in enumerate(FLOORS) for room in floor}
    assert sorted(listed) == sorted(path.name for path in SOURCE.iterdir() if (path / "__init__.py").is_file())
    assert [floors[room] for room in listed] == sorted(floors[room] for room in listed)


def test_every_module_says_what_it_is() -> None:
    for path in MODULES:
        assert len((ast.get_docstring(parsed(path)) or "").split()) > 2, path
