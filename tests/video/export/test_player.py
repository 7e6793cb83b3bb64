"""`--open`: the player that is found gets the file and the time, and nobody waits for it."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from impart.errors import DataError
from impart.video.export.player import open_at

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="fake players are shell scripts on PATH")


@pytest.fixture
def film(tmp_path: Path) -> Path:
    path = tmp_path / "-a film's.mp4"
    path.touch()
    return path


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def add(folder: Path, name: str, ending: str = "exit 0") -> Path:
    """A fake program: writes its arguments to a file."""
    called = folder / f"{name}.called"
    program = folder / name
    program.write_text(
        f'#!/bin/sh\nfor one in "$@"; do echo "$one"; done > "{called}.part"\n'
        f'/bin/mv "{called}.part" "{called}"\n{ending}\n'
    )
    program.chmod(0o755)
    return called


def arguments(called: Path) -> list[str]:
    for _ in range(200):
        if called.exists():
            return called.read_text().splitlines()
        time.sleep(0.02)
    raise AssertionError(f"{called} was not called")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("mpv", ["--start=62.500", "--", "FILE"]),
        ("vlc", ["--start-time=62.500", "FILE"]),
        ("ffplay", ["-loglevel", "error", "-autoexit", "-ss", "62.500", "-i", "FILE"]),
    ],
)
def test_players_start_at_the_time(film: Path, programs: Path, name: str, wanted: list[str]) -> None:
    called = add(programs, name)
    add(programs, "xdg-open")
    told = open_at(film, 62.5)
    assert arguments(called) == [str(film) if one == "FILE" else one for one in wanted]
    assert told == f"{name} plays -a film's.mp4 from 00:01:02.500"


def test_mpv_comes_first(film: Path, programs: Path) -> None:
    for name in ("ffplay", "vlc"):
        add(programs, name)
    called = add(programs, "mpv")
    open_at(film, 1)
    assert arguments(called)
    assert not (programs / "vlc.called").exists()


def test_the_systems_own_program_gets_no_time_and_that_is_said(film: Path, programs: Path) -> None:
    called = add(programs, "xdg-open")
    told = open_at(film, 62.5)
    assert arguments(called) == [str(film)]
    assert "from its start: go to 00:01:02.500" in told


def test_photos_go_to_the_systems_own_viewer(film: Path, programs: Path) -> None:
    add(programs, "mpv")
    called = add(programs, "xdg-open")
    assert "start" not in open_at(film, 0, photo=True)
    assert arguments(called) == [str(film)]


def test_nobody_waits_for_the_player(film: Path, programs: Path) -> None:
    called = add(programs, "mpv", "exec /bin/sleep 5")
    began = time.monotonic()
    open_at(film, 0)
    assert time.monotonic() - began < 2
    assert arguments(called)


def test_what_cannot_be_played_is_an_error(film: Path, programs: Path) -> None:
    with pytest.raises(DataError, match="install mpv"):
        open_at(film, 3)
    add(programs, "mpv", "exit 2")
    with pytest.raises(DataError, match="exit code 2"):
        open_at(film, 3)
    with pytest.raises(DataError, match="no such file"):
        open_at(film.with_name("gone.mp4"), 3)
