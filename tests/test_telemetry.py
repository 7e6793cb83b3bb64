"""Nothing is sent: libraries that report their use to their makers are told not to, before they are imported."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import impart
from helpers.clips import write_clip

SOURCE = Path(impart.__file__).parent
ROOT = SOURCE.parent.parent
SWITCHES = ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY", "NO_ALBUMENTATIONS_UPDATE")
GUARD = """
import json, os, sys

def note(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.connect", "socket.sendto"):
        if event != "socket.connect" or not isinstance(arguments[1], (str, bytes)):  # a path: a local socket
            found = [event, repr(arguments[1:] if event == "socket.connect" else arguments)]
        else:
            return
    elif event == "import" and arguments[0] == "onnxruntime":
        found = ["onnxruntime", os.environ.get("ORT_DISABLE_TELEMETRY")]
    else:
        return
    with open(os.environ["GUARD_LOG"], "a") as log:
        log.write(json.dumps(found) + "\\n")

sys.addaudithook(note)
"""
"""A `sitecustomize.py`: notes every name lookup and connection, and the switch at the import of ONNX Runtime."""


def test_indexing_and_searching_write_and_look_up_nothing_else(tmp_path: Path) -> None:
    home, guard, temporary, log = (tmp_path / name for name in ("home", "guard", "tmp", "log.jsonl"))
    for folder in (home, guard, temporary, tmp_path / "videos"):
        folder.mkdir()
    (guard / "sitecustomize.py").write_text(GUARD, encoding="utf-8")
    clip = write_clip(tmp_path / "videos" / "red.mp4", colours=["red", "blue"])
    kept = {name: value for name, value in os.environ.items() if not name.startswith("XDG_") and name not in SWITCHES}
    environment = kept | {
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "PYTHONPATH": os.pathsep.join([str(guard), str(SOURCE.parent)]),
        "GUARD_LOG": str(log),
    }
    index = str(tmp_path / "library.impart")
    for arguments in (["index", str(clip.parent), "-i", index], ["search", "a red square", "-i", index]):
        subprocess.run(
            [sys.executable, "-m", "impart", *arguments], env=environment, cwd=tmp_path, check=True, capture_output=True
        )
    noted = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert [str(path) for path in home.rglob("*")] == []
    assert noted == [["onnxruntime", "1"]] * len(noted)
    assert noted, "the guard was not loaded"
    assert {path.name for path in tmp_path.iterdir()} == {
        "home",
        "guard",
        "tmp",
        "log.jsonl",
        "videos",
        "library.impart",
    }
    assert {path.name for path in clip.parent.iterdir()} == {"red.mp4"}


@pytest.mark.parametrize("name", SWITCHES)
def test_importing_the_package_sets_the_switch_and_keeps_the_value_of_the_user(name: str) -> None:
    code = f"import os, impart; print(os.environ[{name!r}])"
    without = {key: value for key, value in os.environ.items() if key != name}
    for given, expected in (({}, "1"), ({name: "0"}, "0")):
        done = subprocess.run([sys.executable, "-c", code], env=without | given, check=True, capture_output=True)
        assert done.stdout.decode().strip() == expected


def test_no_program_imports_onnxruntime_without_the_package() -> None:
    """A module of the package runs `impart/__init__.py` first; a program outside must import the package itself."""
    found = 0
    for place in ("benchmarks", "examples"):
        for path in sorted((ROOT / place).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            if "onnxruntime" in _imported(tree):
                found += 1
                top = {name for node in tree.body for name in _imported(node, deep=False)}
                assert "impart" in top, f"{path} imports onnxruntime, but not impart at its top"
    assert found


def _imported(tree: ast.AST, *, deep: bool = True) -> set[str]:
    nodes = ast.walk(tree) if deep else [tree]
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    nodes = ast.walk(tree) if deep else [tree]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.split(".")[0] for name in names}
