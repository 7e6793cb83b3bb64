"""`impart scenes`: formats, wrong usage, files that fail, and an index."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from helpers.photos import write_shots
from helpers.tiny_encoder import TinyEncoder
from impart import VideoIndex
from impart.cli import options
from impart.cli.main import app

RUNNER = CliRunner()


@pytest.fixture
def film(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A film with a cut at 2.12 s; files are encoded with the tiny encoder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(options, "load", lambda *_args, **_options: TinyEncoder())
    return write_shots(tmp_path / "film.mp4", [53, 31])


@pytest.fixture
def index(film: Path) -> Path:
    folder = film.with_name("library.impart")
    for _ in VideoIndex.open(folder, TinyEncoder()).add([film]):
        pass
    film.unlink()  # nothing is decoded
    return folder


def test_table_and_next_command(film: Path):
    result = RUNNER.invoke(app, ["scenes", "film.mp4"])
    assert result.exit_code == 0, result.output
    assert "film.mp4: 2 scenes" in result.stdout
    assert "00:00:02.120" in result.stdout
    assert "--format edl" in result.stderr


def test_json_and_csv_of_a_file(film: Path):
    (video,) = json.loads(RUNNER.invoke(app, ["scenes", "film.mp4", "--format", "json"]).stdout)
    assert video["path"] == "film.mp4"
    assert [(row["scene"], row["start_s"], row["kind"]) for row in video["scenes"]] == [
        (1, 0.0, "cut"),
        (2, 2.12, "cut"),
    ]
    lines = RUNNER.invoke(app, ["scenes", "film.mp4", "-f", "csv"]).stdout.splitlines()
    assert lines[0] == "path,scene,start_s,end_s,kind,best_s"
    assert lines[2].startswith("film.mp4,2,2.12,3.36,cut,")


def test_an_index_needs_no_file(index: Path):
    for arguments in ([], ["film.mp4"], [str(index.with_name("film.mp4"))]):
        result = RUNNER.invoke(app, ["scenes", *arguments, "--index", str(index), "-f", "csv"])
        assert result.exit_code == 0, result.output
        assert ",2,2.12,3.36,cut," in result.stdout


def test_a_failed_file_is_named_and_the_others_are_listed(film: Path):
    film.with_name("bad.mp4").write_text("no video")
    result = RUNNER.invoke(app, ["scenes", "bad.mp4", "film.mp4", "-f", "csv"])
    assert result.exit_code == 3
    assert "failed  bad.mp4" in result.stderr
    assert "film.mp4,2,2.12" in result.stdout
    assert RUNNER.invoke(app, ["scenes", "bad.mp4"]).exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "give video files"),
        (["film.mp4", "--out", "a.edl"], "--out"),
        (["--index", "library.impart", "--encoder", "mini"], "--encoder"),
    ],
)
def test_options_that_would_be_ignored_are_refused(film: Path, arguments: list[str], part: str):
    result = RUNNER.invoke(app, ["scenes", *arguments])
    assert result.exit_code == 2
    assert part in result.output


@pytest.mark.parametrize("form", ["edl", "otio"])
def test_timelines_have_an_event_per_scene(film: Path, form: str):
    pytest.importorskip("impart.video.export.timelines")
    pytest.importorskip("opentimelineio")
    result = RUNNER.invoke(app, ["scenes", "film.mp4", "--format", form])
    assert result.exit_code == 0, result.output
    written = film.with_name(f"scenes.{form}").read_text(encoding="utf-8")
    if form == "edl":
        assert "00:00:02:03" in written  # frame 53 at 25 per second
    else:
        assert len(json.loads(written)["tracks"]["children"][0]["children"]) == 2
    again = RUNNER.invoke(app, ["scenes", "film.mp4", "--format", form])
    assert isinstance(again.exception, Exception)  # the file is kept
    assert RUNNER.invoke(app, ["scenes", "film.mp4", "--format", form, "--overwrite"]).exit_code == 0
