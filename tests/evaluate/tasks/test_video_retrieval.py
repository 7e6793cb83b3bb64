"""Videos: cached frame embeddings, means, retrieval by text and by image, parts of files, broken files."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import numpy as np
import pytest

from helpers.sets_of_colours import colour_frames, coloured
from helpers.tiny_encoder import TinyEncoder
from impart.blending.encoder import augment
from impart.config import DecodeSettings
from impart.encoders.base import l2_normalise
from impart.errors import ConfigError, DataError
from impart.evaluate import image_to_video, video_retrieval
from impart.evaluate.cache import EmbeddingCache
from impart.evaluate.datasets.types import VideoSet
from impart.evaluate.embed_videos import decode_digest, embed_videos, mean_vector
from impart.refset.pairs import Pair
from impart.refset.refset import ReferenceSet


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decode a file by its name, as `colour_frames`; what is decoded is cached."""
    monkeypatch.setattr("impart.evaluate.embed_videos._decoded", lambda encoder, path, decode: colour_frames(path))


def video_set(*names: str, captions: list[tuple[int, str]], spans: object = None) -> VideoSet:
    return VideoSet(
        name="clips",
        videos=tuple(Path(name) for name in names),
        captions=tuple(text for _, text in captions),
        owners=np.array([owner for owner, _ in captions], dtype=np.int64),
        spans=spans,  # type: ignore[arg-type]
    )


def test_text_and_video_both_ways(tiny: TinyEncoder) -> None:
    dataset = video_set("red4-orange1.avi", "broken.avi", "blue3.avi", captions=[(0, "red"), (1, "green"), (2, "blue")])
    to_video, to_text, _ = video_retrieval(tiny, dataset, frames=colour_frames)
    assert (to_video.task, to_text.task) == ("text to video", "video to text")
    assert to_video.figures["R@1"] == to_text.figures["R@1"] == 1.0
    assert to_video.counts == {"queries": 2, "items": 2, "unreadable": 1, "read in part": 0}
    assert to_video.items == ("red4-orange1.avi#0", "blue3.avi#0")
    assert to_video.notes == ("left out: broken.avi: cannot be opened",)
    assert "colour_frames" in to_video.settings["frames"]
    assert len(video_retrieval(tiny, dataset, frames=colour_frames, query_bank=True)) == 5
    with pytest.raises(DataError, match="none of 1 videos"):
        video_retrieval(tiny, video_set("broken.avi", captions=[(0, "red")]), frames=colour_frames)


def test_a_video_is_the_mean_of_its_frames_weighted_by_display_time(tiny: TinyEncoder) -> None:
    def reader(path: Path) -> Iterator[tuple[float, float, np.ndarray]]:
        yield 0.0, 3.0, np.full((8, 8, 3), (255, 0, 0), np.uint8)
        yield 3.0, 4.0, np.full((8, 8, 3), (0, 0, 255), np.uint8)

    (video,) = embed_videos(tiny, [Path("x.avi")], reader)
    (steady,) = embed_videos(tiny, [Path("red3-blue1.avi")], colour_frames)
    expected = l2_normalise((3 * video.embeddings[0] + video.embeddings[1])[None])[0]
    assert mean_vector(video) == pytest.approx(expected, abs=1e-6)
    assert mean_vector(steady) == pytest.approx(expected, abs=1e-6)
    assert mean_vector(video, without=np.array([0])) == pytest.approx(video.embeddings[1], abs=1e-6)


@pytest.mark.usefixtures("decoded")
def test_of_augmented_frames_the_mean_is_over_v_prime(tiny: TinyEncoder, tmp_path: Path) -> None:
    pairs = [Pair(image=coloured([name]).read(0)[0], text=name, path=name) for name in ("red", "blue", "green")]
    augmented = augment(tiny, ReferenceSet.build(pairs, tiny, name="colours"), k=1, w_img=0.5, w_txt=0.3)
    cache = EmbeddingCache(tmp_path)
    path = tmp_path / "red2-blue1.avi"
    path.touch()
    for _ in range(2):  # the second time from the cache of the base
        (video,) = embed_videos(augmented, [path], cache=cache)
        images = [image for _, _, image in colour_frames(path)]
        assert video.embeddings == pytest.approx(augmented.encode_images(images).embeddings, abs=1e-5)


@pytest.mark.usefixtures("decoded")
def test_a_killed_run_continues_from_the_cache(tmp_path: Path, tiny: TinyEncoder) -> None:
    paths = [tmp_path / name for name in ("red1.avi", "blue1.avi", "broken.avi")]
    for path in paths:
        path.touch()
    cache = EmbeddingCache(tmp_path / "cache")
    videos = embed_videos(tiny, paths, cache=cache)
    next(videos)
    videos.close()
    assert tiny.images_encoded == 4
    done: list[int] = []
    again = list(embed_videos(tiny, paths, cache=cache, on_progress=lambda n, _: done.append(n)))
    assert tiny.images_encoded == 8
    assert done == [1, 2, 3]
    assert [video.unreadable for video in again] == [None, None, "cannot be opened"]
    assert again[0].spans.tolist() == [[n / 4, n / 4 + 0.25] for n in range(4)]
    list(embed_videos(tiny, paths[:1], colour_frames, cache=cache))  # a reader of the caller: not cached
    assert tiny.images_encoded == 12
    paths[0].write_bytes(b"changed")
    list(embed_videos(tiny, paths[:1], cache=cache))
    assert tiny.images_encoded == 16


@pytest.mark.usefixtures("decoded")
def test_the_cache_key_contains_the_settings_that_change_frames(tmp_path: Path, tiny: TinyEncoder) -> None:
    path = tmp_path / "red1.avi"
    path.touch()
    for settings, encoded in ((None, 4), (DecodeSettings(threads=3, look_ahead=9), 4), (DecodeSettings(fps=2), 8)):
        list(embed_videos(tiny, [path], settings, cache=EmbeddingCache(tmp_path / "cache")))
        assert tiny.images_encoded == encoded
    assert (
        decode_digest(tiny, DecodeSettings(fit="crop")) != decode_digest(tiny) == decode_digest(tiny, DecodeSettings())
    )


@pytest.mark.usefixtures("decoded")
def test_a_cached_file_of_another_layout_is_made_again(tmp_path: Path, tiny: TinyEncoder) -> None:
    path = tmp_path / "red1.avi"
    path.touch()
    cache = EmbeddingCache(tmp_path / "cache")
    list(embed_videos(tiny, [path], cache=cache))
    (stored,) = (tmp_path / "cache").rglob("*.npz")
    for damage in (lambda: np.savez(stored, frames=np.zeros(3)), lambda: stored.write_bytes(b"half")):
        damage()
        assert len(next(embed_videos(tiny, [path], cache=cache)).embeddings) == 4
    assert tiny.images_encoded == 12


def test_parts_of_a_file_are_separate_videos_and_the_file_is_read_once(tiny: TinyEncoder) -> None:
    dataset = video_set(
        "red4-blue4.avi",
        "red4-blue4.avi",
        "red4-blue4.avi",
        captions=[(1, "blue"), (0, "red"), (2, "green")],
        spans=((0.0, 4.0), (4.0, 8.0), (20.0, 30.0)),
    )
    to_video, *_ = video_retrieval(tiny, dataset, frames=colour_frames)
    assert tiny.images_encoded == 32
    assert to_video.figures["R@1"] == 1.0
    assert to_video.items[0] == "red4-blue4.avi[4-8 s]#0"
    assert "it has no frame within (20.0, 30.0)" in to_video.notes[0]


def test_images_find_their_videos(tiny: TinyEncoder) -> None:
    dataset = video_set("red4.avi", "blue4-green1.avi", captions=[])
    given = image_to_video(
        tiny,
        dataset,
        frames=colour_frames,
        images=coloured(["blue", "broken", "red", "blue"]),
        owners=np.array([1, 0, 0, 0]),
    )
    assert (given.task, given.items) == ("image to video", ("0-blue.png", "2-red.png", "3-blue.png"))
    assert given.per_item["R@1"].tolist() == [1, 1, 0]
    assert "1-broken.png" in given.notes[0]
    for hold_out in ("first", "middle"):
        held = image_to_video(tiny, dataset, frames=colour_frames, hold_out=hold_out)  # type: ignore[arg-type]
        assert held.figures["R@1"] == 1.0
        assert hold_out in held.settings["queries"]
    with pytest.raises(ConfigError, match="owners"):
        image_to_video(tiny, dataset, frames=colour_frames, images=coloured(["red"]))


def test_the_query_frame_is_not_in_the_mean(tiny: TinyEncoder) -> None:
    """The middle frame of the first video is like the second video; without it, the first is not."""

    def reader(path: Path) -> Iterator[tuple[float, float, np.ndarray]]:
        colours = {"a": ("red", "blue", "red"), "b": ("blue", "blue", "blue"), "single": ("green",)}[path.stem]
        for number, name in enumerate(colours):
            yield float(number), number + 1.0, np.asarray(coloured([name]).read(0)[0])

    result = image_to_video(tiny, video_set("a.avi", "b.avi", "single.avi", captions=[]), frames=reader)
    assert result.items == ("a.avi@middle", "b.avi@middle")
    assert result.counts["items"] == 3
    assert result.per_item["R@1"].tolist() == [0, 1]


def cut_short(path: Path) -> Generator[tuple[float, float, np.ndarray], None, str | None]:
    """As `colour_frames`; a file named `..._cut` is reported as cut short."""
    yield from colour_frames(path)
    return "stopped at 1.0 s of 9.0 s: the file ends there" if path.stem.endswith("_cut") else None


def test_a_video_that_is_cut_short_is_counted_and_named(
    tmp_path: Path, tiny: TinyEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("impart.evaluate.embed_videos._decoded", lambda encoder, path, decode: cut_short(path))
    paths = [str(tmp_path / name) for name in ("red1_cut.avi", "blue2.avi")]
    for path in paths:
        Path(path).touch()
    dataset = video_set(*paths, captions=[(0, "red"), (1, "blue")])
    cache = EmbeddingCache(tmp_path / "cache")
    told = f"read in part: {paths[0]}: stopped at 1.0 s of 9.0 s: the file ends there"
    for _ in range(2):  # the second time from the cache
        results = [
            *video_retrieval(tiny, dataset, cache=cache, query_bank=True),
            image_to_video(tiny, dataset, cache=cache),
        ]
        for result in results:
            assert (result.counts["read in part"], result.counts["unreadable"]) == (1, 0)
            assert result.notes == (told,)
    assert tiny.images_encoded == 12
    part = video_set(paths[0], captions=[(0, "red")], spans=((0.0, 0.5),))
    assert video_retrieval(tiny, part, frames=cut_short)[0].counts["read in part"] == 1
