"""Shared fixtures: the tiny encoder, a trained RAM, and the development data where it is present."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from helpers.tiny_encoder import TinyEncoder
from impart.evaluate.cache import EmbeddingCache

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in the background of a shell; processes of tests inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent

SLOW_PLACES = (
    "blending/test_ram",  # torch and its export
    "cli/eval/",
    "cli/video/test_index_and_search.py",
    "cli/video/test_watch.py",
    "cli/test_odd_settings.py",
    "cli/test_mcp.py",
    "cli/test_models.py",
    "cli/test_ram_command.py",
    "cli/test_train.py",
    "encoders/onnx/test_export.py",
    "encoders/hf/",
    "encoders/test_hub.py",
    "evaluate/sweep/",
    "recipes/",
    "serve/jobs/",
    "serve/routes/test_exports.py",
    "serve/routes/test_jobs.py",
    "serve/safety/test_in_browser.py",
    "serve/test_openapi.py",
    "serve/test_run.py",
    "test_examples.py",
    "test_readme.py",
    "train/episodes/",
    "train/heads/",
    "train/pretrain/",
    "train/ram/",
    "video/index/test_indexer.py",
    "video/index/test_kill.py",
    "video/index/test_ram_index.py",
    "video/index/remote/test_library.py",
    "video/index/remote/test_restart.py",
    "video/index/watch/",
)
SLOW_NAMES = ("killed", "two_processes")
"""What `make test-fast` leaves out: files of more than three seconds of CPU time, and tests that start processes."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        place = item.path.relative_to(TESTS).as_posix()
        if place.startswith(SLOW_PLACES) or any(part in item.name for part in SLOW_NAMES):
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def tiny() -> TinyEncoder:
    return TinyEncoder()


@pytest.fixture(scope="session")
def embeddings(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingCache:
    """Embeddings that this run has made, shared by its processes: an evaluation set is encoded once."""
    base = tmp_path_factory.getbasetemp()
    return EmbeddingCache((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "embeddings")


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
