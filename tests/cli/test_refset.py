"""`impart refset` on the command line: output, files and exit codes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from helpers.tiny_encoder import COLOURS, TinyEncoder
from impart.cli.refset import app
from impart.encoders.base import register

RUN = CliRunner()


@pytest.fixture(autouse=True)
def _tiny_by_id() -> None:
    register("tiny", lambda rest, **options: TinyEncoder(int(rest or 0)))


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    folder = tmp_path / "classes"
    for name in ("red", "green", "blue", "white"):
        (folder / name).mkdir(parents=True)
        for i in range(6):
            r, g, b = COLOURS[name]
            Image.new("RGB", (8, 8), (abs(r - i), abs(g - i), abs(b - i))).save(folder / name / f"{i}.png")
    return folder


def test_build_info_add_merge_tune(classes: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    built = RUN.invoke(
        app, ["build", str(classes), "-o", str(out), "-e", "tiny", "--per-class", "3", "--licence", "CC0"]
    )
    assert built.exit_code == 0, built.output
    assert "12 pairs, 4 texts" in built.output
    assert "classes: 12 pairs, CC0" in built.output
    manifest = json.loads(RUN.invoke(app, ["info", str(out), "--json"]).output)
    assert (manifest["encoder_id"], manifest["count"], manifest["dim"]) == ("tiny", 12, 16)
    assert manifest["settings"]["per_class"] == 3
    assert manifest == json.loads((out / "manifest.json").read_text())
    assert set(manifest["vanilla"]) == {"k", "w_img", "w_txt", "tau", "floor", "ramp", "target"}
    added = RUN.invoke(app, ["add", str(out), str(classes)])
    assert added.exit_code == 0, added.output
    assert "24 pairs" in added.output
    assert "12 duplicates" in added.output
    other = tmp_path / "other"
    shutil.copytree(classes / "red", tmp_path / "named" / "crimson")
    RUN.invoke(app, ["build", str(tmp_path / "named"), "-o", str(other), "-e", "tiny", "--no-tune"])
    merged = RUN.invoke(app, ["merge", str(out), str(other), "-o", str(tmp_path / "both")])
    assert merged.exit_code == 0, merged.output
    assert "30 pairs" in merged.output
    tuned = RUN.invoke(app, ["tune", str(tmp_path / "both")])
    assert tuned.exit_code == 0, tuned.output
    assert "chosen by leave-one-out: of 24 own images" in tuned.output


def test_failures_are_listed_with_exit_code_3(classes: Path, tmp_path: Path) -> None:
    (classes / "red" / "broken.png").write_bytes(b"no image")
    result = RUN.invoke(app, ["build", str(classes), "-o", str(tmp_path / "set"), "-e", "tiny", "--no-tune"])
    assert result.exit_code == 3
    assert "left out: red/broken.png: not a readable image" in result.output
    assert "24 pairs" in result.output
    assert "red/broken.png" in (tmp_path / "set" / "failures.csv").read_text()


def test_hold_out(classes: Path, tmp_path: Path) -> None:
    arguments = ["build", str(classes), "-o", str(tmp_path / "set"), "-e", "tiny", "--fraction", "0.25", "--seed", "2"]
    result = RUN.invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "6 pairs" in result.output
    assert len((tmp_path / "set" / "rest.csv").read_text().splitlines()) == 1 + 18


def test_class_names_are_given_by_a_file_and_notes_are_printed(classes: Path, tmp_path: Path) -> None:
    for number, name in enumerate(("red", "green", "blue", "white")):
        (classes / name).rename(classes / str(number))
    shutil.copytree(classes / "0", classes / "0_")
    arguments = ["build", str(classes), "-o", str(tmp_path / "set"), "-e", "tiny", "--no-tune"]
    refused = RUN.invoke(app, arguments)
    assert "its class is '0', a number or a code: give its name in a file (--class-names" in str(refused.exception)
    names = tmp_path / "names.json"
    names.write_text(json.dumps({"0": "red", "1": "green", "2": "blue", "3": "white", "0_": "red"}))
    result = RUN.invoke(app, [*arguments, "--class-names", str(names)])
    assert result.exit_code == 0, result.output
    assert "4 texts" in result.output
    assert "note       2 folders share 1 text, first '0' and '0_': 'red'" in result.output
