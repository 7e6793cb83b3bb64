"""`impart train`: from pairs to a folder that is an encoder, resumed, with failures, from a bundled config."""

from __future__ import annotations

import re

import pytest
from typer.testing import CliRunner

pytest.importorskip("torch", reason="training needs the extra `train`")
pytest.importorskip("accelerate", reason="training needs the extra `train`")

from helpers.shades import register_tiny, shades
from impart.cli.main import app
from impart.errors import ImpartError

QUICK = ["data.encoder=tiny", "data.batch=16", "loop.steps=6", "loop.batch=16", "ram.heads=2", "ram.k=3"]


def _run(*arguments):
    sets = [part for assignment in QUICK for part in ("--set", assignment)]
    return CliRunner().invoke(app, ["train", *map(str, arguments), *sets])


@pytest.fixture
def data(tmp_path):
    register_tiny()
    return shades(tmp_path / "data")


def test_pairs_to_a_checkpoint(data, tmp_path):
    out = tmp_path / "run"
    result = _run("ram_mini", "--pairs", data / "captions.csv", "--out", out)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == str(out / "model")
    assert result.stderr.splitlines()[-1] == f"next: impart index VIDEOS --encoder {out / 'model'}"
    assert re.search(r"validation on \d+ images: .* without augmentation", result.stderr)
    assert "images to train on" in result.stderr
    assert "t2i_r1" in result.stderr
    assert (out / "model" / "ram.onnx").is_file()
    assert (out / "log.jsonl").is_file()
    assert not (out / "failures.csv").exists()
    again = _run("ram_mini", "--pairs", data / "captions.csv", "--out", out)
    assert isinstance(again.exception, ImpartError)
    assert "--resume" in str(again.exception)
    resumed = _run("ram_mini", "--pairs", data / "captions.csv", "--out", out, "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert "continuing after step 6 of 6" in resumed.stderr


def test_failures_give_exit_code_3(data, tmp_path):
    (data / "red_0.png").write_bytes(b"no image")
    result = _run("ram_mini", "--pairs", data / "captions.csv", "--out", tmp_path / "run")
    assert result.exit_code == 3, result.output
    assert "1 items could not be used" in result.stderr
    assert "red_0.png" in (tmp_path / "run" / "failures.csv").read_text()


def test_pairs_that_do_not_exist_give_the_right_remedy(data, tmp_path):
    result = _run("ram_mini", "--pairs", "nothere.csv", "--data", data, "--out", tmp_path / "run")
    assert isinstance(result.exception, ImpartError)
    assert str(result.exception).startswith("--pairs nothere.csv does not exist")
    assert "--data" not in str(result.exception)
    assert not (tmp_path / "run").exists()


def test_configs_are_listed_and_mistakes_are_usage(tmp_path):
    listed = CliRunner().invoke(app, ["train", "--list"])
    assert listed.exit_code == 0
    assert "ram_mini" in listed.stdout.splitlines()
    assert "    Mode `ram`: RA-CLIP on the bundled model." in listed.stdout
    assert ".toml" not in listed.stdout
    assert CliRunner().invoke(app, ["train"]).exit_code == 2
    wrong = CliRunner().invoke(app, ["train", "ram_mini", "--out", str(tmp_path), "--set", "loop.epoch=3"])
    assert "loop.epoch" in str(wrong.exception)
