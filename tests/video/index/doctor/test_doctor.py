"""Damage to each kind of file of an index: it is named, no command fails with a traceback, and a repair ends whole.

The long form, with every file, is `benchmarks/damage.py`.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.damage import Kind, Library, damage, data_in_force, files_of_index, found_videos, make_library
from impart.errors import ImpartError, VideoIndexError
from impart.video.index.doctor.check import check_index
from impart.video.index.doctor.checksums import CHECKSUMS
from impart.video.index.doctor.doctor import Repaired, repair_index
from impart.video.index.doctor.repair import put_back
from impart.video.index.durable.lock import write_lock
from impart.video.index.index import VideoIndex
from impart.video.index.store import SEGMENTS, VIDEOS, Store
from impart.video.index.writer import Writer
from impart.video.search.state.shard_files import map_arrays, write_arrays


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Library:
    library = make_library(tmp_path_factory.mktemp("doctor"), everything=False)
    assert check_index(library.index).whole  # the first check records what was not recorded
    return library


@pytest.fixture
def library(made: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Library:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    return Library(Path(shutil.copytree(made.index, tmp_path / "library.impart")), made.films)


def first(index: Path, pattern: str) -> Path:
    """The first file of a pattern: of versions the newest, of data files one that is in force."""
    table, _, rest = pattern.partition(".lance/data/")
    return data_in_force(index, table) if rest else sorted(index.glob(pattern))[0]


def repaired(library: Library, **options: Any) -> Repaired:
    steps: Generator[Any, None, Repaired] = repair_index(library.index, **options)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: Repaired = end.value
            return result


@pytest.mark.parametrize(
    ("pattern", "kind"),
    [
        ("segments.lance/data/*.lance", "bit"),
        ("segments.lance/data/*.lance", "zeroed"),
        ("segments.lance/_versions/*.manifest", "cut"),
        ("segments.lance/_deletions/*", "deleted"),
        ("videos.lance/data/*.lance", "deleted"),
        ("videos.lance/_versions/*.manifest", "zeroed"),
        ("videos.lance/_versions/*.manifest", "deleted"),
        ("neighbours_*.lance/data/*.lance", "bit"),
        ("failures.lance/_versions/*.manifest", "bit"),
        ("manifest.json", "cut"),
        ("references/*/manifest.json", "zeroed"),
        ("cache/*.base", "bit"),
        ("cache/*.base", "deleted"),
        ("cache/layout.json", "zeroed"),
    ],
)
def test_a_damaged_file_is_named_and_repaired(library: Library, pattern: str, kind: Kind) -> None:
    file = first(library.index, pattern)
    damage(file, kind)
    report = check_index(library.index)
    assert [one.file for one in report.damage] == [file]
    index = VideoIndex.open(library.index) if "manifest.json" not in pattern else None
    for use in (lambda: index.search(text="red"), lambda: index.stats()) if index else ():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                use()
        except ImpartError as error:
            assert "impart doctor --repair" in str(error)  # noqa: PT017 - an answer is as good

    result = repaired(library)
    assert (result.left, result.aside) == ((), None)
    assert found_videos(VideoIndex.open(library.index)) == library.names
    assert check_index(library.index).whole
    assert not (library.index / "damaged").exists()


def test_rows_of_whole_files_are_kept(library: Library, made: Library) -> None:
    before = {video.path.name: video for video in VideoIndex.open(made.index).videos()}
    damage(first(library.index, "segments.lance/data/*.lance"), "cut")
    lost = {path.name for path in check_index(library.index).lacking}
    assert lost
    assert lost < set(library.names)
    result = repaired(library)
    assert {path.name for path in result.restored.wanted} == lost
    after = {video.path.name: video for video in VideoIndex.open(library.index).videos()}
    for name in library.names:
        assert (after[name].indexed_at == before[name].indexed_at) == (name not in lost)


def test_a_table_without_any_version_is_made_of_its_data_files(library: Library, made: Library) -> None:
    for table in (VIDEOS, SEGMENTS):
        shutil.rmtree(library.index / f"{table}.lance" / "_versions")
    result = repaired(library)
    assert result.restored.wanted == ()
    assert result.after.whole
    videos = {video.path: video for video in VideoIndex.open(library.index).videos()}
    assert videos == {video.path: video for video in VideoIndex.open(made.index).videos()}, "nothing was decoded again"


def set_file_of(index: Path) -> Path:
    """The file of a shard with the neighbours that are in force."""
    (base,) = (index / "cache").glob("*.base")
    (file,) = (file for file in base.parent.glob(f"{base.stem}.*") if file != base)
    return file


@pytest.mark.parametrize("recorded", [True, False])
def test_a_damaged_file_of_the_cache_alone_is_made_again(library: Library, recorded: bool) -> None:
    (base,) = (library.index / "cache").glob("*.base")
    before = base.stat().st_mtime_ns
    file = set_file_of(library.index)
    content = file.read_bytes()
    if not recorded:
        (library.index / CHECKSUMS).unlink()
    damage(file, "cut")
    (found,) = check_index(library.index).damage
    assert (found.file, found.needs) == (file, "index")
    assert repaired(library).after.whole
    assert file.read_bytes() == content
    assert base.stat().st_mtime_ns == before, "the vectors were not read from the tables again"


@pytest.mark.parametrize("place", ["table", "cache"])
def test_a_reference_id_that_the_set_does_not_have_is_named_and_repaired(library: Library, place: str) -> None:
    found = VideoIndex.open(library.index).search(text="red", top=3)
    if place == "cache":
        file = set_file_of(library.index)
        arrays = {name: np.array(array) for name, array in (map_arrays(file) or {}).items()}
        arrays["ids"][-1, -1] = 1000
        write_arrays(file, arrays)
    else:
        shutil.rmtree(library.index / "cache")
        (file,) = library.index.glob("neighbours_*.lance")
        table = Store(library.index).table(file.stem)
        row = table.search().limit(1).to_arrow().to_pylist()[0]
        where = f"video_id = '{row['video_id']}' AND number = {row['number']}"
        table.update(where=where, values={"ids": [1000, *row["ids"][1:]]})
    with pytest.raises(
        VideoIndexError, match=r"names reference pair 1000, and the set has \d+\. impart doctor --repair"
    ):
        VideoIndex.open(library.index).search(text="red", top=3)
    (wrong,) = check_index(library.index).damage
    assert (wrong.file, wrong.needs) == (file, "index")
    result = repaired(library)
    assert (result.left, result.restored.wanted, result.after.whole) == ((), (), True)
    assert VideoIndex.open(library.index).search(text="red", top=3) == found


def test_lost_videos_are_known_from_the_cache(library: Library) -> None:
    shutil.rmtree(library.index / "videos.lance")
    (library.index / "folders.json").unlink(missing_ok=True)
    report = check_index(library.index)
    assert sorted(path.name for path in report.lost_paths) == library.names


def test_lost_videos_are_known_by_by_the_ids_of_their_paths(library: Library) -> None:
    shutil.rmtree(library.index / "cache")
    shutil.rmtree(library.index / "videos.lance")
    report = check_index(library.index)
    assert report.lost_records == len(library.names)
    assert sorted(path.name for path in report.lost_paths) == library.names
    assert repaired(library).after.whole
    assert found_videos(VideoIndex.open(library.index)) == library.names


def test_a_video_whose_file_is_gone_is_left_to_the_person(made: Library, library: Library, tmp_path: Path) -> None:
    films = Path(shutil.copytree(library.films, tmp_path / "films"))
    index = VideoIndex.open(tmp_path / "own.impart")
    list(index.add([films]))
    data = first(index.path, "segments.lance/data/*.lance")
    damage(data, "zeroed")
    (gone,) = check_index(index.path).lacking
    gone.unlink()
    own = Library(index.path, films)
    result = repaired(own)
    assert [line.split(" is not ")[0] for line in result.left] == [str(gone)]
    assert result.aside is not None
    assert list(result.aside.rglob(data.name)), "its damaged file is kept"
    assert result.after.whole, "what is left is in order"
    assert found_videos(VideoIndex.open(index.path)) == own.names


def test_no_index_leaves_the_videos_to_the_next_run(library: Library) -> None:
    damage(first(library.index, "segments.lance/data/*.lance"), "cut")
    result = repaired(library, index=False)
    assert result.left
    assert len(found_videos(VideoIndex.open(library.index))) < len(library.names)
    list(VideoIndex.open(library.index).add([library.films]))
    assert found_videos(VideoIndex.open(library.index)) == library.names
    assert repaired(library).left == ()


def test_a_repair_that_was_killed_between_two_renames_goes_on(library: Library) -> None:
    damage(first(library.index, "segments.lance/data/*.lance"), "cut")
    moved = library.index / "damaged" / "2026-01-01_00-00-00" / "segments.lance"
    moved.parent.mkdir(parents=True)
    (library.index / "segments.lance").rename(moved)
    put_back(library.index)
    assert (library.index / "segments.lance").is_dir()
    moved.parent.mkdir(parents=True, exist_ok=True)
    (library.index / "segments.lance").rename(moved)
    assert repaired(library).after.whole
    assert found_videos(VideoIndex.open(library.index)) == library.names


def test_an_index_without_checksums_is_read_and_then_recorded(library: Library) -> None:
    (library.index / CHECKSUMS).unlink()
    report = check_index(library.index)
    assert (report.whole, report.not_recorded) == (True, report.files)
    assert check_index(library.index).not_recorded == 0

    (library.index / CHECKSUMS).unlink()
    table = Store(library.index).table(SEGMENTS)
    row = table.search().limit(1).to_arrow().to_pylist()[0]
    vector = [2 * float(number) for number in row["vector"]]
    table.update(where=f"video_id = '{row['video_id']}' AND number = {row['number']}", values={"vector": vector})
    (wrong,) = check_index(library.index).damage
    assert "1 rows whose vector is not of unit length" in wrong.wrong
    assert not (library.index / CHECKSUMS).exists(), "damage is not recorded as whole"


def test_every_changed_number_of_a_vector_is_found(library: Library) -> None:
    data = data_in_force(library.index, SEGMENTS)
    content = data.read_bytes()
    for seed in range(8):
        damage(data, "bit", seed=seed)
        assert [one.file for one in check_index(library.index).damage] == [data]
        data.write_bytes(content)


def test_damage_is_not_compacted_into_a_new_file(library: Library) -> None:
    damage(first(library.index, "segments.lance/data/*.lance"), "bit")
    wrong = r"segments\.lance.*has other content than its checksum.*--repair"
    with Writer(Store(library.index)) as writer, pytest.raises(VideoIndexError, match=wrong):
        writer._optimize(SEGMENTS)


def test_a_zeroed_version_is_never_written_to(library: Library) -> None:
    newest = first(library.index, "videos.lance/_versions/*.manifest")
    newest.write_bytes(bytes(newest.stat().st_size))
    before = files_of_index(library.index)
    with pytest.raises(VideoIndexError, match=rf"{newest} is missing or damaged: impart doctor --repair"):
        list(VideoIndex.open(library.index).add([library.films]))
    assert files_of_index(library.index) == before


def test_both_manifests_lost_is_said_and_nothing_changed(library: Library) -> None:
    for name in ("manifest.json", "manifest.copy.json"):
        (library.index / name).write_bytes(b"")
    report = check_index(library.index)
    assert [(one.file.name, one.needs) for one in report.damage] == [
        ("manifest.copy.json", "person"),
        ("manifest.json", "person"),
    ]
    with pytest.raises(VideoIndexError, match="Nothing was changed"):
        repaired(library)


def test_an_index_that_is_being_written_is_not_checked(library: Library) -> None:
    with write_lock(library.index), pytest.raises(VideoIndexError, match="another process is writing"):
        check_index(library.index)


def test_a_repair_keeps_the_vectors_of_the_other_videos(library: Library, made: Library) -> None:
    damage(first(library.index, "segments.lance/data/*.lance"), "bit")
    repaired(library)
    old, new = (VideoIndex.open(path).searcher.current() for path in (made.index, library.index))
    assert old.paths == new.paths
    np.testing.assert_array_equal(old.vectors, new.vectors)
