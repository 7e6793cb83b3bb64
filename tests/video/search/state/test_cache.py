"""The cache of an index: what a commit writes, what is merged, and that searches see no difference."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.caches import is_cached
from helpers.clips import write_clip
from helpers.colour_references import colour_set
from helpers.tiny_encoder import TinyEncoder
from impart.blending.encoder import augment
from impart.retrieval.hubness import CaptionBank
from impart.video.index.index import VideoIndex
from impart.video.index.store import Store
from impart.video.index.writer import Writer
from impart.video.search.snapshot import Snapshot
from impart.video.search.state import cache, in_force, shard
from impart.video.search.state.cache import from_cache
from impart.video.search.state.layout import Layout
from impart.video.search.state.load import load_snapshot
from impart.video.search.state.shard_files import map_arrays

COLOURS = ("red", "green", "blue", "white", "black", "yellow")


@pytest.fixture
def captions(monkeypatch: pytest.MonkeyPatch) -> CaptionBank:
    """A model with captions: scores of texts are corrected for hubs."""
    bank = CaptionBank(TinyEncoder().encode_texts(["red", "blue"]))
    monkeypatch.setattr(in_force, "bundled_bank", lambda _encoder: bank)
    return bank


def film(folder: Path, number: int, *, seconds: float = 1.0) -> Path:
    colours = [COLOURS[number % 6], "grey", COLOURS[(number + 1) % 6]]
    return write_clip(folder / f"{number}.mp4", colours=colours, seconds_each=seconds + number / 8)


def opened(folder: Path) -> VideoIndex:
    return VideoIndex.open(folder / "index", augment(TinyEncoder(), colour_set(), k=3))


def add(folder: Path, **keywords: Any) -> None:
    """Index the folder as another process does."""
    for _ in opened(folder).add([folder / "films"], **keywords):
        pass


@pytest.fixture
def folder(tmp_path: Path, captions: CaptionBank) -> Path:
    (tmp_path / "films").mkdir()
    for number in (0, 2, 4, 6):
        film(tmp_path / "films", number)
    add(tmp_path)
    return tmp_path


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode and size of each file of the cache."""
    return {
        path.name: (path.stat().st_ino, path.stat().st_size)
        for path in (folder / "index" / "cache").iterdir()
        if path.name != "layout.json"
    }


def same_as_tables(folder: Path) -> Snapshot:
    """Assert that the cache is up to date, and gives what the tables give; return its snapshot."""
    index = opened(folder)
    assert is_cached(index)
    bare = shutil.copytree(index.path, folder / "bare", ignore=shutil.ignore_patterns("cache"))
    cached, read = load_snapshot(Store(index.path)), load_snapshot(Store(bare))
    assert cached.paths == read.paths
    for name in ("video_ids", "revisions", "kinds"):
        assert getattr(cached, name) == getattr(read, name)
    for name in ("offsets", "scenes", "start_s", "end_s", "weight", "vectors", "scene_start_s", "scene_end_s"):
        np.testing.assert_array_equal(getattr(cached, name), getattr(read, name), err_msg=name)
    for name in ("durations_s", "recorded_at", "modified_at", "retrieval"):
        np.testing.assert_array_equal(getattr(cached, name), getattr(read, name), err_msg=name)
    for name in ("ids", "img", "txt", "norm"):
        np.testing.assert_array_equal(getattr(cached.blend, name), getattr(read.blend, name), err_msg=name)
    other = VideoIndex.open(bare, TinyEncoder())
    for options in ({}, {"group": "moment"}, {"group": "scene"}, {"by": "mean"}, {"by": "frame"}, {"augment": False}):
        mine, theirs = (one.search(text="green", top=50, **options) for one in (index, other))  # type: ignore[arg-type]
        assert [(hit.path, hit.start_s, hit.end_s, hit.moments) for hit in mine] == [
            (hit.path, hit.start_s, hit.end_s, hit.moments) for hit in theirs
        ]
        assert [hit.score for hit in mine] == pytest.approx([hit.score for hit in theirs], abs=2e-6)
    shutil.rmtree(bare)
    return cached


def test_a_commit_writes_what_is_new_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_to_merge", lambda _sizes: [])
    before = files(folder)
    film(folder / "films", 3)
    computed: list[int] = []
    real = shard.group_sums
    monkeypatch.setattr(
        shard, "group_sums", lambda of, *rest, **named: computed.append(len(of)) or real(of, *rest, **named)
    )
    add(folder)
    after = files(folder)
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 2
    snapshot = same_as_tables(folder)
    (video,) = [number for number, path in enumerate(snapshot.paths) if path.name == "3.mp4"]
    assert computed[0] == snapshot.offsets[video + 1] - snapshot.offsets[video]
    assert 0 < video < 4  # between the others


def test_a_run_without_changes_writes_nothing(folder: Path) -> None:
    layout = folder / "index" / "cache" / "layout.json"
    before = files(folder), layout.stat().st_ino
    add(folder)
    assert (files(folder), layout.stat().st_ino) == before


def test_moved_touched_changed_and_removed_videos(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_DEAD", 1.0)
    monkeypatch.setattr(cache, "_to_merge", lambda _sizes: [])
    before, films = files(folder), folder / "films"
    (films / "0.mp4").rename(films / "9.mp4")
    (films / "2.mp4").touch()
    film(films, 4, seconds=2)
    (films / "6.mp4").unlink()
    add(folder, prune=True)
    snapshot = same_as_tables(folder)
    assert [path.name for path in snapshot.paths] == ["2.mp4", "4.mp4", "9.mp4"]
    assert set(before) < set(files(folder))
    layout = Layout.read(folder / "index" / "cache")
    assert layout is not None
    assert [(one.dead, sorted(one.changed)) for one in layout.shards] == [((2, 3), [0, 1]), ((), [])]
    film(films, 4)  # as it was at first
    add(folder)
    same_as_tables(folder)


def test_a_shard_of_which_a_third_is_gone_is_written_again(folder: Path) -> None:
    before = files(folder)
    for number in (2, 4):
        (folder / "films" / f"{number}.mp4").unlink()
    add(folder, prune=True)
    assert not set(before) & set(files(folder))
    assert len(files(folder)) == 2
    same_as_tables(folder)


def test_small_shards_are_merged_without_computing_anything_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merged = cache._Update._merge
    computed: list[Any] = []

    def checked(update: Any, shards: Any) -> Any:
        with monkeypatch.context() as patched:
            for name in ("group_sums", "frame_hubness", "split_scenes"):
                patched.setattr(shard, name, lambda *_, **__: computed.append(1))
            return merged(update, shards)

    monkeypatch.setattr(cache._Update, "_merge", checked)
    counts = []
    for number in (1, 3, 5, 7):
        film(folder / "films", number)
        add(folder)
        counts.append(len(files(folder)) // 2)
    same_as_tables(folder)
    assert not computed
    assert max(counts) <= 3
    assert counts != [2, 3, 4, 5]


@pytest.mark.parametrize("seed", range(3))
def test_each_segment_is_written_a_few_times_alone(seed: int) -> None:
    """Of 3,000 commits of different sizes, shards stay few, and each segment is written about log(n) times."""
    rng = np.random.default_rng(seed)
    sizes: list[int] = []
    written = added = 0
    for _ in range(3000):
        new = int(rng.integers(1, 60)) if rng.random() < 0.95 else int(rng.integers(1000, 9000))
        sizes.append(new)
        added, written = added + new, written + new
        group = cache._to_merge(sizes)
        if group:
            total = sum(sizes[number] for number in group)
            assert total <= cache.MOST_SEGMENTS
            sizes = [size for number, size in enumerate(sizes) if number not in group] + [total]
            written += total
        assert len(sizes) <= 15 + 2 * added / cache.MOST_SEGMENTS
    assert written <= 10 * added


def test_another_set_leaves_the_base_arrays_alone(folder: Path) -> None:
    def of(suffix: bool) -> dict[str, Any]:
        return {name: value for name, value in files(folder).items() if name.endswith(".base") == suffix}

    film(folder / "films", 3)
    write_clip(folder / "films" / "2.mp4", colours=["yellow"], seconds_each=2)  # its old rows are dead in a shard
    add(folder)
    base, sets = of(True), of(False)
    index = VideoIndex.open(folder / "index", TinyEncoder())
    index.use_references(None)
    assert (of(True), set(sets) & set(of(False))) == (base, set())
    assert all(name.endswith(".plain") for name in of(False))
    assert is_cached(index)
    index.use_references(colour_set(), augment(TinyEncoder(), colour_set(), k=3).blender.settings)  # type: ignore[arg-type]
    assert of(True) == base
    assert set(of(False)) == set(sets)
    same_as_tables(folder)


def test_a_layout_of_an_earlier_commit_spares_reading_everything(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk was full when the cache should have been written."""
    from impart.video.search.state import load

    film(folder / "films", 3)
    with monkeypatch.context() as patched:
        patched.setattr(cache, "write_base", lambda *_: (_ for _ in ()).throw(OSError("no space left on device")))
        add(folder)
    index = opened(folder)
    assert not is_cached(index)
    read: list[Any] = []
    real = load.from_tables
    monkeypatch.setattr(load, "from_tables", lambda *given, only: read.append(only) or real(*given, only=only))
    hits = index.search(text="white")
    assert [[record.path.name for record in only] for only in read] == [["3.mp4"]]
    add(folder)
    same_as_tables(folder)
    assert opened(folder).search(text="white") == hits


def test_files_of_older_versions_and_of_nobody_are_deleted(folder: Path) -> None:
    old = folder / "index" / "cache" / "0123456789abcdef"
    old.mkdir()
    (old / "vectors.npy").write_bytes(b"x")
    (folder / "index" / "cache" / "feedfeedfeedfeed.base").write_bytes(b"x")
    before = files(folder)
    hits = opened(folder).search(text="red")
    add(folder)
    assert set(before) - set(files(folder)) == {old.name, "feedfeedfeedfeed.base"}
    assert opened(folder).search(text="red") == hits


def test_a_shard_of_another_encoder_is_not_taken(folder: Path) -> None:
    layout = folder / "index" / "cache" / "layout.json"
    index = opened(folder)
    fingerprint = index.manifest.encoder_fingerprint
    layout.write_text(layout.read_text().replace(fingerprint, "1" * len(fingerprint)))
    assert from_cache(Store(index.path), index.manifest) is None
    assert index.search(text="red")


def test_a_new_version_of_captions_is_noticed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bank = CaptionBank(TinyEncoder().encode_texts(["green"]))
    monkeypatch.setattr(in_force, "bundled_bank", lambda _encoder: bank)
    add(folder)
    for path in (folder / "index" / "cache").iterdir():
        if path.suffix not in (".base", ".json"):
            assert f"kept_unit_hubness_{bank.digest}" in (map_arrays(path) or {})
    same_as_tables(folder)


def test_a_reader_takes_new_shards_while_it_keeps_old_ones(folder: Path) -> None:
    index = opened(folder)
    index.search(text="red")
    index.searcher.state.hold()
    index.searcher.state.refresh()
    old = index.searcher.state.current().choice.shards
    for number in (11, 13):
        film(folder / "films", number)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(cache, "_to_merge", lambda _sizes: [])
        add(folder)
    index.searcher.state.refresh()
    new = index.searcher.state.current().choice.shards
    assert new[: len(old)] == old
    assert len(new) == len(old) + 1
    assert index.search(text="red", top=50) == opened(folder).search(text="red", top=50)


def test_the_keys_of_rows_are_read_only_after_an_interruption(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[int] = []
    real = Writer._check_rows
    monkeypatch.setattr(Writer, "_check_rows", lambda self: checked.append(1) or real(self))
    film(folder / "films", 3)
    add(folder)
    assert not checked
    film(folder / "films", 5)
    run = opened(folder).add([folder / "films"])
    while type(next(run)).__name__ != "VideoDone":
        pass
    run.close()  # as by an interruption
    add(folder)
    assert checked == [1]
    data = folder / "index" / "segments.lance" / "data"
    add(folder)
    assert checked == [1]
    (folder / "index" / "closed.json").write_text("{")
    add(folder)
    assert checked == [1, 1]
    moved = next(data.iterdir())
    moved.rename(folder / "lost")
    with pytest.raises(Exception, match=moved.name):
        add(folder)
    assert checked == [1, 1, 1]
