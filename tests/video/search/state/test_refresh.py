"""A searcher that keeps its state: what it answers before and after a refresh, and that nothing is read again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.clips import write_clip
from helpers.colour_references import colour_set
from helpers.tiny_encoder import TinyEncoder
from impart.blending.encoder import augment
from impart.config import Group
from impart.retrieval.hubness import CaptionBank
from impart.video.index.index import Hit, Query, VideoIndex
from impart.video.index.manifest import IndexManifest
from impart.video.index.store import TableGoneError
from impart.video.names.presence import Detector
from impart.video.search.snapshot import Snapshot
from impart.video.search.state import in_force, load, shard, tables
from impart.video.search.state.choice import choice_of
from impart.video.search.state.derived import Derived
from impart.video.search.state.load import load_snapshot

COLOURS = ("red", "green", "blue", "white", "black", "yellow")


def film(folder: Path, number: int) -> Path:
    colours = [COLOURS[number % 6], "grey", COLOURS[(number + 1) % 6]]
    return write_clip(folder / f"{number}.mp4", colours=colours, seconds_each=0.75 + number / 4)


@pytest.fixture
def captions(monkeypatch: pytest.MonkeyPatch) -> CaptionBank:
    """A model with captions: scores of texts are corrected for hubs."""
    bank = CaptionBank(TinyEncoder().encode_texts(["red", "blue"]))
    monkeypatch.setattr(in_force, "bundled_bank", lambda _encoder: bank)
    return bank


def opened(folder: Path) -> VideoIndex:
    return VideoIndex.open(folder / "index", augment(TinyEncoder(), colour_set(), k=3))


def add(folder: Path, **keywords: Any) -> None:
    """Index the folder as another process does."""
    for _ in opened(folder).add([folder / "films"], **keywords):
        pass


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "films").mkdir()
    for number in (0, 2, 4, 6):
        film(tmp_path / "films", number)
    add(tmp_path)
    return tmp_path


def same(one: Snapshot, other: Snapshot) -> None:
    """Assert that two snapshots have the same contents."""
    assert (one.video_ids, one.paths, one.revisions, one.kinds) == (
        other.video_ids,
        other.paths,
        other.revisions,
        other.kinds,
    )
    for name in ("offsets", "scenes", "start_s", "end_s", "weight", "vectors", "scene_start_s", "scene_end_s"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    for name in ("durations_s", "recorded_at", "modified_at", "retrieval"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert one.blend is not None
    assert other.blend is not None
    for name in ("ids", "img", "txt", "norm"):
        np.testing.assert_array_equal(getattr(one.blend, name), getattr(other.blend, name), err_msg=name)


def test_a_held_state_answers_until_the_refresh(folder: Path, captions: CaptionBank) -> None:
    index = opened(folder)
    before = index.search(text="green", top=20)
    index.searcher.state.hold()
    film(folder / "films", 1)
    add(folder)
    assert index.search(text="green", top=20) == before
    assert not index.searcher.state.is_current
    assert index.searcher.state.refresh()
    assert index.searcher.state.is_current
    after = index.search(text="green", top=20)
    assert after == opened(folder).search(text="green", top=20)
    assert len(after) == len(before) + 1
    assert not index.searcher.state.refresh()


def test_a_removed_video_is_found_until_the_refresh(folder: Path) -> None:
    index = opened(folder)
    index.searcher.state.hold()
    assert "2.mp4" in [hit.path.name for hit in index.search(text="blue", top=20)]
    (folder / "films" / "2.mp4").unlink()
    add(folder, prune=True)
    assert "2.mp4" in [hit.path.name for hit in index.search(text="blue", top=20)]
    index.searcher.state.refresh()
    assert "2.mp4" not in [hit.path.name for hit in index.search(text="blue", top=20)]


def test_another_reference_set_is_in_force_after_the_refresh(folder: Path) -> None:
    index = VideoIndex.open(folder / "index", TinyEncoder())
    before = index.search(text="red", top=20)
    index.searcher.state.hold()
    opened(folder).use_references(None)
    assert index.search(text="red", top=20) == before
    index.searcher.state.refresh()
    after = index.search(text="red", top=20)
    assert after == VideoIndex.open(folder / "index", TinyEncoder()).search(text="red", top=20)
    assert [hit.score for hit in after] != [hit.score for hit in before]


def test_only_changed_videos_are_read(folder: Path, captions: CaptionBank, monkeypatch: pytest.MonkeyPatch) -> None:
    """Added, replaced and removed at once; arrays equal those of a snapshot that is read as a whole."""
    index = opened(folder)
    index.search(text="red")
    index.searcher.state.hold()
    index.searcher.state.refresh()
    index.searcher.state.prepare_frames()
    for number in (1, 7):
        film(folder / "films", number)
    write_clip(folder / "films" / "4.mp4", colours=["yellow"], seconds_each=1)
    (folder / "films" / "0.mp4").unlink()
    add(folder, prune=True)
    read: list[int] = []
    from_tables = load.from_tables

    def counted(*given: Any, only: Any = None) -> Snapshot:
        read.append(-1 if only is None else len(only))
        return from_tables(*given, only=only)

    monkeypatch.setattr(load, "from_tables", counted)
    monkeypatch.setattr(load, "from_cache", lambda *_: None)
    old = index.searcher.state._derived
    assert old is not None
    joined = load_snapshot(index._store, old=old.snapshot)
    assert read == [3]
    whole = load_snapshot(index._store)
    assert read == [3, -1]
    same(joined, whole)
    assert [shard.name for shard in choice_of(joined).shards[:-1]] == [one.name for one in old.choice.shards]
    assert np.flatnonzero(choice_of(joined).shard_of == len(old.choice.shards)).tolist() == [0, 2, 4]

    encoder = index.encoder
    taken, made = Derived(joined), Derived(whole)
    computed = counting(monkeypatch, "group_sums", "frame_hubness")
    for one in (taken, made):
        one.warm(encoder=encoder, bank=captions)  # type: ignore[arg-type]
        one.warm_frames(encoder=encoder, bank=captions)  # type: ignore[arg-type]
    new, every = len(choice_of(joined).shards[-1].snapshot), len(whole)
    assert computed == {"group_sums": [new, every], "frame_hubness": [new, every]}
    for name in ("bounds", "offsets", "scene_of", "scenes", "start_s", "end_s"):
        np.testing.assert_array_equal(getattr(taken.parts, name), getattr(made.parts, name), err_msg=name)
    one, other = taken.means(encoder), made.means(encoder)  # type: ignore[arg-type]
    np.testing.assert_array_equal(one.units.offsets, other.units.offsets)
    np.testing.assert_array_equal(one.units.of_part, other.units.of_part)
    np.testing.assert_allclose(one.units.means, other.units.means, atol=1e-6)
    np.testing.assert_allclose(one.parts, other.parts, atol=1e-6)
    np.testing.assert_allclose(one.videos, other.videos, atol=1e-6)
    for kind in ("unit", "frame"):
        np.testing.assert_allclose(taken._hubness[kind, True][1], made._hubness[kind, True][1], atol=1e-6)


def counting(monkeypatch: pytest.MonkeyPatch, *names: str) -> dict[str, list[int]]:
    """Record of how many segments shards compute what."""
    found: dict[str, list[int]] = {name: [] for name in names}
    for name in names:
        real = getattr(shard, name)

        def counted(*given: Any, _real: Any = real, _name: str = name, **keywords: Any) -> Any:
            found[_name].append(len(next(one for one in given if isinstance(one, Snapshot))))
            return _real(*given, **keywords)

        monkeypatch.setattr(shard, name, counted)
    return found


def test_a_search_after_a_refresh_computes_nothing_for_the_whole_index(
    folder: Path, captions: CaptionBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = opened(folder)
    index.searcher.state.hold()
    index.searcher.state.refresh()
    index.searcher.state.prepare_frames()
    for name in ("derived.group_means", "derived.copy_bound", "shard.group_sums", "shard.frame_hubness"):
        monkeypatch.setattr(f"impart.video.search.state.{name}", lambda *_, **__: 1 / 0)
    assert index.search(text="red")
    assert index.search(text="red") == index.search(text="red")


def test_many_queries_in_one_call_have_the_hits_of_single_ones(folder: Path, captions: CaptionBank) -> None:
    index = opened(folder)
    queries = [Query(text=colour, not_text=["black"] * (number % 2)) for number, colour in enumerate(COLOURS * 2)]
    groups: tuple[Group, ...] = ("video", "moment", "scene")
    for group in groups:
        together = index.search_many(queries, group=group, top=100, fold_copies=False)
        for query, of_query in zip(queries, together, strict=True):
            (alone,) = index.search_many([query], group=group, top=100, fold_copies=False)
            assert [hit.score for hit in of_query] == pytest.approx([hit.score for hit in alone], abs=2e-6)
            assert sorted(spans(of_query)) == sorted(spans(alone))  # equal scores may change places


def test_a_text_that_is_encoded_ahead_is_not_encoded_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index, calls = opened(folder), []
    real = TinyEncoder.encode_texts
    index.search(text="blue")
    monkeypatch.setattr(TinyEncoder, "encode_texts", lambda self, texts: calls.append(texts) or real(self, texts))
    index.searcher.encode([Query(text="red")])
    assert len(calls) == 1
    assert index.search(text="red")  # with a reference set in force
    assert index.search(text="red", augment=False)
    assert len(calls) == 1


def spans(hits: list[Hit]) -> list[Any]:
    """All of the hits but scores, whose last digit depends on how a product is split."""
    return [
        (hit.path, hit.start_s, hit.end_s, hit.strong, [(one.start_s, one.end_s) for one in hit.moments])
        for hit in hits
    ]


def test_names_are_prepared_by_the_refresh(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = opened(folder)
    index.names.add("Carmine", [Image.new("RGB", (64, 64), "red")])
    index.searcher.state.hold()
    index.searcher.state.refresh()
    film(folder / "films", 1)
    add(folder)
    index.searcher.state.refresh()
    monkeypatch.setattr(Detector, "z_scores", lambda *_: 1 / 0)
    (hit, *_) = index.search(text="Carmine")
    assert hit.names == ("Carmine",)
    assert index.searcher.names_in([Query(text="Carmine in the rain"), Query(text="rain")]) == [("Carmine",), ()]


def test_everything_is_read_where_the_old_vectors_are_gone(folder: Path) -> None:
    """The retrieval embeddings of a snapshot are read when they are first used: a video was replaced before."""
    index = opened(folder)
    shutil.rmtree(folder / "index" / "cache")
    index.searcher.state.hold()
    old = index.searcher.state.current().snapshot
    write_clip(folder / "films" / "4.mp4", colours=["yellow"], seconds_each=1)
    add(folder)
    with pytest.raises(TableGoneError):
        len(old.retrieval)
    same(load_snapshot(index._store, old=old), load_snapshot(index._store))


def test_rows_of_a_new_video_are_read_from_the_end_of_a_table(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A filter reads the ids of all rows: only videos whose rows are elsewhere are found by one."""
    monkeypatch.setattr(tables, "_SPARE_ROWS", 0)
    film(folder / "films", 1)
    add(folder)
    store = opened(folder)._store
    wheres: list[str | None] = []
    read = store.read

    def counted(name: str, *, where: str | None = None, **given: Any) -> Any:
        wheres.append(where)
        return read(name, where=where, **given)

    monkeypatch.setattr(store, "read", counted)
    manifest, records = IndexManifest.load(store.folder), store.videos()
    assert [record.path.stem for record in records] == ["0", "1", "2", "4", "6"]
    whole = tables.from_tables(store, "", manifest)
    for number, elsewhere in ((1, False), (0, True)):  # 0 was written first, and 1 last
        wheres.clear()
        snapshot = tables.from_tables(store, "", manifest, only=[records[number]])
        rows = slice(*whole.offsets[number : number + 2].tolist())
        np.testing.assert_array_equal(snapshot.vectors, whole.vectors[rows])
        np.testing.assert_array_equal(snapshot.retrieval, whole.retrieval[rows])
        assert snapshot.blend is not None
        assert whole.blend is not None
        np.testing.assert_array_equal(snapshot.blend.ids, whole.blend.ids[rows])
        assert any(wheres) == elsewhere
