"""Shared fixtures: the tiny encoder, a trained RAM, and the development data where it is present."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from helpers.tiny_encoder import TinyEncoder

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def tiny() -> TinyEncoder:
    return TinyEncoder()


@pytest.fixture(scope="session")
def trained_ram(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a trained RAM, exported once; not to be changed."""
    pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    from helpers.tiny_ram import write_tiny_ram

    return write_tiny_ram(tmp_path_factory.mktemp("trained") / "ram")


@pytest.fixture
def checkpoint(trained_ram: Path, tmp_path: Path) -> Path:
    """The same, moved to a place of its own."""
    return Path(shutil.copytree(trained_ram, tmp_path / "checkpoint"))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The development data (evaluation and training images and clips), which is never committed."""
    path = Path(os.environ.get("IMPART_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"development data not found at {path} (set IMPART_DATA)")
    return path
