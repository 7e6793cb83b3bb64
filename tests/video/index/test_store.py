"""Tables, manifest, lock, clean-up."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.clips import write_clip
from helpers.colour_references import colour_set
from helpers.tiny_encoder import DIM, RETRIEVAL_DIM, TinyEncoder
from impart.blending.encoder import AugmentedEncoder
from impart.blending.vanilla import Vanilla
from impart.config import IndexSettings, Settings, VanillaSettings
from impart.errors import IndexLockedError, VideoIndexError
from impart.video.index import manifest as manifests
from impart.video.index.durable.lock import is_locked, write_lock
from impart.video.index.index import VideoIndex
from impart.video.index.manifest import IndexManifest
from impart.video.index.store import SEGMENTS, Store, VideoRecord, path_id
from impart.video.index.writer import SegmentChunk, Writer, _worth_compacting
from impart.video.search.state.load import load_snapshot


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty index without a reference set."""
    index = VideoIndex.open(tmp_path / "index", TinyEncoder())
    list(index.add([]))
    return Store(index.path)


def record_of(path: Path, segments: int, revision: str = "r1") -> VideoRecord:
    return VideoRecord(
        video_id=path_id(path),
        revision=revision,
        path=path,
        size_bytes=1,
        mtime_ns=2,
        content_hash="c",
        duration_s=segments / 4,
        width=4,
        height=3,
        codec="h264",
        container="mp4",
        fps=25.0,
        samples=segments,
        segments=segments,
        scene_starts=(0,),
        problem=None,
        indexed_at=0.0,
    )


def chunk_of(first: int, count: int, value: float = 1.0) -> SegmentChunk:
    return SegmentChunk(
        first=first,
        start_s=np.arange(first, first + count) / 4,
        end_s=np.arange(first + 1, first + count + 1) / 4,
        weight=np.ones(count, np.int32),
        vectors=np.full((count, DIM), value, np.float16),
        retrieval=np.full((count, RETRIEVAL_DIM), value, np.float16),
        blend=None,
    )


def test_rows_are_visible_after_the_commit_and_replace_the_older_ones_then(store: Store) -> None:
    record = record_of(Path("/a.mp4"), 5)
    reader = Store(store.folder)
    with Writer(store) as writer:
        writer.add_segments(record.video_id, "r1", chunk_of(0, 3))
        writer.add_segments(record.video_id, "r1", chunk_of(3, 2))
        assert len(load_snapshot(reader)) == 0
        writer.commit(record)
        assert reader.videos() == [record]
        assert load_snapshot(reader).start_s.tolist() == [0, 0.25, 0.5, 0.75, 1]

        changed = record_of(Path("/a.mp4"), 2, "r2")
        writer.add_segments(record.video_id, "r2", chunk_of(0, 2, 7.0))
        assert len(load_snapshot(reader)) == 5
        writer.commit(changed)
        after = load_snapshot(reader)
        assert len(after) == 2
        assert np.all(after.vectors == 7)
    assert reader.table(SEGMENTS).count_rows() == 2


def test_what_an_interrupted_run_left_is_deleted_by_the_next_writer(store: Store) -> None:
    kept, half = record_of(Path("/kept.mp4"), 2), record_of(Path("/half.mp4"), 9)
    with Writer(store) as writer:
        writer.add_segments(kept.video_id, "r1", chunk_of(0, 2))
        writer.commit(kept)
        writer.add_segments(half.video_id, "r1", chunk_of(0, 4))
        writer.add_segments(kept.video_id, "r2", chunk_of(0, 4))
    assert store.read(SEGMENTS).num_rows == 10
    assert len(load_snapshot(store)) == 2
    with Writer(store):
        pass
    assert store.read(SEGMENTS).num_rows == 2
    assert store.videos() == [kept]


def test_names_that_are_not_text_survive(store: Store) -> None:
    path = Path(os.fsdecode(b"/films/caf\xe9 \xff'\"\n.mp4"))
    record = record_of(path, 1)
    with Writer(store) as writer:
        writer.add_segments(record.video_id, "r1", chunk_of(0, 1))
        writer.commit(record)
        writer.remember_failure(path.with_name("x"), size_bytes=1, mtime_ns=2, reason="why\nnot")
        writer.remember_failure(path, size_bytes=1, mtime_ns=2, reason="first")
        assert writer.remember_failure(path, size_bytes=1, mtime_ns=2, reason="second").attempts == 2
    assert store.videos()[0].path == path
    assert {failure.reason for failure in store.failures()} == {"why\nnot", "second"}
    with Writer(store) as writer:
        writer.forget_failures([path])
        writer.remove([record])
    assert [failure.path for failure in store.failures()] == [path.with_name("x")]
    assert store.videos() == []
    assert store.read(SEGMENTS).num_rows == 0


def test_one_writer_at_a_time(store: Store) -> None:
    with Writer(store):
        with pytest.raises(IndexLockedError, match=r"index.*wait until"), Writer(Store(store.folder)):
            pass
        assert VideoIndex.open(store.folder, TinyEncoder()).search(text="red") == []
    with Writer(Store(store.folder)):
        pass


def test_a_full_disk_is_an_error_of_the_index(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def add(self, rows: Any) -> None:
            raise OSError(28, "No space left on device")

    with Writer(store) as writer:
        monkeypatch.setitem(writer._tables, SEGMENTS, Full())
        with pytest.raises(VideoIndexError, match=r"No space left on device.*kept"):
            writer.add_segments("a", "b", chunk_of(0, 1))


def test_float32_is_kept_exactly(tmp_path: Path) -> None:
    film = write_clip(tmp_path / "f.mp4", colours=["orange"])
    settings = Settings(index=IndexSettings(precision="float32"))
    index = VideoIndex.open(tmp_path / "index", TinyEncoder(), settings=settings)
    list(index.add(film))
    snapshot = load_snapshot(Store(index.path))
    assert snapshot.vectors.dtype == np.float32
    assert np.linalg.norm(snapshot.vectors, axis=1) == pytest.approx(1, abs=1e-6)


def test_a_newer_schema_and_foreign_folders_are_refused(store: Store, tmp_path: Path) -> None:
    path = store.folder / "manifest.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"schema": 2}))
    with pytest.raises(VideoIndexError, match="newer impart"):
        VideoIndex.open(store.folder)
    path.write_text(json.dumps({"some": "thing"}))
    with pytest.raises(VideoIndexError, match="is not a video index"):
        VideoIndex.open(store.folder)
    path.write_text("{")
    with pytest.raises(VideoIndexError, match=r"manifest\.json"):
        VideoIndex.open(store.folder)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "x.jpg").touch()
    with pytest.raises(VideoIndexError, match=r"x\.jpg"):
        list(VideoIndex.open(tmp_path / "photos", TinyEncoder()).add([]))


def test_migrations_run_in_order_when_a_writer_opens(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def one(folder: Path, values: dict[str, Any]) -> dict[str, Any]:
        calls.append((folder, values["schema"]))
        return values

    monkeypatch.setattr(manifests, "SCHEMA", 3)
    monkeypatch.setattr(manifests, "MIGRATIONS", {1: one, 2: one})
    with pytest.raises(VideoIndexError, match="migrate it with impart index"):
        IndexManifest.load(store.folder)
    with Writer(store) as writer:
        assert writer.manifest.schema == 3
    assert calls == [(store.folder, 1), (store.folder, 2)]


def test_the_manifest_names_encoder_settings_and_reference_set(tmp_path: Path) -> None:
    encoder = AugmentedEncoder(TinyEncoder(), colour_set(), Vanilla(VanillaSettings(k=4)))
    index = VideoIndex.open(tmp_path / "index", encoder)
    list(index.add([]))
    values = json.loads((index.path / "manifest.json").read_text())
    assert values["schema"] == 1
    assert (values["encoder_id"], values["dim"], values["retrieval_dim"]) == ("tiny", DIM, RETRIEVAL_DIM)
    assert values["augmentation"]["settings"]["k"] == 4
    assert (index.path / values["augmentation"]["folder"] / "manifest.json").is_file()
    assert (index.path / f"{values['augmentation']['table']}.lance").is_dir()
    assert {"impart", "lancedb", "av"} <= values["versions"].keys()
    manifest = IndexManifest.load(index.path)
    assert dataclasses.replace(manifest) == manifest
    assert str(tmp_path) not in json.dumps(values)


def test_compaction_waits_until_it_pays() -> None:
    def stats(fragments: int, rows: int, largest: int) -> dict[str, Any]:
        return {"num_rows": rows, "fragment_stats": {"num_fragments": fragments, "lengths": {"max": largest}}}

    assert not _worth_compacting(stats(5, 500, 100))
    assert _worth_compacting(stats(40, 4000, 100))
    assert not _worth_compacting(stats(40, 1_000_000, 990_000))
    assert _worth_compacting(stats(512, 1_000_000, 990_000))


def test_a_disk_without_hard_links_is_refused_before_anything_is_written(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    before = sorted(tmp_path.rglob("*"))
    new = VideoIndex.open(tmp_path / "a" / "new", TinyEncoder())
    with pytest.raises(VideoIndexError, match=r"without hard links.*--index ~/"):
        list(new.add([]))
    old = VideoIndex.open(store.folder, TinyEncoder())
    with pytest.raises(VideoIndexError, match="can be searched, but not changed"):
        list(old.add([tmp_path]))
    assert old.search(text="red") == []
    assert sorted(tmp_path.rglob("*")) == before


def test_a_lock_that_is_held_is_seen_and_the_test_for_it_stops_no_writer(tmp_path: Path) -> None:
    assert not is_locked(tmp_path)
    assert list(tmp_path.iterdir()) == [], "asking leaves no file"
    with write_lock(tmp_path):
        assert is_locked(tmp_path)
        with pytest.raises(IndexLockedError), write_lock(tmp_path):
            pass
    assert not is_locked(tmp_path)
