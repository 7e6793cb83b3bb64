"""A trained RAM on the command line: `--encoder FOLDER` and `refset use`, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from helpers.clips import solid, write_clip
from helpers.tiny_ram import onnx_colours
from impart.blending.ram_checkpoint import open_checkpoint
from impart.cli.main import app

RUN = CliRunner()

WITHOUT_TORCH = """
import sys
from impart.cli.main import main
code = 0
try:
    main()
except SystemExit as stop:
    code = stop.code or 0
assert "torch" not in sys.modules, "torch was imported"
sys.exit(code)
"""


@pytest.fixture
def films(tmp_path: Path) -> Path:
    folder = tmp_path / "films"
    folder.mkdir()
    write_clip(folder / "red.mp4", colours=["red"])
    write_clip(folder / "blue.mp4", colours=["blue"])
    return folder


def run(*arguments: object, code: int = 0) -> Result:
    result = RUN.invoke(app, [str(part) for part in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def without_torch(*arguments: object) -> str:
    command = [sys.executable, "-c", WITHOUT_TORCH, *(str(part) for part in arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_index_search_and_why_without_torch(films: Path, checkpoint: Path, tmp_path: Path) -> None:
    index = tmp_path / "library"
    assert "2 added" in without_torch("index", films, "-i", index, "--encoder", checkpoint)
    found = without_torch("search", "a blue square", "-i", index, "--why", "--format", "jsonl")
    hits = json.loads(found)["hits"]
    (blue,) = [hit for hit in hits if Path(hit["path"]).name == "blue.mp4"]
    assert "blue" in {reason["text"] for reason in blue["why"]}
    assert "form vanilla" in run("stats", "-i", index).output
    again = run("search", "a blue square", "-i", index, "--encoder", checkpoint, "--format", "jsonl").output
    assert [hit["score"] for hit in json.loads(again)["hits"]] == [hit["score"] for hit in hits]
    assert "2 unchanged" in run("index", films, "-i", index, "--encoder", checkpoint).output


def test_refset_use(films: Path, checkpoint: Path, tmp_path: Path) -> None:
    index, trained = tmp_path / "library", open_checkpoint(checkpoint)
    onnx_colours(trained.base, ("green", "blue")).save(tmp_path / "set")
    run("index", films, "-i", index, "--encoder", trained.base.traits.id)
    printed = run("refset", "use", checkpoint, "-i", index).output
    assert "(3 pairs), blended by the RAM" in printed
    one = run("search", "a red square", "-i", index, "--format", "csv").output
    printed = run("refset", "use", tmp_path / "set", "--ram", checkpoint, "-i", index).output
    assert "(2 pairs), blended by the RAM" in printed
    two = run("search", "a red square", "-i", index, "--format", "csv").output
    assert "RAM" not in run("refset", "use", tmp_path / "set", "-i", index).output
    three = run("search", "a red square", "-i", index, "--format", "csv").output
    assert len({one, two, three}) == 3


def test_zeroshot(checkpoint: Path, tmp_path: Path) -> None:
    for name in ("red", "blue"):
        (tmp_path / "classes" / name).mkdir(parents=True)
        Image.fromarray(solid(name)).save(tmp_path / "classes" / name / "0.png")
    options = ("--no-report", "--near-duplicate", "2", "--json", "--cache", tmp_path / "cache")
    report = json.loads(without_torch("eval", "zeroshot", tmp_path / "classes", "--encoder", checkpoint, *options))
    assert report["results"][0]["counts"] == {"images": 2, "classes": 2, "unreadable": 0, "references": 3} | {
        "references dropped": 0
    }
    assert report["encoders"][0]["references"]["name"] == "red-green-blue"
    names = f"{checkpoint}+plain,{checkpoint}"
    onnx_colours(open_checkpoint(checkpoint).base, ("green",)).save(tmp_path / "set")
    given = ("--encoders", names, "--refset", tmp_path / "set", *options)
    both = json.loads(run("eval", "zeroshot", tmp_path / "classes", *given).stdout)
    assert ["references" in one for one in both["encoders"]] == [False, True]
    assert both["encoders"][1]["references"]["name"] == "green"


def test_a_damaged_checkpoint_is_reported(films: Path, checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "manifest.json").write_text("{")
    result = RUN.invoke(app, ["index", str(films), "-i", str(tmp_path / "library"), "--encoder", str(checkpoint)])
    assert "is damaged" in str(result.exception)
