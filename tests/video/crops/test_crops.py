"""Crops: made for an index, kept in step with it, and used for the presence of names."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from helpers.clips import quarters, solid, write_clip, write_frames
from helpers.snapshots import make_snapshot
from helpers.tiny_encoder import TinyEncoder
from impart.errors import VideoIndexError
from impart.video.crops.encoding import CropsMade, parts_of
from impart.video.crops.presence import KnownCrops
from impart.video.crops.store import CropStore
from impart.video.index.index import VideoIndex
from impart.video.names.presence import Background, Detector


def add(index: VideoIndex, *paths: Path, prune: bool = False) -> None:
    for _ in index.add(paths, prune=prune):
        pass


def made(index: VideoIndex) -> list[CropsMade]:
    return list(index.add_crops())


@pytest.fixture
def films(tmp_path: Path) -> Path:
    folder = tmp_path / "films"
    folder.mkdir()
    write_clip(folder / "a.mp4", colours=["red", "green"], seconds_each=1)
    write_frames(folder / "b.mp4", [quarters()] * 8, times_s=[i / 4 for i in range(8)])
    return folder


def test_parts_are_the_corners_and_the_centre() -> None:
    image = quarters(size=(100, 50))
    parts = parts_of(image)
    assert [part.shape for part in parts] == [(30, 60, 3)] * 5
    for part, (row, column) in zip(parts, [(0, 0), (0, -1), (-1, 0), (-1, -1)], strict=False):
        assert (part[row, column] == image[row, column]).all()
    assert [part.shape for part in parts_of(np.zeros((1, 2, 3), np.uint8))] == [(1, 1, 3)] * 5


def test_each_segment_has_five_and_a_second_run_makes_none(films: Path, tmp_path: Path) -> None:
    encoder = TinyEncoder()
    index = VideoIndex.open(tmp_path / "index", encoder)
    add(index, films)
    events = made(index)
    assert [event.path.name for event in events if event.done == event.total] == ["b.mp4", "b.mp4"]
    assert not any(event.problem for event in events)
    records, store = index.videos(), CropStore(tmp_path / "index")
    for record in records:
        rows = store.load(f"{record.video_id}-{record.revision}")
        assert rows is not None
        assert rows.shape == (record.segments, 5, 8)
        assert rows.dtype == np.float16
    assert index.stats().with_crops == 2
    before = encoder.images_encoded
    assert made(index) == []
    assert encoder.images_encoded == before


def test_a_stopped_run_continues(films: Path, tmp_path: Path) -> None:
    index = VideoIndex.open(tmp_path / "index", TinyEncoder())
    add(index, films)
    run = index.add_crops()
    first = next(event for event in run if event.path.name == "b.mp4")
    run.close()  # type: ignore[attr-defined]
    assert first.problem is None
    assert index.stats().with_crops == 1
    assert {event.path.name for event in made(index)} == {"b.mp4"}


def test_crops_of_removed_and_changed_videos_are_deleted_and_those_of_a_copy_taken(films: Path, tmp_path: Path) -> None:
    encoder = TinyEncoder()
    index = VideoIndex.open(tmp_path / "index", encoder)
    add(index, films)
    made(index)
    (films / "a.mp4").unlink()
    write_clip(films / "b.mp4", colours=["blue", "white"], seconds_each=1)
    os.utime(films / "b.mp4", ns=(1, 1))
    add(index, films, prune=True)
    add(index, films, prune=True)
    assert not any((tmp_path / "index" / "crops").iterdir())
    assert index.stats().with_crops == 0
    made(index)
    (films / "c.mp4").write_bytes((films / "b.mp4").read_bytes())
    add(index, films)
    before = encoder.images_encoded
    assert [event.problem for event in made(index)] == [None]
    assert encoder.images_encoded == before
    assert index.stats().with_crops == 2


def test_a_file_that_is_gone_is_reported_and_the_others_are_made(films: Path, tmp_path: Path) -> None:
    index = VideoIndex.open(tmp_path / "index", TinyEncoder())
    add(index, films)
    (films / "a.mp4").unlink()
    assert [event.path.name for event in made(index) if event.problem] == ["a.mp4"]
    write_clip(films / "a.mp4", colours=["red"], seconds_each=1)  # another video than the one that was indexed
    assert ["not those in the index" in (event.problem or "") for event in made(index)][-1]
    assert index.stats().with_crops == 1


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    store = CropStore(tmp_path)
    store.save("0-r", np.zeros((2, 5, 4), np.float16))
    (tmp_path / "crops" / "0-r.npy").write_bytes(b"no")
    with pytest.raises(VideoIndexError, match=r"0-r\.npy is damaged"):
        store.load("0-r")
    assert store.load("1-r") is None


def test_a_part_raises_presence_and_videos_without_crops_stay(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = rng.standard_normal((40, 32)).astype(np.float32)
    snapshot = make_snapshot(frames, lengths=[20, 20], retrieval=frames)
    store = CropStore(tmp_path)
    crops = rng.standard_normal((20, 5, 32)).astype(np.float16)
    thing = rng.standard_normal((1, 32)).astype(np.float32)
    crops[7, 3] = thing[0]
    store.save("0-r", crops)
    store.save("5-r", crops)  # of a video that is gone
    background = Background.of(frames, rng.standard_normal((300, 32)))
    detector = Detector.of(thing, background)
    known = KnownCrops(store, snapshot)
    for _ in range(2):  # the second time with kept lengths
        z_scores = known.z_scores(detector)
        assert int(z_scores.argmax()) == 7
        assert z_scores[7] > detector.cut_z > detector.z_scores(frames).max()
        assert (z_scores[20:] == -1000).all()
    wrong = detector.z_scores(crops[3].astype(np.float32))
    assert z_scores[3] == pytest.approx(wrong.max() - min(2, 0.4 * detector.cut_z), abs=1e-3)


def test_crops_of_an_older_revision_do_not_count(tmp_path: Path) -> None:
    frames = np.eye(4, dtype=np.float32)
    snapshot = make_snapshot(frames, retrieval=frames)
    object.__setattr__(snapshot, "revisions", ("newer",))
    store = CropStore(tmp_path)
    store.save("0-older", np.ones((4, 5, 4), np.float16))
    detector = Detector.of(frames[:1], Background.of(frames))
    assert (KnownCrops(store, snapshot).z_scores(detector) == -1000).all()


def test_names_profit_at_once_also_in_an_index_that_is_open(films: Path, tmp_path: Path) -> None:
    encoder = TinyEncoder()
    index = VideoIndex.open(tmp_path / "index", encoder)
    colours = ["grey", "yellow", "cyan", "blue", "green", "white"]
    add(index, films, write_clip(tmp_path / "other.mp4", colours=colours, seconds_each=1))
    index.names.add("Rex", [solid("magenta")])
    before = index.names.prepared().presence("Rex")
    made(index)
    (film,) = (record for record in index.videos() if record.path.name == "a.mp4")
    rows = encoder.encode_images([solid("magenta")]).retrieval.astype(np.float16)
    crops = np.tile(rows, (film.segments, 5, 1)).reshape(film.segments, 5, -1)
    CropStore(tmp_path / "index").save(f"{film.video_id}-{film.revision}", crops)  # as if each frame showed it
    after = index.names.prepared().presence("Rex")
    assert (after[: film.segments] >= 0.5).all()
    assert (before < 0.5).all()
    assert after[film.segments :] == pytest.approx(before[film.segments :], abs=0.2)
