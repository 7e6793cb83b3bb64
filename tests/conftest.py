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
    """Folder of a RAM checkpoint, exported once per session; tests must not change it."""
    pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    from helpers.tiny_ram import write_tiny_ram

    return write_tiny_ram(tmp_path_factory.mktemp("trained") / "ram")


@pytest.fixture
def checkpoint(trained_ram: Path, tmp_path: Path) -> Path:
    """Copy of the RAM checkpoint that a test may change."""
    return Path(shutil.copytree(trained_ram, tmp_path / "checkpoint"))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the development data (images and clips for evaluation and training), which is not in the repository."""
    path = Path(os.environ.get("IMPART_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"development data not found at {path} (set IMPART_DATA)")
    return path
