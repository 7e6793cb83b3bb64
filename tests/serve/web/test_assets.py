"""The files of the page: small, from the package alone, in the form that a strict Content-Security-Policy allows."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest

from impart.serve.routes.page import WEB

MOST_BYTES = 250_000
ASSETS = sorted(path for path in WEB.rglob("*") if path.is_file())
MODULES = [path for path in ASSETS if path.suffix == ".js"]


def test_all_assets_together_are_small() -> None:
    assert sum(path.stat().st_size for path in ASSETS) <= MOST_BYTES
    assert sum(len(gzip.compress(path.read_bytes())) for path in ASSETS) <= MOST_BYTES / 2


@pytest.mark.parametrize("path", ASSETS, ids=lambda path: path.relative_to(WEB).as_posix())
def test_no_asset_names_another_host_or_needs_a_looser_policy(path: Path) -> None:
    text = path.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
    assert not re.findall(r"https?://[\w.]+|//[a-z]+\.[a-z]{2,}|@import", text)
    assert not re.search(
        r"\.innerHTML|insertAdjacentHTML|\beval\(|new Function|setAttribute\(\"style|document\.write", text
    )
    if path.suffix == ".html":
        assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", text)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(WEB).as_posix())
def test_imports_of_modules_exist(path: Path) -> None:
    for name in re.findall(
        r"^import [^;]*? from \"(\.[^\"]+)\";|^import \"(\.[^\"]+)\"", path.read_text("utf-8"), re.MULTILINE
    ):
        assert (path.parent / (name[0] or name[1])).resolve().is_file(), name


def test_all_icons_that_are_used_are_drawn() -> None:
    drawn = set(re.findall(r"<symbol id=\"([\w-]+)\"", (WEB / "icons.svg").read_text("utf-8")))
    used = set()
    for path in MODULES:
        used |= set(
            re.findall(r"\b(?:icon|iconButton|press)\(\"([\w-]+)\"|\bglyph: \"([\w-]+)\"", path.read_text("utf-8"))
        )
    assert {name for pair in used for name in pair if name} <= drawn
