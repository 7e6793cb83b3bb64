"""Metrics against naive loops and hand-worked cases, ties included."""

from __future__ import annotations

import numpy as np
import pytest

from impart.evaluate.retrieval import rank_metrics, ranks_of
from impart.evaluate.zeroshot import classification_metrics


def naive_rank(scores: list[float], relevant: list[bool]) -> int:
    """Place of the best relevant item when every tied irrelevant item goes ahead of it."""
    best = max(score for score, right in zip(scores, relevant, strict=True) if right)
    return 1 + sum(score >= best and not right for score, right in zip(scores, relevant, strict=True))


def test_ranks_agree_with_a_naive_loop_and_do_not_depend_on_order() -> None:
    rng = np.random.default_rng(3)
    scores = np.round(rng.standard_normal((40, 25)), 1).astype(np.float32)  # rounded: ties happen
    relevant = rng.random((40, 25)) < 0.15
    relevant[np.arange(40), rng.integers(0, 25, 40)] = True
    ranks = ranks_of(scores, relevant)
    assert ranks.tolist() == [naive_rank(list(s), list(r)) for s, r in zip(scores, relevant, strict=True)]
    order = rng.permutation(25)
    assert ranks_of(scores[:, order], relevant[:, order]).tolist() == ranks.tolist()


def test_a_constant_score_is_the_worst_not_the_best() -> None:
    ranks = ranks_of(np.zeros((2, 10), dtype=np.float32), np.eye(10, dtype=bool)[:2])
    assert ranks.tolist() == [10, 10]


def test_rank_metrics_by_hand() -> None:
    report = rank_metrics(np.array([1, 2, 6, 11]), items=20)
    assert (report.recall_at_1, report.recall_at_5, report.recall_at_10) == (0.25, 0.5, 0.75)
    assert report.median_rank == 4.0
    assert report.mean_rank == 5.0
    assert report.mrr == pytest.approx((1 + 1 / 2 + 1 / 6 + 1 / 11) / 4)


def test_classification_by_hand_ties_count_as_wrong() -> None:
    scores = np.array([[3, 1, 2], [1, 1, 0], [0, 5, 1], [9, 8, 7]], dtype=np.float32)
    labels = np.array([0, 0, 1, 2])
    top1, top5, mean_per_class = classification_metrics(scores, labels)
    assert top1 == 0.5  # the second is tied, the last wrong
    assert top5 == 1.0  # three classes only
    assert mean_per_class == pytest.approx((0.5 + 1 + 0) / 3)


def test_classification_agrees_with_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn checks the metrics where it is installed")
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((200, 12)).astype(np.float32)
    labels = rng.integers(0, 12, 200)
    top1, top5, mean_per_class = classification_metrics(scores, labels)
    assert top1 == pytest.approx(metrics.accuracy_score(labels, scores.argmax(axis=1)))
    assert top5 == pytest.approx(metrics.top_k_accuracy_score(labels, scores, k=5))
    assert mean_per_class == pytest.approx(metrics.balanced_accuracy_score(labels, scores.argmax(axis=1)))
