"""Classification metrics against scikit-learn and hand-worked cases, ties included."""

from __future__ import annotations

import numpy as np
import pytest

from impart.metrics import classification as metric

metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn checks the metrics where it is installed")


@pytest.fixture
def scores() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((200, 12)).astype(np.float32)


@pytest.fixture
def labels() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 12, 200)


def test_by_hand_ties_count_as_wrong() -> None:
    scores = np.array([[3, 1, 2], [1, 1, 0], [0, 5, 1], [9, 8, 7]], dtype=np.float32)
    labels = np.array([0, 0, 1, 2])
    right = metric.top_k(scores, labels, k=1)
    assert right.tolist() == [True, False, True, False]  # the second is tied, the last wrong
    assert metric.top_k(scores, labels, k=2).tolist() == [True, True, True, False]
    assert metric.mean_per_class(right, labels) == pytest.approx((0.5 + 1 + 0) / 3)
    assert metric.confusion(scores, labels).tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]


@pytest.mark.parametrize("k", [1, 3, 5])
def test_top_k(scores: np.ndarray, labels: np.ndarray, k: int) -> None:
    assert metric.top_k(scores, labels, k=k).mean() == pytest.approx(
        metrics.top_k_accuracy_score(labels, scores, k=k, labels=range(12))
    )


def test_mean_per_class_and_confusion(scores: np.ndarray, labels: np.ndarray) -> None:
    guess = scores.argmax(axis=1)
    ours = metric.mean_per_class(metric.top_k(scores, labels, k=1), labels)
    assert ours == pytest.approx(metrics.balanced_accuracy_score(labels, guess))
    assert metric.confusion(scores, labels).tolist() == metrics.confusion_matrix(labels, guess).tolist()
    assert (metric.predicted(scores, labels) == guess).all()


def test_log_loss(scores: np.ndarray, labels: np.ndarray) -> None:
    sure = metric.probabilities(scores, scale=3.0)
    assert metric.log_losses(sure, labels).mean() == pytest.approx(metrics.log_loss(labels, sure, labels=range(12)))
    assert np.isfinite(metric.log_losses(np.array([[1.0, 0.0]]), np.array([1])))


def naive_calibration(confidence: np.ndarray, right: np.ndarray, bins: int) -> float:
    total = 0.0
    for b in range(bins):
        inside = [i for i, c in enumerate(confidence) if b / bins < c <= (b + 1) / bins]
        if inside:
            total += len(inside) * abs(np.mean(right[inside]) - np.mean(confidence[inside]))
    return total / len(confidence)


def test_calibration_error_and_reliability(scores: np.ndarray, labels: np.ndarray) -> None:
    sure = metric.probabilities(scores, scale=1.5)
    confidence, right = sure.max(axis=1), metric.top_k(scores, labels, k=1)
    ours = metric.calibration_error(confidence, right)
    assert ours == pytest.approx(naive_calibration(confidence, right, 15))
    table = metric.reliability(confidence, right)
    filled = table[table[:, 2] > 0]
    assert filled[:, 2].sum() == 200
    assert (filled[:, 2] * abs(filled[:, 0] - filled[:, 1])).sum() / 200 == pytest.approx(ours)
    assert np.isnan(table[table[:, 2] == 0, :2]).all()


def test_nothing_depends_on_the_order_of_the_items(scores: np.ndarray, labels: np.ndarray) -> None:
    order = np.random.default_rng(5).permutation(200)
    for one, other in zip(figures(scores, labels), figures(scores[order], labels[order]), strict=True):
        assert one == pytest.approx(other, abs=1e-12)


def figures(scores: np.ndarray, labels: np.ndarray) -> list[float]:
    sure, right = metric.probabilities(scores), metric.top_k(scores, labels, k=1)
    return [
        right.mean(),
        metric.mean_per_class(right, labels),
        metric.log_losses(sure, labels).mean(),
        metric.calibration_error(sure.max(axis=1), right),
    ]


def test_nan_scores_are_wrong() -> None:
    labels, broken = np.array([1, 1]), np.full((2, 3), np.nan)
    assert not metric.top_k(broken, labels, k=1).any()
    assert (metric.predicted(broken, labels) != labels).all()
    assert not metric.top_k(np.array([[np.nan, 0.9, 0.1]]), labels[:1], k=1).any()
