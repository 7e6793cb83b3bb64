"""Damaged files of all kinds end with a reason, within the limits of time and memory."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from impart.config import DecodeSettings


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "fuzz.py"
    spec = importlib.util.spec_from_file_location("fuzz", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz"] = module
    spec.loader.exec_module(module)
    return module


def test_damaged_files_neither_crash_the_decoder_nor_exceed_its_limits(fuzz, tmp_path):
    kinds = ["mp4", "mov", "mkv", "webm", "avi", "ts", "flv", "ogg", "gif", "webp animation"]
    files = fuzz.originals([*kinds, *(f"{suffix} photo" for suffix in ("jpg", "png", "heic", "webp", "gif"))])
    assert len(files) == 15
    settings = DecodeSettings(stall_s=20, memory_gb=1)
    outcome = fuzz.fuzz(files, tmp_path, count=105, seed=7, settings=settings)
    assert outcome.found == []
    assert outcome.ends.total() == 105
    assert (
        min(outcome.ends[end] for end in ("decoded", "partly", "failed")) > 10
    )  # the changes are neither void nor all fatal
    assert outcome.peak_mb < 500


def test_files_of_a_number_are_the_same_in_each_run(fuzz):
    files = fuzz.originals(["gif", "jpg photo"])
    assert fuzz.mutated(4, 1, files) == fuzz.mutated(4, 1, files)
    assert fuzz.mutated(4, 1, files) != fuzz.mutated(6, 1, files)


def test_a_decoder_that_ends_on_a_file_is_found(fuzz, tmp_path, monkeypatch):
    kept = tmp_path / "kept"
    kept.mkdir()
    script = tmp_path / "worker.py"
    script.write_text(
        "import os\nfrom impart.video.decode import worker\nreal = worker.sample_video\n"
        "def sample(path, **options):\n"
        "    os.abort() if path.stem == '1' else None\n"
        "    yield from real(path, **options)\n"
        "worker.sample_video = sample\nworker.main()\n"
    )
    real = fuzz.Decoder
    monkeypatch.setattr(
        fuzz, "Decoder", lambda *given, **named: real(*given, command=[sys.executable, str(script)], **named)
    )
    outcome = fuzz.fuzz(fuzz.originals(["avi"]), tmp_path, count=3, seed=1, settings=DecodeSettings(), keep=kept)
    assert [(kind, number) for kind, number, _ in outcome.found] == [("avi", 1)]
    assert [path.name for path in kept.iterdir()] == ["1.avi"]
