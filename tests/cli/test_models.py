"""`impart models`: output, and model ids that are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from impart.cli.models import app

RUNNER = CliRunner()


def test_list_names_the_bundled_model_first() -> None:
    result = RUNNER.invoke(app, ["list"])
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0].startswith("mini ")
    rows = json.loads(RUNNER.invoke(app, ["list", "--format", "json"]).stdout)
    assert rows[0]["id"] == "mini"
    assert {"id", "here", "what"} == set(rows[0])
    assert len(RUNNER.invoke(app, ["list", "--format", "jsonl"]).stdout.splitlines()) == len(rows)
    assert RUNNER.invoke(app, ["list", "--format", "csv"]).stdout.splitlines()[0] == "id,here,what"


@pytest.mark.parametrize("arguments", [["get", "mini"], ["get", "open_clip:a/b"], ["export", "onnx:a/b", "out"]])
def test_other_kinds_are_a_usage_error(arguments: list[str]) -> None:
    assert RUNNER.invoke(app, arguments).exit_code == 2


def test_export_prints_ids_that_load(tmp_path: Path) -> None:
    for package in ("torch", "transformers", "onnxscript"):
        pytest.importorskip(package, reason="extra torch is not installed")
    from helpers import tiny_hf
    from impart.encoders import load_encoder

    tiny_hf.write_clip(tmp_path / "model")
    result = RUNNER.invoke(app, ["export", f"hf:{tmp_path / 'model'}", str(tmp_path / "out"), "--no-int8"])
    assert result.exit_code == 0, result.output
    (line,) = result.stdout.splitlines()
    assert load_encoder(line.split()[0]).encode_texts(["a dog"]).shape == (1, tiny_hf.DIM)
    assert "checking" in result.stderr
