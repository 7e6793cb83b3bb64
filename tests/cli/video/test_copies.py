"""`impart duplicates` and `impart similar --video`."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from helpers.textures import FPS, TextureEncoder, texture_images, write_texture
from impart.cli.main import app
from impart.encoders.base import register

RUN = CliRunner()


def run(*arguments: object, code: int = 0) -> Result:
    result = RUN.invoke(app, [str(part) for part in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


@pytest.fixture(autouse=True)
def _textures_by_id() -> None:
    register("textures", lambda rest, **options: TextureEncoder())


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    register("textures", lambda rest, **options: TextureEncoder())
    folder = tmp_path_factory.mktemp("films")
    for seed in range(3):
        write_texture(folder / f"{seed}.mp4", texture_images(seed, seconds=8))
    shutil.copy(folder / "2.mp4", folder / "same.mp4")
    write_texture(folder / "part.mp4", texture_images(1, seconds=8)[2 * FPS : 7 * FPS])
    run("index", folder, "-i", folder / "library.impart", "-e", "textures")
    return folder / "library.impart"


def test_duplicates_are_listed_in_every_format_and_stay(index: Path) -> None:
    before = sorted(index.parent.glob("*.mp4"))
    shown = run("duplicates", "-i", index)
    assert "exact copy" in shown.stdout
    assert "00:00:02.000 - 00:00:07.000" in shown.stdout
    assert "2 groups, 2 pairs, 1 of them exact. Nothing was deleted" in shown.stderr
    groups = json.loads(run("duplicates", "-i", index, "-f", "json").stdout)["groups"]
    assert [[Path(path).name for path in group["paths"]] for group in groups] == [
        ["2.mp4", "same.mp4"],
        ["1.mp4", "part.mp4"],
    ]
    assert groups[1]["duplicates"][0]["spans"][0]["speed"] == 1
    rows = list(csv.DictReader(io.StringIO(run("duplicates", "-i", index, "-f", "csv").stdout)))
    assert [(row["group"], row["exact"], Path(row["other_path"]).name) for row in rows] == [
        ("1", "True", "same.mp4"),
        ("2", "False", "part.mp4"),
    ]
    assert sorted(index.parent.glob("*.mp4")) == before
    assert "1 group, 1 pair, 1 of them exact" in run("duplicates", "-i", index, "--min-seconds", 60).stderr


def test_a_clip_is_found_in_every_format(index: Path, tmp_path: Path) -> None:
    clip = write_texture(tmp_path / "clip.mp4", texture_images(0, seconds=8)[FPS : 6 * FPS])
    shown = run("similar", "--video", clip, "-i", index).stdout
    assert "00:00:01.000 - 00:00:06.000" in shown
    (found,) = json.loads(run("similar", "--video", clip, "-i", index, "-f", "json").stdout)["copies"]
    assert Path(found["path"]).name == "0.mp4"
    assert found["spans"][0]["video_start_s"] == pytest.approx(1, abs=0.3)
    (row,) = csv.DictReader(io.StringIO(run("similar", "--video", clip, "-i", index, "-f", "csv").stdout))
    assert (row["clip"], row["rank"], row["mirrored"]) == (str(clip), "1", "False")
    stranger = write_texture(tmp_path / "stranger.mp4", texture_images(30, seconds=5))
    assert "no indexed video contains" in run("similar", "--video", stranger, "-i", index).stdout


def test_options_that_a_clip_does_not_take_are_refused(index: Path, tmp_path: Path) -> None:
    clip = write_texture(tmp_path / "clip.mp4", texture_images(0, seconds=2))
    for more in (("0.mp4@1",), ("--why",), ("--group", "scene"), ("--format", "jsonl")):
        assert "--video" in run("similar", "--video", clip, "-i", index, *more, code=2).stderr
    assert "--video FILE" in run("similar", "-i", index, code=2).stderr
