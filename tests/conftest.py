"""Shared fixtures: the tiny encoder, and the development data where it is present."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tiny_encoder import TinyEncoder

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def tiny() -> TinyEncoder:
    return TinyEncoder()


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The development data (evaluation and training pictures and clips), which is never committed."""
    path = Path(os.environ.get("IMPART_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"development data not found at {path} (set IMPART_DATA)")
    return path
