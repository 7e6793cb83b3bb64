"""Indexes with lost or damaged files: what is whole stays searchable, and the next run heals the rest."""

from __future__ import annotations

import functools
import json
import os
import shutil
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pytest

from helpers.clips import write_clip
from helpers.colour_references import colour_set
from helpers.tiny_encoder import TinyEncoder
from impart import files
from impart.blending.encoder import AugmentedEncoder
from impart.blending.vanilla import Vanilla
from impart.cli.main import main
from impart.config import VanillaSettings
from impart.encoders.base import register
from impart.errors import ImpartWarning, VideoIndexError
from impart.video.decode import decoder
from impart.video.index.events import VideoFailed
from impart.video.index.index import VideoIndex
from impart.video.index.store import BY_OTHERS, SEGMENTS, Store
from impart.video.index.writer import Writer
from impart.video.integrity import damaged_file
from impart.video.search.state.load import load_snapshot

COLOURS = ("red", "green", "blue")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    for colour in COLOURS:
        write_clip(folder / f"{colour}.mp4", colours=[colour, "white"], seconds_each=0.5)
    return folder


@pytest.fixture(scope="module")
def made(films: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An index of the three films, and a copy of it made in the order of names while the last film was written."""
    folder = tmp_path_factory.mktemp("made")
    whole, torn = folder / "whole", folder / "torn"
    index = VideoIndex.open(whole, augmented())
    list(index.add([films / "green.mp4", films / "blue.mp4"]))
    torn.mkdir()
    for part in sorted(whole.iterdir()):
        if part.name == "videos.lance":
            list(index.add([films]))
        if part.is_dir():
            shutil.copytree(part, torn / part.name)
        else:
            shutil.copyfile(part, torn / part.name)
    return whole, torn


@pytest.fixture
def whole(made: tuple[Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(made[0], tmp_path / "whole", ignore=shutil.ignore_patterns("cache")))


@pytest.fixture
def torn(made: tuple[Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(made[1], tmp_path / "torn", ignore=shutil.ignore_patterns("cache")))


def augmented() -> AugmentedEncoder:
    return AugmentedEncoder(TinyEncoder(), colour_set(), Vanilla(VanillaSettings(k=3)))


def names(index: VideoIndex) -> list[str]:
    return sorted({hit.path.name for hit in index.search(text="red", top=100)})


def rows(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """All rows of the tables that hold vectors, sorted."""
    store = Store(folder)
    tables = [name for name in store.table_names() if name not in ("videos", "failures")]
    keys = ("video_id", "number")
    return {name: sorted(store.read(name).to_pylist(), key=lambda row: [row[key] for key in keys]) for name in tables}


def test_a_video_without_all_of_its_rows_is_left_out_and_healed(
    made: tuple[Path, Path], torn: Path, films: Path
) -> None:
    index = VideoIndex.open(torn, TinyEncoder())
    with pytest.warns(ImpartWarning, match=r"1 video \(.*red\.mp4\) is left out.*impart index PATH"):
        assert names(index) == ["blue.mp4", "green.mp4"]
    assert index.stats().incomplete == 1
    done = list(index.add([films], dry_run=True))
    assert [event.path.name for event in done if type(event).__name__ == "Planned"] == ["red.mp4"]

    done = list(index.add([films], prune=True))
    assert (done[-1].added, done[-1].unchanged) == (1, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert names(index) == ["blue.mp4", "green.mp4", "red.mp4"]
    assert (index.stats().incomplete, index.stats().failures) == (0, 0)
    assert rows(torn) == rows(made[0])


def test_a_video_without_its_rows_is_listed_until_its_file_is_found(torn: Path, films: Path) -> None:
    index = VideoIndex.open(torn, TinyEncoder())
    done = list(index.add([films / "blue.mp4"]))
    assert done[-1].unchanged == 1
    assert [(failure.path.name, failure.reason[:12]) for failure in index.failures()] == [("red.mp4", "rows of it a")]
    assert names(index) == ["blue.mp4", "green.mp4"]
    list(index.add([films / "red.mp4"]))  # without --retry-failed
    assert names(index) == ["blue.mp4", "green.mp4", "red.mp4"]
    assert index.failures() == []


@pytest.mark.parametrize("fault", ["a row is missing", "a row is there twice", "a number is too high"])
def test_rows_are_counted_one_by_one(whole: Path, fault: str) -> None:
    store = Store(whole)
    (red,) = [record for record in store.videos() if record.path.name == "red.mp4"]
    table, where = store.table(SEGMENTS), f"video_id = '{red.video_id}' AND number = 0"
    if fault != "a row is missing":
        table.add(store.read(SEGMENTS, where=where))
    if fault != "a row is there twice":
        table.update(where=where, values={"number": 99}) if "high" in fault else table.delete(where)
    snapshot = load_snapshot(Store(whole))
    assert [path.name for path in snapshot.left_out] == ["red.mp4"]
    with Writer(Store(whole)) as writer:
        assert [path.name for path in writer.failures] == ["red.mp4"]
        assert len(writer.videos) == 2
    assert Store(whole).read(SEGMENTS).num_rows == sum(record.segments for record in store.videos())


@pytest.mark.parametrize("fault", ["lost", "lost file", "short", "cut", "not a table"])
def test_a_neighbours_table_is_computed_anew(made: tuple[Path, Path], whole: Path, films: Path, fault: str) -> None:
    index = VideoIndex.open(whole, TinyEncoder())
    augmentation = index.manifest.augmentation
    assert augmentation is not None
    table = whole / f"{augmentation.table}.lance"
    if fault == "lost":
        shutil.rmtree(table)
    elif fault == "lost file":
        next((table / "data").iterdir()).unlink()
    elif fault == "cut":
        file = next((table / "data").iterdir())
        file.write_bytes(file.read_bytes()[:-50])
    elif fault == "not a table":
        shutil.rmtree(table / "_versions")
    else:
        Store(whole).table(augmentation.table).delete("number = 1")
    with pytest.warns(ImpartWarning, match="without the reference set.*impart index PATH"):
        assert len(names(index)) == 3
    with pytest.warns(ImpartWarning):
        before = index.search(text="red", top=3)
    list(index.add([films]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        after = index.search(text="red", top=3)
    assert [hit.score for hit in after] != [hit.score for hit in before], "the search that runs reads them again"
    assert rows(whole) == rows(made[0])


def test_a_lost_manifest_is_taken_from_its_copy(whole: Path, films: Path) -> None:
    manifest = (whole / "manifest.json").read_bytes()
    (whole / "manifest.json").unlink()
    index = VideoIndex.open(whole, TinyEncoder(), create=False)
    assert len(names(index)) == 3
    done = list(index.add([films]))
    assert done[-1].unchanged == 3
    assert (whole / "manifest.json").read_bytes() == manifest


def test_an_index_without_any_manifest_is_not_started_anew(whole: Path, films: Path) -> None:
    for name in ("manifest.json", "manifest.copy.json"):
        (whole / name).unlink()
    before = sorted(str(path) for path in whole.rglob("*"))
    for create in (True, False):
        with pytest.raises(VideoIndexError, match=r"manifest\.json is missing.*restore.*--index DIR"):
            VideoIndex.open(whole, TinyEncoder(), create=create)
    assert sorted(str(path) for path in whole.rglob("*")) == before

    empty = whole.with_name("interrupted")  # a first run that was killed before it saved its manifest
    list(VideoIndex.open(empty, TinyEncoder()).add([]))
    for name in ("manifest.json", "manifest.copy.json"):
        (empty / name).unlink()
    assert list(VideoIndex.open(empty, TinyEncoder()).add([films / "red.mp4"]))[-1].added == 1


def test_an_older_index_gets_its_copy_from_the_next_writer(whole: Path) -> None:
    (whole / "manifest.copy.json").unlink()
    with Writer(Store(whole)):
        pass
    assert (whole / "manifest.copy.json").read_bytes() == (whole / "manifest.json").read_bytes()


@pytest.mark.parametrize("fault", ["lost", "cut", "empty", "overwritten"])
@pytest.mark.parametrize("table", ["segments", "videos"])
def test_a_damaged_file_is_named_with_the_remedy(
    whole: Path, films: Path, table: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    files = sorted((whole / f"{table}.lance" / "data").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert damaged_file(whole / f"{table}.lance") is None
    file, content = files[-1], files[-1].read_bytes()
    if fault == "lost":
        file.unlink()
    else:
        file.write_bytes(
            {"cut": content[: len(content) // 2], "empty": b"", "overwritten": b"\0" * len(content)}[fault]
        )
    index = VideoIndex.open(whole, TinyEncoder())
    with pytest.raises(VideoIndexError, match=rf"{file} is missing or damaged.*--index DIR"):
        index.search(text="red")
    with pytest.raises(VideoIndexError, match=rf"{file} is missing or damaged"):
        list(index.add([films]))


@pytest.mark.parametrize("fault", ["lost", "no version"])
def test_a_lost_table_of_failures_costs_no_video(
    whole: Path, films: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    shutil.rmtree(whole / "failures.lance" / ("_versions" if fault == "no version" else ""))
    index = VideoIndex.open(whole, TinyEncoder())
    assert len(names(index)) == 3
    with pytest.raises(VideoIndexError, match=r"failures\.lance.*impart index PATH"):
        index.failures()
    assert list(index.add([films]))[-1].unchanged == 3
    assert index.failures() == []


@pytest.mark.parametrize("table", ["videos", "segments"])
def test_a_lost_table_is_named_with_the_remedy(
    whole: Path, films: Path, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    shutil.rmtree(whole / f"{table}.lance")
    index = VideoIndex.open(whole, TinyEncoder())
    for use in (lambda: index.search(text="red"), lambda: list(index.add([films]))):
        with pytest.raises(VideoIndexError, match=rf"{table}\.lance.*--index DIR"):
            use()
    assert not (whole / f"{table}.lance").exists()


def test_a_damaged_version_is_no_empty_index(whole: Path) -> None:
    newest = min((whole / "videos.lance" / "_versions").glob("*.manifest"))
    newest.write_bytes(bytes(newest.stat().st_size))
    with pytest.raises(VideoIndexError, match=rf"{newest} is missing or damaged"):
        VideoIndex.open(whole, TinyEncoder()).search(text="red")


def test_the_names_in_a_manifest_stay_inside_the_index(whole: Path) -> None:
    text = (whole / "manifest.json").read_text()
    folder = VideoIndex.open(whole, TinyEncoder()).manifest.augmentation.folder  # type: ignore[union-attr]
    for place in ("references/../../../home", "/etc", "references/0123456789abcdef-0123456g"):
        (whole / "manifest.json").write_text(text.replace(folder, place))
        with pytest.raises(VideoIndexError, match="no path of an index"):
            VideoIndex.open(whole, TinyEncoder())


def test_the_command_line_prints_what_is_left_out(
    torn: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    register("tiny", lambda rest, **options: TinyEncoder())
    monkeypatch.setattr(sys, "argv", ["impart", "search", "red", "--index", str(torn), "--format", "jsonl"])
    with pytest.raises(SystemExit) as end:
        main()
    captured = capsys.readouterr()
    assert end.value.code == 0
    assert [Path(hit["path"]).name for hit in json.loads(captured.out)["hits"]] != []
    assert captured.err.startswith("warning: 1 video (")
    assert captured.err.count("\n") == 1
    monkeypatch.setattr(sys, "argv", ["impart", "stats", "--index", str(torn)])
    with pytest.raises(SystemExit):
        main()
    assert "1 lack rows" in capsys.readouterr().err


def test_a_search_that_loads_a_model_while_the_set_is_switched_takes_the_new_one(whole: Path) -> None:
    other = colour_set().take([0, 1, 2]).named("three")
    switches = iter([other, None, colour_set()])

    def slow(rest: str, **options: Any) -> TinyEncoder:
        VideoIndex.open(whole, TinyEncoder()).use_references(next(switches))
        return TinyEncoder()

    register("tiny", slow)
    for expected in (3, None, 10):
        index = VideoIndex.open(whole)
        hits = index.search(text="red", top=3)
        assert len(hits) == 3
        augmentation = index.manifest.augmentation
        assert (augmentation and len(index.encoder.references)) == expected  # type: ignore[attr-defined]
    register("tiny", lambda rest, **options: TinyEncoder())


@pytest.mark.parametrize("fault", ["a changed bit", "lost rows", "lost folder"])
def test_refset_use_repairs_the_copy_in_the_index(whole: Path, fault: str) -> None:
    augmentation = VideoIndex.open(whole, TinyEncoder()).manifest.augmentation
    assert augmentation is not None
    copy = whole / augmentation.folder
    rows_file = next(copy.glob("pairs-*.arrow"))
    if fault == "a changed bit":
        content = bytearray(rows_file.read_bytes())
        content[content.index(b"magenta")] ^= 1
        rows_file.write_bytes(content)
    elif fault == "lost rows":
        rows_file.unlink()
    else:
        shutil.rmtree(copy)
    with pytest.raises(VideoIndexError, match=rf"the reference set of the index {whole}.*impart refset use SET"):
        VideoIndex.open(whole, TinyEncoder()).search(text="red")
    VideoIndex.open(whole, TinyEncoder()).use_references(colour_set(), VanillaSettings(k=3))
    index = VideoIndex.open(whole, TinyEncoder())
    assert len(names(index)) == 3
    assert index.manifest.augmentation == augmentation


@pytest.mark.skipif(os.name != "posix", reason="signals by number")
def test_a_file_whose_decoder_is_killed_each_time_is_read_by_the_next_run(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "killed.py"
    script.write_text(
        "import os\nfrom impart.video.decode import worker\nreal = worker.sample_video\n"
        "def sample(path, **options):\n"
        "    if path.name == 'green.mp4':\n        os.kill(os.getpid(), 9)\n"
        "    return real(path, **options)\n"
        "worker.sample_video = sample\nworker.main()\n"
    )
    index = VideoIndex.open(tmp_path / "index", TinyEncoder())
    with monkeypatch.context() as patch:
        command = [sys.executable, str(script)]
        patch.setattr(decoder, "Decoder", functools.partial(decoder.Decoder, command=command))
        events = list(index.add([films]))
    failed = [event for event in events if isinstance(event, VideoFailed)]
    assert [(event.path.name, "SIGKILL" in event.reason) for event in failed] == [("green.mp4", True)]
    assert events[-1].added == 2
    assert index.failures() == []
    assert list(index.add([films]))[-1].added == 1


def test_temporary_files_of_a_killed_run_are_deleted_by_the_next_one(
    whole: Path, films: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: set[Path] = set()
    move_synced = files.move_synced

    def noted(source: Path, target: Path) -> None:
        if target.is_relative_to(whole) and source.is_file():
            written.add(source)
        move_synced(source, target)

    monkeypatch.setattr(files, "move_synced", noted)
    (whole / "folders.json").unlink()
    index = VideoIndex.open(whole, augmented())
    list(index.add([films]))  # one film is new
    index.use_references(colour_set())
    assert {path.name.split(".")[1] for path in written} >= {"manifest", "checksums", "closed", "writing", "folders"}
    for path in written:
        path.write_bytes(b"half of it")
    list(index.add([films]))
    assert not list(whole.rglob("*.part"))


def test_a_temporary_file_that_another_process_may_be_writing_is_kept_for_an_hour(whole: Path, films: Path) -> None:
    parts = [whole / f".{name}.7-1.part" for name in BY_OTHERS] + [whole / ".impart-x1"]
    for file in parts:
        file.write_bytes(b"half of it")
    index = VideoIndex.open(whole, augmented())
    list(index.add([films]))
    assert all(file.exists() for file in parts)
    for file in parts:
        os.utime(file, (time.time() - 3700, time.time() - 3700))
    list(index.add([films]))
    assert not any(file.exists() for file in parts)
