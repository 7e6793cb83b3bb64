"""`impart eval few-shot`: its tables, its report, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from helpers.tiny_encoder import COLOURS, TinyEncoder
from impart.cli.main import app
from impart.encoders.base import register
from impart.errors import ImpartError
from impart.evaluate.report.folder import read_report
from impart.refset.refset import ReferenceSet

RUN = CliRunner()
NAMES = ("red", "green", "blue", "white", "orange")


@pytest.fixture(autouse=True)
def _tiny_by_id(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    register("tiny", lambda rest, **options: TinyEncoder(int(rest or 0)))
    monkeypatch.setenv("IMPART_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for part, shade, names in (("train", 5, NAMES), ("test", 0, NAMES), ("other", 0, ("red", "cyan"))):
        for name in names:
            (tmp_path / "data" / part / name).mkdir(parents=True)
            for number in range(4):
                colour = tuple(abs(value - 11 * number - shade) for value in COLOURS[name])
                Image.new("RGB", (8, 8), colour).save(tmp_path / "data" / part / name / f"{number}.png")
    return tmp_path / "data"


def run(*arguments: Any, code: int = 0) -> Result:
    short = ["--draws", 2, "--images", "1,2", "--near-duplicate", 2, "-e", "tiny"]
    result = RUN.invoke(app, ["eval", "few-shot", *map(str, [*short, *arguments])])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def test_methods_are_compared_in_tables_and_a_report(data: Path, tmp_path: Path) -> None:
    said = run(data, "--methods", "tip-adapter,ridge", "--tuned-with", "none,few", "-o", "out")
    for line in (
        "few-shot with tiny, constants by leave-one-out: data/test",
        "kernel ridge - Tip-Adapter",
        "1 image %",
    ):
        assert line in " ".join(said.stdout.split())
    assert "report: out" in said.stderr
    assert "next: impart refset build" in said.stderr
    report = read_report(tmp_path / "out")
    assert [one.encoder for one in report.results] == ["Tip-Adapter", "zero-shot", "kernel ridge"] * 2
    assert report.settings["methods"] == "tip-adapter,ridge"
    assert report.results[0].counts["draws"] == 2
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    (ridge,) = (one for one in content["comparisons"][:2] if one["b"] == "kernel ridge")
    assert [found["figure"] for found in ridge["differences"]] == ["1 image", "2 images"]
    assert all(found["low"] <= found["difference"] <= found["high"] for found in ridge["differences"])
    compared = RUN.invoke(app, ["eval", "compare", "out", "out"])
    assert compared.exit_code == 0, compared.output


def test_two_folders_stand_for_a_data_set(data: Path) -> None:
    options = ("--methods", "gda", "--over", "gda", "--json", "--no-report")
    by_folders = run("--train", data / "train", "--test", data / "test", *options)
    by_splits = run(data, *options)
    figures = [
        [one["figures"]["2 images"]["value"] for one in json.loads(said.stdout)["results"]]
        for said in (by_folders, by_splits)
    ]
    assert figures[0] == figures[1]


def test_what_does_not_fit_is_refused_with_the_remedy(data: Path, tmp_path: Path) -> None:
    misused = (
        ((), "name a data set"),
        (("--train", data / "train"), "give both --train and --test"),
        ((data, "--train", data / "train", "--test", data / "test"), "leave DATA out"),
        ((data, "--methods", "nearest"), "give one or more of tip-adapter"),
        ((data, "--images", "1,two"), "write numbers with commas"),
    )
    for arguments, text in misused:
        assert text in " ".join(run(*arguments, code=2).output.replace("│", " ").split())
    ReferenceSet.build(data / "train", TinyEncoder()).save(tmp_path / "set")
    failed = (
        (("-e", "tiny+vanilla=set", data), "stand on a plain encoder"),
        (("--train", data / "train", "--test", data / "other"), "only 'data/other' has cyan"),
    )
    for arguments, text in failed:
        error = run(*arguments, code=1).exception
        assert isinstance(error, ImpartError)
        assert text in str(error)
