"""Vanilla: shares, floor, gate and target."""

from __future__ import annotations

import numpy as np
import pytest

from impart.blending.vanilla import Vanilla, gate, mixture, neighbour_shares, within_target
from impart.config import VanillaSettings
from impart.encoders.base import l2_normalise
from impart.errors import ConfigError

SIMS = np.array([[0.9, 0.5, 0.2], [0.3, 0.1, -1.0], [0.1, 0.0, -0.2]], dtype=np.float32)


def test_uniform_shares_are_the_mean_over_those_kept() -> None:
    shares = neighbour_shares(SIMS, SIMS, tau=0, floor=0.15)
    np.testing.assert_allclose(shares, [[1 / 3, 1 / 3, 1 / 3], [1, 0, 0], [0, 0, 0]], atol=1e-6)


def test_the_softmax_excludes_dropped_neighbours() -> None:
    shares = neighbour_shares(SIMS, SIMS, tau=0.1, floor=0.3)
    want = np.exp(np.array([9.0, 5.0]))
    np.testing.assert_allclose(shares[0], [*(want / want.sum()), 0], atol=1e-6)
    np.testing.assert_allclose(shares[1], [1, 0, 0], atol=1e-6)


def test_tiny_temperatures_take_the_nearest_without_overflow() -> None:
    np.testing.assert_allclose(neighbour_shares(SIMS, SIMS, tau=1e-4, floor=0)[0], [1, 0, 0], atol=1e-6)


def test_absent_neighbours_have_weight_zero() -> None:
    img, txt = Vanilla(VanillaSettings(k=3, w_img=1, w_txt=2)).coefficients(SIMS, SIMS)
    np.testing.assert_allclose(img[1], [0.5, 0.5, 0], atol=1e-6)
    np.testing.assert_allclose(txt[1], [1, 1, 0], atol=1e-6)


def test_the_ramp_opens_the_gate_slowly() -> None:
    np.testing.assert_allclose(gate(SIMS, floor=0.1, ramp=0.4), [1, 0.5, 0], atol=1e-6)
    np.testing.assert_allclose(gate(SIMS, floor=0.2, ramp=0), [1, 1, 0])
    np.testing.assert_allclose(gate(SIMS, floor=0, ramp=0.4), [1, 1, 1])


def test_the_floor_is_compared_with_z_scores_and_not_with_cosines() -> None:
    z_scores = np.array([[5.0, 3.0, 4.5], [3.9, 3.0, 0.0], [6.0, 1.0, 1.0]], dtype=np.float32)
    shares = neighbour_shares(SIMS, z_scores, tau=0, floor=4.0)
    np.testing.assert_allclose(shares, [[0.5, 0, 0.5], [0, 0, 0], [1, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(gate(z_scores, floor=4.0, ramp=2.0), [0.5, 0, 1], atol=1e-6)


def test_settings_that_cannot_work_are_refused() -> None:
    for bad in ({"k": 0}, {"tau": -1}, {"floor": -0.1}, {"ramp": -0.1}):
        with pytest.raises(ConfigError, match=next(iter(bad))):
            VanillaSettings(**bad)


def test_a_target_bounds_the_cosine_with_the_texts() -> None:
    rng = np.random.default_rng(0)
    v, texts = l2_normalise(rng.standard_normal((50, 16))), l2_normalise(rng.standard_normal((50, 16)))
    v[:25] = l2_normalise(v[:25] + 1.5 * texts[:25])  # half of them are already near
    before = (v * texts).sum(axis=1)
    opened = np.ones(50, np.float32)
    for weight in (0.3, 3.0):
        added = weight * texts
        factors = within_target(v, added, opened, target=0.7)
        after = (l2_normalise(v + factors[:, None] * added) * texts).sum(axis=1)
        assert (factors[before > 0.7] == 0).all()
        assert (after <= np.maximum(before, 0.7) + 1e-5).all()
        reached = factors < 1
        np.testing.assert_allclose(after[reached & (before < 0.7)], 0.7, atol=1e-5)
    assert reached.all()  # with the large weight all reach it
    assert (before < 0.7).sum() > 20
    assert (before > 0.7).sum() > 5


def test_a_gate_of_one_half_allows_half_of_the_texts() -> None:
    rng = np.random.default_rng(1)
    v, texts = l2_normalise(rng.standard_normal((20, 16))), l2_normalise(rng.standard_normal((20, 16)))
    whole = within_target(v, 5 * texts, np.ones(20, np.float32), target=0.6)
    half = within_target(v, 0.5 * 5 * texts, np.full(20, 0.5, np.float32), target=0.6)
    np.testing.assert_allclose(half * 0.5, whole * 0.5, rtol=1e-5)
    assert (within_target(v, np.zeros_like(v), np.zeros(20, np.float32), target=0.6) == 0).all()


def test_mixtures_exclude_absent_rows() -> None:
    vectors = np.eye(3, 4, dtype=np.float32)
    weights = np.array([[0.5, 0.25], [1, 0]], np.float32)
    np.testing.assert_allclose(
        mixture(weights, np.array([[2, 0], [1, -1]], np.int32), vectors), [[0.25, 0, 0.5, 0], [0, 1, 0, 0]]
    )
