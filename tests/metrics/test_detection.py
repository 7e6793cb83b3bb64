"""Average precision against scikit-learn, a naive loop and hand-worked cases, ties included."""

from __future__ import annotations

import numpy as np
import pytest

from impart.metrics import bootstrap
from impart.metrics.detection import average_precision, category_ap, mean_ap, mean_ap_replicates


def boxes(seed: int = 0, *, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 1, 2, 4], 60)  # no box of category 3
    scores = rng.standard_normal((60, 5)) + 1.5 * np.eye(5)[labels]
    return (np.round(scores) if ties else scores), labels


def naive_ap(scores: np.ndarray, relevant: np.ndarray) -> float:
    order = sorted(range(len(scores)), key=lambda box: (-scores[box], bool(relevant[box])))
    hits, found = 0, []
    for place, box in enumerate(order, start=1):
        if relevant[box]:
            hits += 1
            found.append(hits / place)
    return float(np.mean(found))


def test_agrees_with_scikit_learn_where_nothing_is_tied() -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn checks the metrics where it is installed")
    scores, labels = boxes()
    for category in (0, 1, 2, 4):
        expected = metrics.average_precision_score(labels == category, scores[:, category])
        assert average_precision(scores[:, category], labels == category) == pytest.approx(expected)
    weights = bootstrap.draws(60, repeats=5)
    ours = mean_ap_replicates(scores, labels, weights, {"all": np.ones(5, dtype=bool)})["all"]
    for row, value in zip(weights, ours, strict=True):
        theirs = [
            metrics.average_precision_score(labels == category, scores[:, category], sample_weight=row)
            for category in (0, 1, 2, 4)
            if row[labels == category].any()
        ]
        assert value == pytest.approx(np.mean(theirs))


def test_ties_rank_other_categories_first_in_any_order() -> None:
    scores, labels = boxes(ties=True)
    expected = [naive_ap(scores[:, c], labels == c) for c in (0, 1, 2, 4)]
    ap = category_ap(scores, labels)
    assert ap[[0, 1, 2, 4]] == pytest.approx(expected)
    assert np.isnan(ap[3])
    assert mean_ap(ap) == pytest.approx(np.mean(expected))
    order = np.random.default_rng(1).permutation(60)
    assert category_ap(scores[order], labels[order]) == pytest.approx(ap, nan_ok=True)
    assert average_precision(np.zeros(4), np.array([True, False, False, False])) == 0.25


def test_groups_of_categories_and_draws_without_them() -> None:
    scores, labels = boxes()
    drawn = np.ones((2, 60), dtype=np.uint16)
    drawn[1, labels == 4] = 0
    groups = {"all": np.ones(5, dtype=bool), "rare": np.array([False, False, False, True, True])}
    found = mean_ap_replicates(scores, labels, drawn, groups)
    ap = category_ap(scores, labels)
    assert found["all"][0] == pytest.approx(mean_ap(ap))
    assert found["rare"][0] == pytest.approx(ap[4]) == pytest.approx(mean_ap(ap, groups["rare"]))
    assert np.isnan(found["rare"][1])


def test_nan_scores_rank_before_the_right_ones() -> None:
    assert average_precision(np.array([np.nan, 0.9]), np.array([False, True])) == 0.5
    assert average_precision(np.array([np.nan, 0.9]), np.array([True, False])) == 0.5
