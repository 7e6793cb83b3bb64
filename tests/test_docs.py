"""Pages and the files around them: the site builds, links lead somewhere, and what they list is there."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import conftest
import impart

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "impart"
DOCS = ROOT / "docs"
FOLDERS = ("", "docs", "docs/api", "examples", "findings")
PAGES = sorted(page for folder in FOLDERS for page in (ROOT / folder).glob("*.md"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
MOST_LINES_OF_CONTRIBUTING = 75


def read(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def shown(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub and MkDocs make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_links_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), f"{shown(page)} links {target}"
        assert not anchor or anchor in anchors(file), f"{shown(page)} links {target}"


def test_the_site_has_every_page() -> None:
    named = set(re.findall(r"([\w/-]+\.md)$", read("mkdocs.yml"), flags=re.MULTILINE))
    assert named == {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}


def defined(target: str) -> bool:
    """Whether `target` is a module of the package, or a name at the top of one."""
    *parents, name = target.split(".")
    for module in (ROOT / "src" / Path(*parents, name), ROOT / "src" / Path(*parents)):
        for file in (module.with_suffix(".py"), module / "__init__.py"):
            if file.is_file():
                tree = ast.parse(file.read_text("utf-8"))
                return module.name == name or name in {getattr(node, "name", None) for node in tree.body}
    return False


def test_the_api_pages_name_what_exists() -> None:
    targets = [
        found
        for page in (DOCS / "api").glob("*.md")
        for found in re.findall(r"^::: (\S+)$", page.read_text("utf-8"), flags=re.MULTILINE)
    ]
    assert targets
    assert [target for target in targets if not defined(target)] == []
    assert not defined("impart.config.NoSettings")


def test_the_api_pages_have_every_public_name() -> None:
    text = "".join(page.read_text("utf-8") for page in (DOCS / "api").glob("*.md"))
    for name in impart.__all__:
        assert f"`impart.{name}`" in text, name
    for name in impart.evaluate.__all__:
        module = getattr(impart.evaluate, name).__module__
        assert f"::: {module}.{name}\n" in text or f"::: {module}\n" in text, name


def test_the_architecture_has_every_folder_and_nothing_else() -> None:
    tree = read("docs/architecture.md").split("```")[1]
    folders = {path.parent for path in SOURCE.rglob("*.py")} - {SOURCE}
    for folder in folders:
        assert f"{folder.name}/" in tree, folder
    names = {path.name for path in SOURCE.rglob("*") if path.suffix in {".py", ".json"}}
    folder_names = {path.name for path in SOURCE.rglob("*") if path.is_dir()} | {"src", "impart"}
    assert set(re.findall(r"[\w.]+\.py\b", tree)) <= names
    assert set(re.findall(r"(\w+)/", tree)) <= folder_names


def test_contributing_is_one_screen_and_names_what_exists() -> None:
    text = read("CONTRIBUTING.md")
    assert len(text.splitlines()) <= MOST_LINES_OF_CONTRIBUTING
    targets = set(re.findall(r"^([\w-]+):", read("Makefile"), flags=re.MULTILINE))
    for line in re.findall(r"^make ([a-z\- ]+?)(?:\s+#.*)?$", text, flags=re.MULTILINE):
        assert set(line.split()) <= targets, line


def test_the_lists_of_slow_tests_name_what_exists() -> None:
    files = [path.relative_to(ROOT / "tests").as_posix() for path in (ROOT / "tests").rglob("test_*.py")]
    for place in conftest.SLOW_PLACES:
        assert any(file.startswith(place) for file in files), place
    tests = "".join((ROOT / "tests" / file).read_text("utf-8") for file in files)
    for part in conftest.SLOW_NAMES:
        assert re.search(rf"^def test_\w*{part}", tests, flags=re.MULTILINE), part


def test_versions_and_titles_agree() -> None:
    assert f"\nversion: {PROJECT['version']}\n" in read("CITATION.cff")
    assert PROJECT["version"] == impart.__version__
    changelog = read("CHANGELOG.md")
    assert re.findall(r"^## \[(.+)\]", changelog, flags=re.MULTILINE)[:2] == ["Unreleased", PROJECT["version"]]


def test_continuous_integration_runs_the_command_of_the_readme() -> None:
    assert "- run: bash .ci/run\n" in read(".github/workflows/ci.yml")
    assert "<!-- test command -->" in read(".ci/run")


def test_every_finding_is_listed_and_says_what_it_is() -> None:
    listed = re.findall(r"^\| `([\w.]+)` \|", read("findings/README.md"), flags=re.MULTILINE)
    scripts = sorted((ROOT / "findings").glob("*.sh"))
    assert sorted(listed) == [script.name for script in scripts]
    for script in scripts:
        text = script.read_text("utf-8")
        for part in ("Versions:", "Input:", "Expected:", "Seen:", "Remedy:", "mktemp -d", "the behaviour has changed"):
            assert part in text, f"{script.name} lacks {part}"
        assert "impart" not in text.lower(), script.name
        assert re.search(r"pip\" install --quiet( [\w-]+==[\d.]+)+\n", text), script.name


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mkdocstrings") is None, reason="needs the extra docs")
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "load_encoder" in (tmp_path / "site" / "api" / "encoders" / "index.html").read_text("utf-8")
