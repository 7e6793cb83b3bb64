"""`impart names` on the command line."""

from __future__ import annotations

import csv
import json
import shlex
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from helpers.clips import write_clip
from helpers.image_sets import image
from helpers.tiny_encoder import TinyEncoder
from impart.cli.main import app
from impart.encoders.base import register
from impart.errors import QueryError
from impart.video.search.last_search import load_last_search

RUN = CliRunner()


@pytest.fixture(autouse=True)
def _tiny_by_id() -> None:
    register("tiny", lambda rest, **options: TinyEncoder(int(rest or 0)))


@pytest.fixture
def index(tmp_path: Path) -> Path:
    films = tmp_path / "films"
    films.mkdir()
    write_clip(films / "a.mp4", colours=["red", "green", "blue", "red"], seconds_each=2)
    write_clip(films / "b.mp4", colours=["grey", "yellow", "cyan", "black"], seconds_each=2)
    folder = tmp_path / "library.impart"
    run("index", films, "-i", folder, "-e", "tiny")
    return folder


def run(*arguments: object, code: int = 0) -> Result:
    result = RUN.invoke(app, [str(part) for part in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def test_teach_check_find_and_remove(index: Path, tmp_path: Path) -> None:
    red = image(tmp_path / "red.png", "red")
    added = run("names", "add", "Rex", red, f"{tmp_path / 'films' / 'a.mp4'}@00:01", "-i", index)
    assert added.stdout.splitlines()[0] == "Rex: 2 new images, 2 in all, 2 of 2 found by the others"
    assert f"next: impart names find Rex -i {index}" in added.stderr
    again = run("names", "add", "rex", red, "-i", index)
    assert f"the same image again, left out: {red} (Rex)" in again.stderr

    checked = run("names", "list", "--check", "--images", "-i", index).stdout
    assert checked.splitlines()[0] == "Rex: 2 images, 2 of 2 found by the others"
    assert f"  {red}" in checked
    found = run("names", "find", "REX", "-i", index)
    assert "next: impart export" in found.stderr
    rows = json.loads(run("names", "find", "REX", "-i", index, "-f", "json").stdout)["hits"]
    assert [(round(row["start_s"]), round(row["end_s"]), row["names"]) for row in rows] == [
        (0, 2, ["Rex"]),
        (6, 8, ["Rex"]),
    ]
    lines = list(csv.DictReader(run("names", "find", "rex", "-i", index, "-f", "csv", "-n", "1").stdout.splitlines()))
    assert [line["names"] for line in lines] == ['["Rex"]']

    last = load_last_search(index)
    assert (last.command, last.query, len(last.hits)) == ("names find", "rex", 1)
    assert "removed 1 image of Rex" in run("names", "remove", "Rex", "red.png", "-i", index).stdout
    assert "Rex is now Max" in run("names", "rename", "Rex", "Max", "-i", index).stdout
    assert "removed 1 image of max" in run("names", "remove", "max", "-i", index).stdout
    assert "no names" in run("names", "list", "-i", index).stdout


def test_hits_of_the_last_search_are_taken_by_number(index: Path) -> None:
    image_of_blue = index.parent / "blue.png"
    run("names", "add", "Sea", image(image_of_blue, "blue"), "-i", index)
    run("names", "find", "Sea", "-i", index)
    added = run("names", "add", "Lake", "--from-hits", "1", "-i", index)
    assert added.stdout.startswith("Lake: ")
    assert "Lake and Sea are alike" in added.stdout
    failed = RUN.invoke(app, ["names", "add", "Lake", "--from-hits", "4", "-i", str(index)])
    assert isinstance(failed.exception, QueryError)
    assert "no hit 4" in str(failed.exception)
    assert "give numbers" in run("names", "add", "Lake", "--from-hits", "x", "-i", index, code=2).stderr


def test_folder_of_names_counts_what_is_left_out(index: Path, tmp_path: Path) -> None:
    image(tmp_path / "people" / "Rex" / "a.png", "red")
    image(tmp_path / "people" / "Old Sea" / "a.png", "blue")
    (tmp_path / "people" / "Rex" / "b.jpg").write_bytes(b"broken")
    done = run("names", "add", tmp_path / "people", "-i", index, code=3)
    assert [line.split(":")[0] for line in done.stdout.splitlines() if not line.startswith(" ")] == ["Old Sea", "Rex"]
    assert "left out" in done.stderr
    assert "b.jpg" in done.stderr
    listed = json.loads(run("names", "list", "--json", "-i", index).stdout)
    assert [(row["name"], row["images"], row["in_force"]) for row in listed] == [("Old Sea", 1, 1), ("Rex", 1, 1)]
    assert all(Path(path).is_file() for row in listed for path in row["thumbnails"])
    assert f"next: impart names find {shlex.quote('Old Sea')}" in done.stderr


def test_a_name_without_images_is_refused_with_an_example(index: Path) -> None:
    refused = run("names", "add", "Rex", "-i", index, code=2)
    assert "clip.mp4@00:12.5" in refused.stderr
    both = run("names", "add", "Rex", "a.png", "--from-hits", "1", "-i", index, code=2)
    assert "leave the others out" in both.stderr


def test_unknown_names_are_refused_with_those_that_exist(index: Path, tmp_path: Path) -> None:
    failed = RUN.invoke(app, ["names", "find", "Rex", "-i", str(index)])
    assert "teach it with: impart names add Rex" in str(failed.exception)
    run("names", "add", "Sea", image(tmp_path / "sea.png", "blue"), "-i", index)
    failed = RUN.invoke(app, ["names", "find", "Rex", "-i", str(index)])
    assert "there are: Sea" in str(failed.exception)


def test_discover_what_recurs_and_name_it_by_its_number(index: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    found = run("names", "discover", "--page", page, "-n", "1", "-i", index)
    assert found.stdout.splitlines()[0].startswith("1: 2 scenes in 1 video")
    assert f"next: impart names add --from-cluster 1 NAME -i {index}" in found.stderr
    assert page.read_text("utf-8").count("<figure>") == 2
    added = run("names", "add", "Rex", "--from-cluster", "1", "-i", index)
    assert added.stdout.startswith("Rex: ")
    missing = RUN.invoke(app, ["names", "add", "Rex", "--from-cluster", "9", "-i", str(index)])
    assert isinstance(missing.exception, QueryError)
    run("names", "add", "Rex", "a.png", "--from-cluster", "1", "-i", index, code=2)


def test_a_name_in_a_sentence_is_marked_and_can_be_taken_as_a_word(index: Path, tmp_path: Path) -> None:
    run("names", "add", "Rex", image(tmp_path / "red.png", "red"), "-i", index)
    for extra, names in (((), ["Rex"]), (("--no-names",), [])):
        rows = json.loads(run("search", "Rex, red", "-i", index, "-f", "json", *extra).stdout)["hits"]
        assert rows[0]["names"] == names
