"""Cut detection from embeddings: positions of cuts, and what is no cut."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from impart.video.scenes.cuts import continuity, scene_bounds

from impart.video.scenes import cuts as scenes

STEP_S = 0.25


def shots(*lengths: int, seed: int = 0, jitter: float = 0.02) -> np.ndarray:
    """Embeddings of shots of unrelated things, `lengths` samples each."""
    rng = np.random.default_rng(seed)
    rows = [
        centre + jitter * rng.standard_normal((n, 64))
        for n, centre in zip(lengths, rng.standard_normal((len(lengths), 64)), strict=True)
    ]
    stacked = np.concatenate(rows)
    return (stacked / np.linalg.norm(stacked, axis=1, keepdims=True)).astype(np.float32)


def bounds(rows: np.ndarray, threshold: float = 0.5, **options: float) -> list[tuple[int, int]]:
    starts = np.arange(len(rows)) * STEP_S
    return scene_bounds(rows, starts, starts + STEP_S, threshold, **options)


def test_cuts_are_found_where_they_are():
    assert bounds(shots(8, 5, 12)) == [(0, 7), (8, 12), (13, 24)]


def test_one_shot_is_one_scene():
    assert bounds(shots(20)) == [(0, 19)]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_videos_of_up_to_two_segments(count):
    assert bounds(shots(count)) == ([(0, count - 1)] if count else [])


def test_a_single_flash_is_no_cut():
    rows = shots(8, 1)
    rows = np.concatenate([rows[:4], rows[8:], rows[4:8]])
    assert bounds(rows) == [(0, 8)]


def test_a_dissolve_is_one_cut():
    rows = shots(8, 8)
    mixed = np.stack([rows[7] * (1 - a) + rows[8] * a for a in (0.4, 0.6)])
    rows = np.concatenate([rows[:8], mixed / np.linalg.norm(mixed, axis=1, keepdims=True), rows[8:]])
    found = bounds(rows, 0.9)
    assert len(found) == 2
    assert found[0][1] in (7, 8, 9)


def test_segments_of_uneven_length_use_their_times():
    rows = shots(1, 1, 1)
    assert scene_bounds(rows, [0.0, 10.0, 11.0], [10.0, 11.0, 20.0], 0.5) == [(0, 0), (1, 1), (2, 2)]
    assert len(scene_bounds(rows, [0.0, 10.0, 10.25], [10.0, 10.25, 20.0], 0.5)) == 2


def test_extreme_thresholds_give_no_cut_and_all_cuts():
    rows = shots(8, 8)
    assert len(bounds(rows, -1.0)) == 1
    assert len(bounds(rows, 2.0, min_scene_s=0.0)) == 16


def test_continuity_equals_a_naive_loop():
    rows = shots(3, 4, 2, jitter=0.3)
    for i in range(len(rows) - 1):
        before, after = rows[max(0, i - 1) : i + 1].mean(axis=0), rows[i + 1 : i + 3].mean(axis=0)
        sides = before @ after / np.linalg.norm(before) / np.linalg.norm(after)
        assert continuity(rows)[i] == pytest.approx(max(rows[i] @ rows[i + 1], sides), abs=1e-5)


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="3 starts"):
        scene_bounds(shots(2), [0.0, 1.0, 2.0], [1.0, 2.0], 0.5)


def test_examples_in_the_docstrings():
    assert doctest.testmod(scenes).failed == 0
