"""The weights: shares, floor, gate."""

from __future__ import annotations

import numpy as np
import pytest

from impart.augment.vanilla import Vanilla, gate, neighbour_shares
from impart.config import VanillaSettings
from impart.errors import ConfigError

SIMS = np.array([[0.9, 0.5, 0.2], [0.3, 0.1, -1.0], [0.1, 0.0, -0.2]], dtype=np.float32)


def test_uniform_shares_are_the_mean_over_those_kept() -> None:
    shares = neighbour_shares(SIMS, SIMS, tau=0, floor=0.15)
    np.testing.assert_allclose(shares, [[1 / 3, 1 / 3, 1 / 3], [1, 0, 0], [0, 0, 0]], atol=1e-6)


def test_softmax_leaves_dropped_neighbours_out() -> None:
    shares = neighbour_shares(SIMS, SIMS, tau=0.1, floor=0.3)
    want = np.exp(np.array([9.0, 5.0]))
    np.testing.assert_allclose(shares[0], [*(want / want.sum()), 0], atol=1e-6)
    np.testing.assert_allclose(shares[1], [1, 0, 0], atol=1e-6)


def test_tiny_temperatures_take_the_nearest_without_overflow() -> None:
    np.testing.assert_allclose(neighbour_shares(SIMS, SIMS, tau=1e-4, floor=0)[0], [1, 0, 0], atol=1e-6)


def test_absent_neighbours_weigh_nothing() -> None:
    img, txt = Vanilla(VanillaSettings(k=3, w_img=1, w_txt=2)).coefficients(SIMS, SIMS)
    np.testing.assert_allclose(img[1], [0.5, 0.5, 0], atol=1e-6)
    np.testing.assert_allclose(txt[1], [1, 1, 0], atol=1e-6)


def test_the_ramp_opens_the_gate_slowly() -> None:
    np.testing.assert_allclose(gate(SIMS, floor=0.1, ramp=0.4), [1, 0.5, 0], atol=1e-6)
    np.testing.assert_allclose(gate(SIMS, floor=0.2, ramp=0), [1, 1, 0])
    np.testing.assert_allclose(gate(SIMS, floor=0, ramp=0.4), [1, 1, 1])


def test_the_floor_is_held_against_the_standing_not_the_cosine() -> None:
    standing = np.array([[5.0, 3.0, 4.5], [3.9, 3.0, 0.0], [6.0, 1.0, 1.0]], dtype=np.float32)
    shares = neighbour_shares(SIMS, standing, tau=0, floor=4.0)
    np.testing.assert_allclose(shares, [[0.5, 0, 0.5], [0, 0, 0], [1, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(gate(standing, floor=4.0, ramp=2.0), [0.5, 0, 1], atol=1e-6)


def test_settings_that_cannot_work_are_refused() -> None:
    for bad in ({"k": 0}, {"tau": -1}, {"floor": -0.1}, {"ramp": -0.1}):
        with pytest.raises(ConfigError, match=next(iter(bad))):
            VanillaSettings(**bad)
