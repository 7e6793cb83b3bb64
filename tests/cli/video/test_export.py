"""`impart export`, and `--page` and `--open` of `impart search`, as a person runs them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from helpers.clips import write_clip
from helpers.tiny_encoder import TinyEncoder
from impart.cli.main import app
from impart.encoders import register
from impart.video.index.index import VideoIndex
from impart.video.search.last_search import LastSearch, SavedHit, load_last_search, save_last_search

runner = CliRunner()


@pytest.fixture(autouse=True)
def tiny() -> None:
    register("tiny", lambda name, **_: TinyEncoder())


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """An index of two films, with a last search of three hits."""
    folder = tmp_path / "library.impart"
    films = [
        write_clip(tmp_path / f"{name}.mp4", colours=colours, seconds_each=1.0)
        for name, colours in (("one", ["red", "blue"]), ("two", ["green", "red"]))
    ]
    library = VideoIndex.open(folder, TinyEncoder())
    for _ in library.add([tmp_path]):
        pass
    hits = [
        SavedHit(
            number=number,
            path=path,
            start_s=start_s,
            end_s=start_s + 0.8,
            best_s=start_s,
            score=0.5,
            video_id="x",
            kind="video",
            label="red",
        )
        for number, (path, start_s) in enumerate(((films[0], 0.0), (films[1], 1.0), (films[0], 1.1)), start=1)
    ]
    save_last_search(folder, LastSearch(query="red", command="search", hits=tuple(hits)))
    return folder


def run(index: Path, *words: str) -> Result:
    return runner.invoke(app, ["export", *words, "-i", str(index)])


def test_the_last_search_becomes_clips(index: Path, tmp_path: Path) -> None:
    result = run(index, "-o", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    names = ["001_one_00.00.00.000.mp4", "002_two_00.00.01.000.mp4", "003_one_00.00.01.100.mp4"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    assert result.stdout.split() == [str(tmp_path / "out" / name) for name in names]
    assert "H.264 (x264)" in result.stderr
    assert run(index, "3,1", "-o", str(tmp_path / "some")).exit_code == 0
    assert sorted(path.name for path in (tmp_path / "some").iterdir()) == [names[0], names[2]]  # numbers of the hits
    again = run(index, "1", "-o", str(tmp_path / "out"))
    assert isinstance(again.exception, Exception)
    assert "--overwrite" in str(again.exception)


def test_numbers_files_and_spans_join_in_their_order(index: Path, tmp_path: Path) -> None:
    (tmp_path / "more.csv").write_text(f"path,start_s,end_s\n{tmp_path / 'two.mp4'},0,0.4\n")
    words = ["3,1", f"{tmp_path / 'two.mp4'}@00:00.2-00:00.6", str(tmp_path / "more.csv")]
    result = run(index, *words, "--to", "edl", "-o", str(tmp_path / "cut.edl"), "--handles", "2f")
    assert result.exit_code == 0, result.output
    events = [line.split() for line in (tmp_path / "cut.edl").read_text().splitlines() if line[:3].isdigit()]
    assert [(event[1], event[4]) for event in events] == [
        ("ONE", "00:00:01:01"),  # 1.1 s is nearest to frame 28 (banker's rounding of 27.5), less the handles
        ("ONE", "00:00:00:00"),
        ("TWO", "00:00:00:03"),
        ("TWO", "00:00:00:00"),
    ]


@pytest.mark.parametrize(
    ("to", "name"),
    [
        ("reel", "reel.mp4"),
        ("sheet", "sheet.png"),
        ("sheet", "sheet.pdf"),
        ("otio", "cut.otio"),
        ("fcp7", "cut.xml"),
        ("fcpxml", "cut.fcpxml"),
        ("csv", "cut.csv"),
    ],
)
def test_every_form_is_written(index: Path, tmp_path: Path, to: str, name: str) -> None:
    result = run(index, "1-2", "--to", to, "-o", str(tmp_path / name))
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == str(tmp_path / name)
    assert (tmp_path / name).stat().st_size > 100
    assert "exported 2 spans" in result.stderr


def test_gone_and_changed_files_are_named_and_the_rest_goes_on(index: Path, tmp_path: Path) -> None:
    (tmp_path / "two.mp4").unlink()
    result = run(index, "--to", "csv", "-o", str(tmp_path / "cut.csv"))
    assert result.exit_code == 3
    assert f"not exported: hit 2: {tmp_path / 'two.mp4'} is gone" in result.stderr
    assert "exported 2 spans" in result.stderr
    write_clip(tmp_path / "one.mp4", colours=["cyan"], seconds_each=3)
    result = run(index, "--to", "csv", "-o", str(tmp_path / "cut.csv"), "--overwrite")
    assert result.exit_code == 1
    assert f"{tmp_path / 'one.mp4'} has changed since it was indexed: run impart index" in result.stderr


def test_a_touched_file_has_not_changed(index: Path, tmp_path: Path) -> None:
    os.utime(tmp_path / "one.mp4", (time.time() + 100, time.time() + 100))
    assert run(index, "1", "--to", "csv", "-o", str(tmp_path / "cut.csv")).exit_code == 0


def test_photos_are_left_out_of_timelines_and_counted(index: Path, tmp_path: Path) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "photo.png")
    (tmp_path / "spans.json").write_text(
        f'[{{"path": "{tmp_path / "photo.png"}", "start_s": 0, "end_s": 0, "kind": "photo"}},'
        f' {{"path": "{tmp_path / "one.mp4"}", "start_s": 0, "end_s": 1}}]'
    )
    result = run(index, str(tmp_path / "spans.json"), "--to", "edl", "-o", str(tmp_path / "cut.edl"))
    assert result.exit_code == 0, result.output
    assert "left out 1 photo" in result.stderr
    assert run(index, str(tmp_path / "spans.json"), "--to", "sheet", "-o", str(tmp_path / "s.png")).exit_code == 0


def test_copies_say_how_far_they_moved(index: Path, tmp_path: Path) -> None:
    result = run(index, "1", "--copy", "-o", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    assert "before and ends" in result.stderr
    assert run(index, "1", "--copy", "--to", "reel").exit_code == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["9"], "no hit 9"),
        (["film"], "FILE@START-END"),
        (["1", "--handles", "x"], "12f"),
    ],
)
def test_wrong_words_are_answered_with_the_remedy(index: Path, words: list[str], told: str) -> None:
    result = run(index, *words)
    assert result.exit_code != 0
    assert told in str(result.exception)


def test_without_a_search_the_remedy_is_a_search(index: Path) -> None:
    (index / "last-search.json").unlink()
    assert "search" in str(run(index).exception)


def test_search_writes_a_page_and_opens_a_player(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    monkeypatch.setattr(
        "impart.video.export.player.open_at", lambda path, at_s, photo: opened.append((path, photo)) or "opened"
    )
    page = tmp_path / "hits.html"
    words = ["search", "red", "-i", str(index), "-e", "tiny", "--page", str(page), "--open"]
    result = runner.invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "one.mp4" in page.read_text()
    assert f"wrote {page}" in result.stderr
    assert [path.suffix for path, _ in opened] == [".mp4"]


def test_the_numbers_of_a_later_page_are_told(index: Path) -> None:
    hits = load_last_search(index).hits[1:]
    save_last_search(index, LastSearch(query="red", command="search", hits=hits))
    refused = run(index, "1", "--to", "csv")
    assert "has no hit 1: its numbers are 2 to 3" in str(refused.exception)
