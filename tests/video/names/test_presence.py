"""Presence of a name in frames, by few examples."""

from __future__ import annotations

import numpy as np
import pytest

from impart.encoders.base import l2_normalise
from impart.video.names.presence import Background, Detector, presence

R = 48


def _things(count: int, views: int, *, seed: int = 0, noise: float = 0.35) -> np.ndarray:
    """Make (count, views, R) rows: views of one thing share a direction, and all rows share a large common part."""
    rng = np.random.default_rng(seed)
    things = rng.standard_normal((count, 1, R))
    common = 3 * rng.standard_normal(R)
    rows = things + noise * rng.standard_normal((count, views, R)) + common
    return l2_normalise(rows.reshape(-1, R)).reshape(count, views, R)


@pytest.fixture
def rows() -> np.ndarray:
    return _things(60, 12)


def _found(rows: np.ndarray, examples: np.ndarray) -> np.ndarray:
    frames = rows.reshape(-1, R)
    return presence(frames, examples, Background.of(frames)).reshape(rows.shape[:2])


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_frames_of_the_thing_are_present_and_no_others(rows, count):
    found = _found(rows, rows[5, :count])
    assert found[5, count:].min() > 0.5
    others = np.delete(found, 5, axis=0)
    assert (others > 0.5).mean() < 0.002


def test_wrong_example_among_four_does_not_count(rows):
    background = Background.of(rows.reshape(-1, R))
    examples = np.concatenate([rows[5, :3], rows[9, :1]])
    detector = Detector.of(examples, background)
    assert detector.kept.tolist() == [True, True, True, False]
    assert detector.own_z[3] < detector.cut_z < detector.own_z[:3].min()
    found = _found(rows, examples)
    assert found[5, 3:].min() > 0.5
    assert found[9].max() < 0.5


def test_many_appearances_are_all_found(rows):
    """Thirty images of three things with one name: the nearest examples count, not the mean of all."""
    found = _found(rows, rows[[2, 7, 11], :10].reshape(-1, R))
    assert found[[2, 7, 11], 10:].min() > 0.5
    assert (np.delete(found, [2, 7, 11], axis=0) > 0.5).mean() < 0.005


def test_background_set_calibrates_an_index_of_one_thing():
    """An index of one thing alone tells nothing about other images; the encoder's background set does."""
    rows = _things(60, 12, seed=3)
    thing, unrelated = rows[0], rows[1:].reshape(-1, R)
    background = Background.of(thing, unrelated)
    assert presence(thing[3:], thing[:3], background).min() > 0.5
    assert (presence(unrelated, thing[:3], background) > 0.5).mean() < 0.01


def test_presence_of_parts_is_that_of_all(rows):
    frames = rows.reshape(-1, R)
    background = Background.of(frames)
    detector = Detector.of(frames[:2], background)
    naive = np.array([detector.background.whiten(frame[None])[0] @ detector.examples.T for frame in frames])
    expected = (0.5 * naive.max(axis=1) + 0.5 * naive.mean(axis=1) - detector.centre) / detector.spread
    assert detector.z_scores(frames) == pytest.approx(expected, abs=1e-3)
    lengths = background.lengths(frames)
    assert detector.presence(frames, lengths) == pytest.approx(detector.presence(frames), abs=1e-6)


def test_one_half_lies_at_the_cut(rows):
    detector = Detector.of(rows[0, :3], Background.of(rows.reshape(-1, R)))
    at_cut = np.array([detector.cut_z - 1, detector.cut_z, detector.cut_z + 1], np.float32)
    below, half, above = detector.as_presence(at_cut)
    assert half == pytest.approx(0.5)
    assert below < 0.3
    assert above > 0.7


def test_background_without_any_rows_is_refused():
    with pytest.raises(ValueError, match="background"):
        Background.of(np.zeros((0, R)))


def test_narrow_embeddings_have_a_cut_that_can_be_reached():
    rng = np.random.default_rng(2)
    frames = l2_normalise(rng.standard_normal((200, 8)))
    found = presence(frames, frames[:1], Background.of(frames))
    assert found[0] > 0.5
    assert (found > 0.5).sum() < 10
