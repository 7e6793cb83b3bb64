"""Draws, replicates and intervals against SciPy, a naive loop, and simulated data with a known mean."""

from __future__ import annotations

import numpy as np
import pytest

from impart.metrics import bootstrap
from impart.metrics.classification import mean_per_class


def test_same_items_same_draws_and_clusters_stay_together() -> None:
    clusters = np.array([5, 5, 2, 9, 2, 5])
    drawn = bootstrap.draws(clusters, repeats=50, seed=3)
    assert (drawn == bootstrap.draws(clusters, repeats=50, seed=3)).all()
    assert (drawn != bootstrap.draws(clusters, repeats=50, seed=4)).any()
    for one in (5, 2, 9):
        inside = drawn[:, clusters == one]
        assert (inside == inside[:, :1]).all()
    assert (drawn[:, 0] + drawn[:, 2] + drawn[:, 3] == 3).all()  # three clusters drawn each time
    assert (bootstrap.draws(6, repeats=50).sum(axis=1) == 6).all()


def test_replicates_are_the_figures_of_the_drawn_items() -> None:
    rng = np.random.default_rng(0)
    values, labels = rng.integers(0, 20, 30).astype(float), rng.integers(0, 4, 30)
    drawn = bootstrap.draws(30, repeats=40)
    drawn[0] = 0
    drawn[0, labels == 2] = 1  # a draw without most of the classes
    chosen = [np.repeat(np.arange(30), row) for row in drawn]
    assert bootstrap.means(values, drawn) == pytest.approx([values[c].mean() for c in chosen])
    assert bootstrap.medians(values, drawn) == pytest.approx([np.median(values[c]) for c in chosen])
    expected = [mean_per_class(values[c], labels[c]) for c in chosen]
    assert bootstrap.class_means(values, labels, drawn) == pytest.approx(expected)


def test_interval_agrees_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(1).exponential(size=120)
    low, high = bootstrap.interval(bootstrap.means(values, bootstrap.draws(120, repeats=4000)))
    theirs = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=0).confidence_interval
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_the_interval_covers_the_true_mean_at_its_level_and_needs_the_clusters() -> None:
    """300 sets of 40 clusters of 5 items that are all right or all wrong, with true mean 0.6."""
    rng = np.random.default_rng(7)
    clusters = np.repeat(np.arange(40), 5)
    aware, blind = bootstrap.draws(clusters, repeats=400), bootstrap.draws(200, repeats=400)
    covered = np.zeros(2)
    for _ in range(300):
        values = np.repeat(rng.random(40) < 0.6, 5).astype(float)
        for which, drawn in enumerate((aware, blind)):
            low, high = bootstrap.interval(bootstrap.means(values, drawn))
            covered[which] += low <= 0.6 <= high
    assert 0.90 <= covered[0] / 300 <= 0.98
    assert covered[1] / 300 < 0.75


def test_replicates_of_nan_are_ignored() -> None:
    assert bootstrap.interval(np.array([np.nan, 1.0, 1.0])) == (1.0, 1.0)
