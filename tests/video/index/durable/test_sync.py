"""The sync of tables: what is new is synced once, and what cannot be kept is refused before it is reported."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from helpers.clips import write_clip
from helpers.tiny_encoder import TinyEncoder
from impart.errors import VideoIndexError
from impart.video.index import writer
from impart.video.index.durable.lock import write_lock
from impart.video.index.durable.sync import MARK, TableSync, read_mark
from impart.video.index.events import VideoDone
from impart.video.index.index import VideoIndex
from impart.video.index.store import Store
from impart.video.index.writer import Writer
from impart.video.integrity import damaged_file, versions_of


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of two films, in a folder with them."""
    place = tmp_path_factory.mktemp("made")
    (place / "films").mkdir()
    for name, colour in (("a", "red"), ("b", "blue")):
        write_clip(place / "films" / f"{name}.mp4", colours=[colour], seconds_each=0.5)
    list(VideoIndex.open(place / "index", TinyEncoder()).add([place / "films"]))
    return place


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "index", tmp_path / "index"))


def newest(folder: Path, name: str) -> Path:
    return next(iter(versions_of(folder / f"{name}.lance").values()))


def found(folder: Path) -> set[str]:
    return {hit.path.name for hit in VideoIndex.open(folder, TinyEncoder()).search(text="red", group="video")}


def test_only_new_files_are_synced(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []

    def fsync(number: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{number}").readlink()))

    monkeypatch.setattr("os.fsync", fsync)
    with Writer(Store(folder)) as writing:
        known = {str(path) for path in (folder / "videos.lance").rglob("*")}
        synced.clear()
        writing.update(list(writing.videos.values()))
        assert set(synced) & known <= {str(folder / "videos.lance" / name) for name in ("data", "_versions")}
        assert str(newest(folder, "videos")) in synced
        synced.clear()
        writing.update([])
        assert not [path for path in synced if ".lance" in path], "nothing is new"


def test_the_mark_is_there_while_a_writer_is_at_work(folder: Path) -> None:
    with Writer(Store(folder)):
        assert read_mark(folder) == {table.stem: max(versions_of(table)) for table in folder.glob("*.lance")}
    assert not (folder / MARK).exists()


@pytest.mark.parametrize("damage", [b"", bytes(600), b"LANC"])
def test_a_version_that_a_killed_writer_had_not_synced_is_undone_by_a_reader(
    folder: Path, tmp_path: Path, damage: bytes
) -> None:
    with Writer(Store(folder)) as writing:
        writing.update(list(writing.videos.values()))
        killed = Path(shutil.copytree(folder, tmp_path / "killed"))
    damaged = newest(killed, "videos")
    damaged.write_bytes(damage)
    assert found(killed) == {"a.mp4", "b.mp4"}
    assert not damaged.exists()


def test_damage_to_what_was_synced_is_never_undone(folder: Path) -> None:
    newest(folder, "videos").write_bytes(bytes(600))
    with pytest.raises(VideoIndexError, match="missing or damaged"):
        VideoIndex.open(folder, TinyEncoder()).videos()
    with pytest.raises(VideoIndexError, match="missing or damaged"), Writer(Store(folder)):
        pass
    assert newest(folder, "videos").read_bytes() == bytes(600)


def test_a_file_that_was_not_written_whole_is_refused(folder: Path) -> None:
    sync = TableSync(folder)
    sync.begin()
    (folder / "videos.lance" / "data" / "new.lance").write_bytes(b"half of")
    with pytest.raises(VideoIndexError, match="is the disk full"):
        sync.sync("videos")
    with pytest.raises(VideoIndexError, match="is the disk full"):
        sync.end()
    assert read_mark(folder) is not None, "the next writer undoes it"


def test_an_index_that_is_moved_while_it_is_written_reports_nothing_more(made: Path, tmp_path: Path) -> None:
    folder, moved, reported = tmp_path / "index", tmp_path / "moved", []

    def add() -> None:
        for event in VideoIndex.open(folder, TinyEncoder()).add([made / "films"]):
            if isinstance(event, VideoDone):
                reported.append(event.path)
                folder.rename(moved)

    with pytest.raises(VideoIndexError, match="was moved while it was written"):
        add()
    assert [record.path for record in VideoIndex.open(moved, TinyEncoder()).videos()] == reported
    assert len(reported) == 1
    assert not folder.exists(), "what the database wrote to the old place is removed"
    list(VideoIndex.open(moved, TinyEncoder()).add([made / "films"]))
    assert found(moved) == {"a.mp4", "b.mp4"}


def test_the_lock_makes_no_folder(tmp_path: Path) -> None:
    with pytest.raises(VideoIndexError, match="was the index moved"), write_lock(tmp_path / "gone"):
        pass
    assert not (tmp_path / "gone").exists()


def test_a_merged_table_whose_old_files_are_deleted_is_not_damaged(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_KEEP_VERSIONS", timedelta(0))
    monkeypatch.setattr(writer, "_worth_compacting", lambda _: True)
    with Writer(Store(folder)) as writing:
        writing.compact()
        assert len(list((folder / "segments.lance" / "data").iterdir())) == 1
        assert {table.stem: damaged_file(table) for table in folder.glob("*.lance")} == dict.fromkeys(
            ("videos", "segments", "failures")
        )


def test_remote_tables_are_not_synced() -> None:
    sync = TableSync(None)
    sync.begin()
    sync.sync("videos")
    sync.forget("videos")
    sync.end()
