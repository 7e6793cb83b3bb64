"""Scenes of an index and of files: bounds, vectors, representative frames, older indexes, files that fail."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from helpers.clips import solid, write_clip, write_frames
from helpers.photo_films import write_shots
from helpers.tiny_encoder import TinyEncoder
from impart import VideoIndex
from impart.errors import QueryError, VideoIndexError
from impart.video.scenes.bounds import SceneBounds
from impart.video.scenes.files import scenes_of_files
from impart.video.scenes.scene import scene_vectors, scenes_of
from impart.video.scenes.stored import stored_bounds

LENGTHS = (53, 31, 44)  # frames at 25 per second: cuts at 2.12 and 3.36 s


def of_index(path: Path, folder: Path, tiny: TinyEncoder) -> VideoIndex:
    index = VideoIndex.open(folder / "library.impart", tiny)
    for _ in index.add([path]):
        pass
    return index


def test_cuts_of_an_index_are_exact_to_the_frame(tmp_path: Path, tiny: TinyEncoder):
    path = write_clip(tmp_path / "a.mp4", colours=["red", "blue", "green"], seconds_each=1.12)
    scenes = of_index(path, tmp_path, tiny).scenes(path)
    assert [scene.start_s for scene in scenes] == pytest.approx([0, 1.12, 2.24], abs=1e-3)
    assert [scene.end_s for scene in scenes] == pytest.approx([1.12, 2.24, 3.36], abs=1e-3)
    assert [(scene.number, scene.kind) for scene in scenes] == [(1, "cut"), (2, "cut"), (3, "cut")]
    assert all(scene.start_s <= scene.best_s < scene.end_s for scene in scenes)
    red = tiny.encode_images([solid("red")]).embeddings[0]
    assert scenes[0].vector @ red > 0.99 > scenes[1].vector @ red


def test_a_file_gives_the_same_scenes_as_the_index(tmp_path: Path, tiny: TinyEncoder):
    path = write_shots(tmp_path / "a.mp4", LENGTHS)
    (found,) = scenes_of_files([path], tiny)
    assert list(found.scenes) == of_index(path, tmp_path, tiny).scenes("a.mp4")
    assert [scene.start_s for scene in found.scenes] == pytest.approx([0, 2.12, 3.36], abs=1e-3)
    assert found.problem is None


def test_a_flash_is_no_scene(tmp_path: Path, tiny: TinyEncoder):
    images = [solid("red")] * 37 + [solid("white")] + [solid("red")] * 40
    path = write_frames(tmp_path / "a.mp4", images, times_s=[i / 25 for i in range(78)])
    (found,) = scenes_of_files([path], tiny)
    assert len(found.scenes) == 1


def test_a_file_that_fails_does_not_stop_the_others(tmp_path: Path, tiny: TinyEncoder):
    (tmp_path / "bad.mp4").write_text("no video")
    good = write_clip(tmp_path / "good.mp4", colours=["red", "blue"])
    first, second = scenes_of_files([tmp_path / "bad.mp4", good], tiny)
    assert first.scenes == ()
    assert "not a video" in (first.problem or "")
    assert len(second.scenes) == 2


def test_an_index_without_stored_bounds_gives_those_of_its_segments(tmp_path: Path, tiny: TinyEncoder):
    path = write_clip(tmp_path / "a.mp4", colours=["red", "blue"], seconds_each=1.12)
    record = of_index(path, tmp_path, tiny).videos()[0]
    older = dataclasses.replace(record, scene_start_s=(), scene_end_s=(), scene_kinds=())
    bounds = stored_bounds(older, np.array([0.0, 1.25]), np.array([1.25, 2.24]))
    assert bounds == SceneBounds((0, 1), (0.0, 1.25), (1.25, 2.24), ("cut", "cut"))


def test_a_video_that_is_not_in_the_index_is_named(tmp_path: Path, tiny: TinyEncoder):
    index = of_index(write_clip(tmp_path / "a.mp4"), tmp_path, tiny)
    with pytest.raises(QueryError, match=r"b\.mp4 is not in the index"):
        index.scenes(tmp_path / "b.mp4")


def test_there_must_be_an_index(tmp_path: Path, tiny: TinyEncoder):
    with pytest.raises(VideoIndexError):
        VideoIndex.open(tmp_path / "none.impart", tiny).scenes("a.mp4")


def test_scene_vectors_equal_a_naive_loop():
    rng = np.random.default_rng(0)
    rows, weights, first = rng.standard_normal((7, 5)), np.array([1, 4, 2, 1, 1, 3, 2]), np.array([0, 3, 4])
    for number, (begin, end) in enumerate([(0, 3), (3, 4), (4, 7)]):
        mean = sum(rows[i] * weights[i] for i in range(begin, end))
        expected = mean / np.linalg.norm(mean)
        assert scene_vectors(rows, weights, first)[number] == pytest.approx(expected, abs=1e-5)


def test_the_representative_frame_is_nearest_to_the_mean():
    rows = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    bounds = SceneBounds((0,), (0.0,), (0.75,), ("cut",))
    (scene,) = scenes_of(bounds, rows, starts_s=np.array([0.0, 0.25, 0.5]), weights=np.ones(3, np.int32))
    assert scene.best_s == 0.25


def test_a_file_without_frames_for_still_images_has_the_scenes_of_one_with_all_frames(
    tmp_path: Path, tiny: TinyEncoder
):
    colours = ["red", "green", "blue", "yellow", "cyan", "magenta"]
    every = [number / 25 for number in range(25 * len(colours))]
    few = [0.0, *(second - early for second in range(1, len(colours)) for early in (0.08, 0.04)), every[-1]]
    found = []
    for name, times_s in (("every.mkv", every), ("few.mkv", few)):
        images = [solid(colours[int(time_s + 0.041) % len(colours)]) for time_s in times_s[:-1]] + [solid(colours[-1])]
        write_frames(tmp_path / name, images, times_s=times_s)
        (one,) = scenes_of_files([tmp_path / name], tiny)
        found.append([(scene.kind, round(scene.start_s, 2)) for scene in one.scenes])
    assert found[1] == found[0] == [("cut", 0.0), *(("cut", second - 0.04) for second in range(1, len(colours)))]
