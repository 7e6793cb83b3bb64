"""Copies of real files in a real index: `VideoIndex.find_copies` and `VideoIndex.duplicates`."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from helpers.clips import write_clip
from helpers.textures import FPS, TextureEncoder, texture_images, write_texture
from impart.errors import DecodeError, QueryError, VideoIndexError
from impart.video.index.index import VideoIndex


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    for seed in range(4):
        write_texture(folder / f"{seed}.mp4", texture_images(seed, seconds=8))
    shutil.copy(folder / "2.mp4", folder / "same.mp4")
    return folder


@pytest.fixture(scope="module")
def index(films: Path, tmp_path_factory: pytest.TempPathFactory) -> VideoIndex:
    made = VideoIndex.open(tmp_path_factory.mktemp("index") / "library.impart", TextureEncoder())
    for _ in made.add(films):
        pass
    return made


def test_a_clip_that_is_not_indexed_is_found_where_it_is(index: VideoIndex, films: Path, tmp_path: Path) -> None:
    images = texture_images(1, seconds=8)[2 * FPS : 6 * FPS]
    clip = write_texture(tmp_path / "clip.mkv", texture_images(9, seconds=2) + images)
    (found,) = index.find_copies(clip)
    assert (found.rank, found.path, found.also_at) == (1, films / "1.mp4", ())
    (span,) = found.spans
    assert span.start_s == pytest.approx(2, abs=0.3)
    assert span.video_start_s == pytest.approx(2, abs=0.3)
    assert span.length_s == pytest.approx(4, abs=0.5)
    assert not span.mirrored
    assert found.video_s == pytest.approx(8, abs=0.2)


def test_a_mirrored_clip_is_found_and_marked(index: VideoIndex, films: Path, tmp_path: Path) -> None:
    images = [np.ascontiguousarray(image[:, ::-1]) for image in texture_images(3, seconds=5)]
    (found,) = index.find_copies(write_texture(tmp_path / "mirrored.mp4", images))
    assert found.path == films / "3.mp4"
    assert found.spans[0].mirrored


def test_an_indexed_clip_is_no_copy_of_itself_and_equal_files_are_one(
    index: VideoIndex, films: Path, tmp_path: Path
) -> None:
    assert index.find_copies(films / "0.mp4") == []
    (found,) = index.find_copies(films / "2.mp4")
    assert (found.path, found.also_at) == (films / "same.mp4", ())
    (found,) = index.find_copies(shutil.copy(films / "2.mp4", tmp_path / "elsewhere.mp4"))
    assert (found.path, found.also_at) == (films / "2.mp4", (films / "same.mp4",))
    assert found.score > 0.95


def test_strangers_and_clips_of_one_colour_are_not_found(index: VideoIndex, tmp_path: Path) -> None:
    assert index.find_copies(write_texture(tmp_path / "stranger.mp4", texture_images(20, seconds=6))) == []
    assert index.find_copies(write_clip(tmp_path / "black.mp4", colours=["black", "grey"], seconds_each=3)) == []


def test_a_file_that_cannot_be_looked_for_is_named(index: VideoIndex, tmp_path: Path) -> None:
    with pytest.raises(DecodeError, match=r"gone\.mp4.*check the path"):
        index.find_copies(tmp_path / "gone.mp4")
    (tmp_path / "notes.mp4").write_text("no video")
    with pytest.raises(DecodeError, match=r"notes\.mp4"):
        index.find_copies(tmp_path / "notes.mp4")
    short = write_texture(tmp_path / "short.mp4", texture_images(1, seconds=0.5))
    with pytest.raises(QueryError, match=r"short\.mp4 is 0\.\d\d s long.*search --image"):
        index.find_copies(short)
    with pytest.raises(VideoIndexError):
        VideoIndex.open(tmp_path / "none.impart", TextureEncoder()).find_copies(short)


def test_videos_added_later_are_found_and_nothing_is_decoded_for_duplicates(tmp_path: Path) -> None:
    folder = tmp_path / "films"
    folder.mkdir()
    images = texture_images(5, seconds=9)
    write_texture(folder / "long.mp4", images)
    index = VideoIndex.open(tmp_path / "library.impart", TextureEncoder())
    for _ in index.add(folder):
        pass
    assert index.duplicates() == []
    write_texture(folder / "part.mp4", [image[::2, ::2] for image in images[3 * FPS : 8 * FPS]])
    shutil.copy(folder / "long.mp4", folder / "copied.mp4")
    for _ in index.add(folder):
        pass
    shutil.rmtree(folder)
    (group,) = index.duplicates()
    assert [path.name for path in group.paths] == ["copied.mp4", "long.mp4", "part.mp4"]
    exact, near = group.duplicates
    assert (exact.exact, exact.path.name, exact.other_path.name) == (True, "copied.mp4", "long.mp4")
    assert (near.exact, near.other_path.name) == (False, "part.mp4")
    assert near.other_share == pytest.approx(1, abs=0.1)
    assert near.spans[0].start_s == pytest.approx(3, abs=0.3)


def test_an_empty_index_has_no_copies(tmp_path: Path, films: Path) -> None:
    index = VideoIndex.open(tmp_path / "library.impart", TextureEncoder())
    for _ in index.add([]):
        pass
    assert index.duplicates() == []
    assert index.find_copies(films / "0.mp4") == []
