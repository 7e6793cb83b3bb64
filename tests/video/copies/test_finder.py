"""Copies of a clip among vectors: with any speed, in part, mirrored; strangers, still images and black frames."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from impart.encoders.base import l2_normalise
from impart.video.copies.background import CopyBackground, normalised
from impart.video.copies.finder import CHUNK_S, chunks, find
from impart.video.copies.frames import FrameRun, IndexedFrames

WIDTH, FPS = 64, 4
FLAT = np.eye(WIDTH, dtype=np.float32)[:1]


def film(seed: int, *, seconds: float, shot_s: float = 5.0) -> np.ndarray:
    """Unit vectors (n, R) of shots that each drift slowly, four per second."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(int(np.ceil(seconds / shot_s))):
        start, end = rng.standard_normal((2, WIDTH)) + 0.8 * rng.standard_normal(WIDTH)
        along = np.linspace(0, 0.5, round(shot_s * FPS))[:, None]
        rows.append(start * (1 - along) + end * along)
    return l2_normalise(np.concatenate(rows)[: round(seconds * FPS)].astype(np.float32))


def changed(rows: np.ndarray, seed: int = 9, amount: float = 0.05) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(rows.shape).astype(np.float32)
    return l2_normalise(rows + amount * noise)


def index(films: list[np.ndarray], *, flat_rows: np.ndarray = FLAT) -> IndexedFrames:
    lengths = [len(rows) for rows in films]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    times = np.concatenate([np.arange(length) / FPS for length in lengths])
    scenes = np.concatenate([np.arange(first, stop, 5 * FPS) for first, stop in itertools.pairwise(offsets)])
    return IndexedFrames(
        np.concatenate(films).astype(np.float16),
        starts_s=times,
        ends_s=times + 1 / FPS,
        offsets=offsets,
        scenes=scenes,
        images=film(1000, seconds=400, shot_s=1.0)[::4],
        flat_rows=flat_rows,
    )


def clip(rows: np.ndarray, frames: IndexedFrames) -> FrameRun:
    times = np.arange(len(rows)) / FPS
    return FrameRun(rows, frames.background.levels(rows), times, times + 1 / FPS)


@pytest.fixture(scope="module")
def library() -> IndexedFrames:
    return index([film(seed, seconds=120) for seed in range(6)])


@pytest.mark.parametrize("speed", [0.8, 0.9, 1.0, 1.12, 1.25])
def test_a_copy_is_found_where_it_is_with_its_speed(library: IndexedFrames, speed: float) -> None:
    rows = film(3, seconds=120)
    at = np.rint(37 * FPS + speed * np.arange(10 * FPS)).astype(int)
    found = find([clip(changed(rows[at]), library)], library, fps=FPS)
    assert list(found) == [3]
    (span,) = found[3]
    assert span.start_s == pytest.approx(0, abs=0.3)
    assert span.end_s == pytest.approx(10, abs=0.3)
    assert span.video_start_s == pytest.approx(37, abs=0.5)
    assert span.video_end_s == pytest.approx(37 + 10 * speed, abs=0.6)
    assert span.speed == pytest.approx(speed, abs=0.03)
    assert span.score > 0.8


def test_parts_of_two_films_are_both_found_and_strangers_are_not(library: IndexedFrames) -> None:
    parts = [film(50, seconds=4), film(1, seconds=120)[200:224], film(51, seconds=3), film(4, seconds=120)[80:100]]
    found = find([clip(changed(np.concatenate(parts)), library)], library, fps=FPS)
    assert sorted(found) == [1, 4]
    assert found[1][0].start_s == pytest.approx(4, abs=0.5)
    assert found[1][0].video_start_s == pytest.approx(50, abs=0.5)
    assert found[4][0].start_s == pytest.approx(13, abs=0.5)
    assert found[4][0].video_start_s == pytest.approx(20, abs=0.5)
    assert find([clip(film(60, seconds=20), library)], library, fps=FPS) == {}


def test_a_clip_longer_than_a_chunk_makes_one_span(library: IndexedFrames) -> None:
    rows = changed(film(2, seconds=120)[40:400])
    assert rows.shape[0] / FPS > 4 * CHUNK_S
    (span,) = find([clip(rows, library)], library, fps=FPS)[2]
    assert span.length_s == pytest.approx(90, abs=1)
    assert span.video_start_s == pytest.approx(10, abs=0.5)
    assert span.speed == pytest.approx(1, abs=0.01)


def test_the_view_that_fits_better_says_whether_a_clip_is_mirrored(library: IndexedFrames) -> None:
    rows = film(5, seconds=120)[100:140]
    like, unlike = changed(rows, amount=0.02), changed(rows, amount=0.12)
    for views, mirrored in (((like, unlike), False), ((unlike, like), True)):
        (span,) = find([clip(view, library) for view in views], library, fps=FPS)[5]
        assert span.mirrored is mirrored


def test_videos_that_may_not_be_returned_are_not(library: IndexedFrames) -> None:
    rows = changed(film(3, seconds=120)[100:140])
    allowed = np.arange(6) != 3
    assert find([clip(rows, library)], library, fps=FPS, allowed=allowed) == {}


def test_still_look_alikes_are_no_copies_however_long_but_a_still_and_its_copy_are() -> None:
    still = film(70, seconds=0.25)
    alike = l2_normalise(still + 1.1 * l2_normalise(film(71, seconds=0.25)))
    assert 0.6 < float(still[0] @ alike[0]) < 0.75
    library = index([np.repeat(still, 40, axis=0), film(72, seconds=30)])
    assert find([clip(np.repeat(alike, 40, axis=0), library)], library, fps=FPS) == {}
    found = find([clip(changed(np.repeat(still, 24, axis=0), amount=0.02), library)], library, fps=FPS)
    assert [len(spans) for spans in found.values()] == [1]  # and not once more beside itself
    assert found[0][0].length_s == pytest.approx(6, abs=0.3)


def test_black_frames_are_no_evidence() -> None:
    black = changed(np.repeat(FLAT, 40, axis=0), amount=0.01)
    films = [np.concatenate([black, film(80, seconds=20)]), np.concatenate([film(81, seconds=20), black])]
    query = np.concatenate([black, film(82, seconds=5)])
    library = index(films)
    assert find([clip(query, library)], library, fps=FPS) == {}
    unguarded = index(films, flat_rows=FLAT[:0])
    assert find([clip(query, unguarded)], unguarded, fps=FPS)  # so it is the images of one colour that tell


def test_chunks_overlap_by_half_and_cover_the_clip() -> None:
    frames = index([film(0, seconds=10)])
    parts = list(chunks(clip(film(1, seconds=47), frames)))
    assert [round(float(part.starts_s[0])) for part in parts] == [0, 10, 20, 30]
    assert float(parts[-1].ends_s[-1]) == 47
    assert [len(part) for part in chunks(clip(film(1, seconds=3), frames))] == [12]


def test_the_level_is_the_mean_of_the_fifth_to_tenth_largest_cosine() -> None:
    rows, background = film(1, seconds=5), film(2, seconds=60, shot_s=1.0)
    levels = CopyBackground(background, FLAT).levels(rows)
    expected = [np.sort(row)[::-1][4:10].mean() for row in rows @ background.T]
    np.testing.assert_allclose(levels, expected, rtol=1e-5)
    near = normalised(rows @ rows.T, levels, levels)
    np.testing.assert_allclose(np.diag(near), 1, atol=1e-4)
    assert near[0, 1] == pytest.approx((rows[0] @ rows[1] - levels[:2].mean()) / (1 - levels[:2].mean()), abs=1e-5)


def test_without_a_background_set_equal_frames_are_still_1() -> None:
    rows = film(1, seconds=2)
    empty = CopyBackground(rows[:0], FLAT[:0])
    levels = empty.levels(rows)
    assert np.diag(normalised(rows @ rows.T, levels, levels)) == pytest.approx(1, abs=1e-5)
    assert not empty.flat(rows).any()


def test_blocks_cover_all_segments_and_do_not_cross_scenes(library: IndexedFrames) -> None:
    blocks = library.blocks
    assert blocks.first[0] == 0
    assert blocks.stop[-1] == 6 * 480
    assert (blocks.first[1:] == blocks.stop[:-1]).all()
    assert (blocks.first // 20 == (blocks.stop - 1) // 20).all()  # scenes have twenty segments
    assert int((blocks.stop - blocks.first).max()) <= 16
    rows = np.concatenate([film(seed, seconds=120) for seed in range(6)])
    mean = l2_normalise(rows[blocks.first[7] : blocks.stop[7]].mean(axis=0, keepdims=True))
    assert float(mean[0] @ blocks.rows[7]) == pytest.approx(1, abs=1e-3)
