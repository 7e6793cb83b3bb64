"""Faces: found, joined to tracks, stored, matched and purged."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.clips import write_frames
from helpers.snapshots import make_snapshot
from helpers.tiny_encoder import TinyEncoder
from impart.errors import IndexLockedError, MissingExtraError, VideoIndexError
from impart.video.faces import examples, finding
from impart.video.faces.detector import Face
from impart.video.faces.finding import find_in_videos
from impart.video.faces.in_index import FaceTracks
from impart.video.faces.matching import combine, example_faces, face_presence, tracks
from impart.video.faces.store import FaceStore, VideoFaces
from impart.video.index.durable.lock import write_lock
from impart.video.index.index import VideoIndex
from impart.video.names import taught

needs_dlib = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("dlib", "face_recognition_models", "skimage")),
    reason="needs the extras faces and demo",
)
A, B = np.zeros(128, np.float32), np.full(128, 0.2, np.float32)  # 2.26 apart


def faces_of(*rows: tuple[str, float, np.ndarray], searched: tuple[str, ...] = ("0", "1")) -> VideoFaces:
    return VideoFaces(
        searched=frozenset((video, "r") for video in searched),
        keys=tuple((video, "r") for video, _, _ in rows),
        start_s=np.array([time_s for _, time_s, _ in rows], np.float64),
        end_s=np.array([time_s + 0.25 for _, time_s, _ in rows], np.float64),
        boxes=np.zeros((len(rows), 4), np.float32),
        descriptors=np.array([face for _, _, face in rows], np.float32).reshape(-1, 128),
    )


def test_two_people_in_one_scene_are_two_tracks_and_a_cut_ends_both() -> None:
    found = tracks(np.array([A, B, A + 0.01, B, A]), np.array([0, 0, 1, 1, 2.0]), np.array([0, 0, 0, 0, 1]))
    assert found.tolist() == [0, 1, 0, 1, 2]


def test_presence_is_one_half_at_the_published_distance() -> None:
    at = np.zeros(128, np.float32)
    at[0] = 0.6
    assert face_presence(np.array([A, at, B]), np.array([A])) == pytest.approx([1, 0.5, 0], abs=1e-6)
    assert face_presence(np.array([A]), np.zeros((0, 128))).tolist() == [0]


def test_of_several_faces_the_one_that_recurs_is_the_name() -> None:
    other = np.full(128, 0.5, np.float32)
    chosen = example_faces([np.array([B, A]), np.array([A + 0.01]), np.zeros((0, 128), np.float32), np.array([other])])
    assert chosen == pytest.approx(np.array([A, A + 0.01, other]))


def test_a_track_is_present_between_its_detections_and_in_its_scene_alone() -> None:
    snapshot = make_snapshot(np.ones((24, 4), np.float16), lengths=[16, 8], scenes=[0, 12, 16])
    found = FaceTracks(faces_of(("0", 0.5, A), ("0", 1.5, A), ("0", 3.0, B), ("1", 0.0, B)), snapshot)
    presence = found.presence(np.array([A]))
    assert np.flatnonzero(presence > 0.5).tolist() == [2, 3, 4, 5, 6]
    assert np.flatnonzero(found.presence(np.array([B])) > 0.5).tolist() == [12, 16]


def test_faces_of_a_video_that_changed_do_not_count() -> None:
    snapshot = make_snapshot(np.ones((4, 4), np.float16))
    object.__setattr__(snapshot, "revisions", ("newer",))
    assert len(FaceTracks(faces_of(("0", 0.0, A)), snapshot)) == 0
    assert FaceTracks(VideoFaces.none(), snapshot).presence(np.array([A])).tolist() == [0, 0, 0, 0]


def test_either_presence_is_enough() -> None:
    assert combine(np.array([0, 1, 0.5], np.float32), np.array([0.9, 0, 0.5], np.float32)) == pytest.approx(
        [0.9, 1, 0.75]
    )


def test_they_are_stored_and_purged(tmp_path: Path) -> None:
    store = FaceStore(tmp_path)
    assert not store.on
    assert len(store.videos()) == 0
    faces = faces_of(("0", 0.5, A), ("1", 1.0, B))
    store.save_videos(faces)
    store.save_examples({"hash": np.array([A])})
    read = FaceStore(tmp_path).videos()
    assert (read.keys, read.searched) == (faces.keys, faces.searched)
    assert read.descriptors == pytest.approx(faces.descriptors)
    assert read.only(frozenset([("1", "r")])).start_s.tolist() == [1.0]
    assert store.examples()["hash"].shape == (1, 128)
    before = store.state()
    store.purge()
    assert not (tmp_path / "faces").exists()
    assert store.state() != before


def test_a_damaged_file_names_the_remedy(tmp_path: Path) -> None:
    FaceStore(tmp_path).save_videos(faces_of())
    (tmp_path / "faces" / "videos.npz").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(VideoIndexError, match="impart names purge"):
        FaceStore(tmp_path).videos()


@needs_dlib
def test_a_person_is_found_in_a_video_and_a_coffee_cup_is_not(tmp_path: Path) -> None:
    from skimage import data

    astronaut, coffee = data.astronaut(), data.coffee()[:384, :384]
    coffee = np.asarray(Image.fromarray(coffee).resize((512, 512)))
    (tmp_path / "v").mkdir()
    write_frames(tmp_path / "v" / "film.mp4", [*[coffee] * 20, *[astronaut] * 20], times_s=[i / 10 for i in range(40)])
    index = VideoIndex.open(tmp_path / "library", TinyEncoder())
    for _ in index.add(tmp_path / "v"):
        pass
    run = find_in_videos(index.path, index.videos(), index.settings.decode)
    events = list(run)
    assert [(event.path.name, event.problem) for event in events] == [("film.mp4", None)]
    assert events[0].faces >= 1
    faces = FaceStore(index.path).videos()
    assert faces.start_s.min() >= 1.9
    assert list(find_in_videos(index.path, index.videos(), index.settings.decode)) == []  # each video once


@needs_dlib
def test_a_person_in_other_surroundings_is_found_by_the_face_until_it_is_purged(tmp_path: Path) -> None:
    from skimage import data

    astronaut = Image.fromarray(data.astronaut())
    portrait = astronaut.crop((130, 20, 330, 220)).resize((360, 360))
    scene = Image.new("RGB", (640, 480), "blue")  # the encoder of this test names images by their colour
    scene.paste(portrait, (200, 60))
    (tmp_path / "v").mkdir()
    frames = [np.full((480, 640, 3), (0, 160, 0), np.uint8)] * 20 + [np.asarray(scene)] * 20
    write_frames(tmp_path / "v" / "film.mp4", frames, times_s=[i / 10 for i in range(40)])
    index = VideoIndex.open(tmp_path / "library", TinyEncoder())
    for _ in index.add(tmp_path / "v"):
        pass
    example = tmp_path / "eileen.png"
    astronaut.save(example)
    index.names.add("Eileen", [example])
    before = [(hit.start_s, hit.end_s) for hit in index.find("Eileen")]
    for _ in index.names.find_faces(index.videos()):
        pass
    (hit,) = [hit for hit in index.find("Eileen") if hit.score > 0.9]
    assert hit.start_s == pytest.approx(2.0, abs=0.3)
    assert hit.end_s == pytest.approx(4.0, abs=0.3)
    index.names.purge_faces()
    assert not (index.path / "faces").exists()
    assert [(hit.start_s, hit.end_s) for hit in index.find("Eileen")] == before


def index_of_colours(folder: Path, *colours: tuple[int, int, int]) -> VideoIndex:
    (folder / "v").mkdir()
    for number, colour in enumerate(colours):
        write_frames(
            folder / "v" / f"{number}.mp4",
            [np.full((48, 64, 3), colour, np.uint8)] * 8,
            times_s=[i / 10 for i in range(8)],
        )
    index = VideoIndex.open(folder / "library", TinyEncoder())
    for _ in index.add(folder / "v"):
        pass
    return index


@pytest.fixture
def one_face(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every image has the face A."""
    face = Face(box=np.array([0, 0, 1, 1], np.float32), descriptor=A)
    for module in (finding, examples):
        monkeypatch.setattr(module, "find_faces", lambda _: [face])


@pytest.mark.usefixtures("one_face")
def test_a_stopped_run_keeps_its_faces_and_the_next_one_continues(tmp_path: Path) -> None:
    index = index_of_colours(tmp_path, (200, 0, 0), (0, 200, 0))
    run = index.names.find_faces(index.videos())
    first = next(run)
    run.close()  # as Ctrl-C does
    assert len(FaceStore(index.path).videos().searched) == 1
    rest = [event.path for event in index.names.find_faces(index.videos())]
    assert sorted([first.path, *rest]) == [video.path for video in index.videos()]
    assert len(FaceStore(index.path).videos().searched) == 2


@pytest.mark.usefixtures("one_face")
def test_what_is_deleted_during_a_run_stays_deleted(tmp_path: Path) -> None:
    index = index_of_colours(tmp_path, (200, 0, 0), (0, 200, 0))
    run = index.names.find_faces(index.videos())
    next(run)
    index.names.purge_faces()
    with pytest.raises(VideoIndexError, match="was deleted meanwhile"):
        list(run)
    assert not (index.path / "faces").exists()


@pytest.mark.usefixtures("one_face")
def test_a_run_waits_for_another_writer_and_keeps_what_it_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = index_of_colours(tmp_path, (200, 0, 0), (0, 200, 0))
    monkeypatch.setattr(finding, "_SAVE_EVERY_S", 0.0)
    run = index.names.find_faces(index.videos())
    next(run)
    with write_lock(index.path):
        next(run)
        assert len(FaceStore(index.path).videos().searched) == 1
    assert list(run) == []
    assert len(FaceStore(index.path).videos().searched) == 2


@pytest.mark.usefixtures("one_face")
def test_faces_of_a_removed_video_and_of_a_removed_name_are_deleted(tmp_path: Path) -> None:
    index = index_of_colours(tmp_path, (200, 0, 0), (0, 200, 0))
    list(index.names.find_faces(index.videos()))
    index.names.add("Ann", [f"{tmp_path}/v/0.mp4@0.1"])
    store = FaceStore(index.path)
    assert len(store.examples()) == 1
    (tmp_path / "v" / "0.mp4").unlink()
    for _ in index.add(tmp_path / "v", prune=True):
        pass
    assert {video for video, _ in store.videos().keys} == {video.video_id for video in index.videos()}
    index.names.remove("Ann")
    assert store.examples() == {}


@pytest.mark.usefixtures("one_face")
def test_names_are_taught_and_removed_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = index_of_colours(tmp_path, (200, 0, 0))
    index.names.add("Ann", [Image.new("RGB", (40, 40), "red")])
    list(index.names.find_faces(index.videos()))

    def missing(_: object) -> list[Face]:
        raise MissingExtraError("dlib-bin", extra="faces", purpose="finding faces")

    monkeypatch.setattr(examples, "find_faces", missing)
    added = index.names.add("Bob", [Image.radial_gradient("L")])
    assert added.added == {"Bob": 1}
    assert "faces in the new images are not found: finding faces needs 'dlib-bin'" in added.notes[0]
    index.names.remove("Ann")
    assert FaceStore(index.path).examples() == {}


@pytest.mark.usefixtures("one_face")
def test_faces_of_names_are_matched_while_videos_are_indexed_but_data_is_purged_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = index_of_colours(tmp_path, (200, 0, 0))
    list(index.names.find_faces(index.videos()))
    monkeypatch.setattr(taught, "_WAIT_S", 0.05)
    with write_lock(index.path):
        index.names.add("Ann", [f"{tmp_path}/v/0.mp4@0.1"])
        assert len(FaceStore(index.path).examples()) == 1
        with pytest.raises(IndexLockedError):
            index.names.purge_faces()
    assert FaceStore(index.path).on
    index.names.purge_faces()
    assert not FaceStore(index.path).on
