"""`impart doctor`: exit codes, what is printed, and other commands on a damaged index."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from helpers.colour_references import colour_set
from helpers.damage import Library, damage, data_in_force, make_library
from impart.cli.main import app
from impart.errors import ImpartError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Library:
    library = make_library(tmp_path_factory.mktemp("doctor"))
    assert run("doctor", "-i", library.index).exit_code == 0
    return library


@pytest.fixture
def library(made: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Library:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    return Library(Path(shutil.copytree(made.index, tmp_path / "library.impart")), made.films)


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_whole_index_is_said_to_be_whole(library: Library) -> None:
    result = run("doctor", "-i", library.index)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{library.index}: whole (")
    assert run("doctor", library.index, "--format", "json").exit_code == 0


def test_damage_is_told_repaired_and_gone(library: Library) -> None:
    data = data_in_force(library.index, "segments")
    damage(data, "bit")
    result = run("doctor", "-i", library.index)
    assert result.exit_code == 3
    assert f"damaged  {data}: has other content than its checksum" in result.stdout
    assert "lack rows:" in result.stdout
    assert result.stderr == f"next: impart doctor --repair -i {library.index}\n"
    told = json.loads(run("doctor", "-i", library.index, "-f", "json").stdout)
    assert told["whole"] is False
    assert [Path(path).name for path in told["damage"][0]["videos"]] == [Path(path).name for path in told["lacking"]]

    result = run("doctor", "--repair", "-i", library.index)
    assert result.exit_code == 0, result.output
    assert "repaired segments.lance: " in result.stdout
    assert result.stdout.splitlines()[-1].startswith(f"{library.index}: whole (")
    assert run("doctor", "-i", library.index).exit_code == 0


def test_a_repair_prints_one_json_object(library: Library) -> None:
    damage(library.index / "manifest.json", "zeroed")
    told = json.loads(run("doctor", "--repair", "-i", library.index, "--format", "json").stdout)
    assert (told["whole"], told["left"], told["before"]["whole"]) == (True, [], False)


def test_what_a_person_must_give_again_is_left(library: Library) -> None:
    damage(next((library.index / "names").glob("pairs-*.arrow")), "zeroed")
    result = run("doctor", "--repair", "-i", library.index)
    assert result.exit_code == 3
    assert "left     names are lost: teach them again from the images in" in result.stdout
    assert "damaged files are kept in" in result.stderr
    assert run("search", "red", "-i", library.index).exit_code == 0
    assert run("doctor", "-i", library.index).exit_code == 0
    assert (library.index / "damaged").is_dir()


def test_a_lost_manifest_of_the_names_costs_no_name(library: Library) -> None:
    damage(library.index / "names" / "manifest.json", "deleted")
    assert run("doctor", "--repair", "-i", library.index).exit_code == 0
    assert "sunset" in run("names", "list", "-i", library.index).stdout


@pytest.mark.parametrize("file", ["videos.lance/_versions", "segments.lance/data", "videos.lance/data"])
def test_no_command_ends_with_a_traceback(library: Library, file: str) -> None:
    table, _, part = file.partition(".lance/")
    zeroed = data_in_force(library.index, table) if part == "data" else min((library.index / file).glob("*.manifest"))
    damage(zeroed, "zeroed")
    for command in (
        ["search", "red"],
        ["stats"],
        ["index", library.films],
        ["names", "find", "sunset"],
        ["duplicates"],
    ):
        result = run(*command, "-i", library.index)
        assert isinstance(result.exception, ImpartError | SystemExit | None), (command, result.exception)
        if isinstance(result.exception, ImpartError):
            assert "impart doctor --repair" in str(result.exception)


def test_a_reference_set_is_checked(tmp_path: Path) -> None:
    folder = colour_set().save(tmp_path / "colours.refset")
    assert run("doctor", folder).exit_code == 0
    rows = next(folder.glob("pairs-*.arrow"))
    content = bytearray(rows.read_bytes())
    content[content.index(b"magenta")] ^= 1
    rows.write_bytes(content)
    result = run("doctor", folder)
    assert result.exit_code == 3
    assert f"damaged  {rows}" in result.stdout


@pytest.mark.parametrize("arguments", [["s3://films/library.impart"], ["-i", "s3://films/library.impart", "--repair"]])
def test_object_storage_is_not_checked(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    result = run("doctor", *arguments)
    assert str(result.exception).startswith(
        "impart doctor checks local folders only: s3://films/library.impart is on object storage"
    )


@pytest.mark.parametrize(("arguments", "code"), [(["-i", "nowhere"], 1), (["--no-index"], 2)])
def test_what_cannot_be_checked(
    arguments: list[str], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("doctor", *arguments)
    assert result.exit_code == code
    assert list(tmp_path.iterdir()) == []
