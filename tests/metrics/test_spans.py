"""Overlap and AP of spans, against naive loops and hand-worked cases."""

from __future__ import annotations

import numpy as np
import pytest

from impart.metrics.spans import IOUS, average_precisions, hit_at_1, iou, top_iou


def spans(seed: int, count: int) -> list[tuple[float, float]]:
    rng = np.random.default_rng(seed)
    start = rng.uniform(0, 60, count).round()
    return list(zip(start.tolist(), (start + rng.uniform(2, 40, count).round()).tolist(), strict=True))


def naive_iou(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Count tenths of seconds one by one."""
    first, second = (set(range(round(10 * a), round(10 * b))) for a, b in (one, other))
    return len(first & second) / len(first | second)


def naive_ap(
    predicted: list[tuple[float, float]], scores: list[float], right: list[tuple[float, float]], threshold: float
) -> float:
    """Follow the published evaluation step by step: match, precision and recall, envelope, area."""
    order = sorted(range(len(predicted)), key=lambda p: -scores[p])
    taken: set[int] = set()
    hits = []
    for p in order:
        ranked = sorted(range(len(right)), key=lambda g: -naive_iou(predicted[p], right[g]))
        match = next((g for g in ranked if g not in taken and naive_iou(predicted[p], right[g]) >= threshold), None)
        hits.append(match is not None)
        if match is not None:
            taken.add(match)
    precision = [0.0, *(sum(hits[: n + 1]) / (n + 1) for n in range(len(hits))), 0.0]
    recall = [0.0, *(sum(hits[: n + 1]) / len(right) for n in range(len(hits))), 1.0]
    for n in reversed(range(len(precision) - 1)):
        precision[n] = max(precision[n], precision[n + 1])
    return sum((recall[n] - recall[n - 1]) * precision[n] for n in range(1, len(recall)))


def test_iou_agrees_with_counting() -> None:
    ours, theirs = spans(0, 12), spans(1, 9)
    expected = [[naive_iou(a, b) for b in theirs] for a in ours]
    assert iou(ours, theirs) == pytest.approx(np.array(expected))
    assert iou([(3, 3)], [(3, 3)]).tolist() == [[0.0]]
    assert iou([(0, 1)], [(1, 2)]).tolist() == [[0.0]]


def test_average_precision_agrees_with_the_published_steps() -> None:
    for seed in range(40):
        rng = np.random.default_rng(seed)
        right, predicted = spans(100 + seed, 1 + seed % 4), spans(seed, 8)
        predicted[:2] = [(a + 1, b + 1) for a, b in right[:2]] + predicted[len(right) : 2]  # near hits
        scores = rng.permutation(8).astype(float).tolist()
        expected = [naive_ap(predicted, scores, right, threshold) for threshold in IOUS]
        ours = average_precisions(predicted, scores, right)
        assert ours == pytest.approx(expected)
        order = rng.permutation(8)
        again = average_precisions(np.array(predicted)[order], np.array(scores)[order], right)
        assert again == pytest.approx(ours)


def test_by_hand() -> None:
    right = [(0, 10), (20, 30)]
    predicted, scores = [(0, 10), (0, 9), (21, 30)], [3, 2, 1]
    # the second overlaps only a matched span: right, wrong, right
    assert average_precisions(predicted, scores, right, ious=[0.5]).tolist() == pytest.approx([(1 + 2 / 3) / 2])
    assert average_precisions(predicted, scores, right, ious=[0.95]).tolist() == [0.5]
    assert average_precisions([], [], right).tolist() == [0.0] * 10
    assert top_iou(predicted, scores, right) == 1.0
    assert top_iou([], [], right) == 0.0
    assert average_precisions([(0, 7)], [1], [(0, 10)], ious=[0.7]).tolist() == [1.0]  # 0.7 reaches 0.7


def test_equal_scores_keep_the_order_of_the_predictions() -> None:
    """The evaluation of QVHighlights takes the first window, sorts stably, and takes the first best clip."""
    predicted, right = [(0, 10), (50, 60)], [(0, 10)]
    assert (top_iou(predicted, [1, 1], right), top_iou(predicted[::-1], [1, 1], right)) == (1.0, 0.0)
    assert average_precisions(predicted, [1, 1], right, ious=[0.5]).tolist() == [1.0]
    assert average_precisions(predicted[::-1], [1, 1], right, ious=[0.5]).tolist() == [0.5]
    ratings = np.array([4.0, 0.0])
    assert (hit_at_1([1, 1], ratings), hit_at_1([1, 1], ratings[::-1])) == (True, False)


def test_a_highlight_is_rated_very_good_by_one_of_three_people() -> None:
    ratings = np.array([[1, 1, 1], [4, 0, 0], [3, 3, 3]])
    assert [hit_at_1(row, ratings) for row in np.eye(3)] == [False, True, False]
    assert [hit_at_1(row, ratings.mean(axis=1), least=3) for row in np.eye(3)] == [False, False, True]
    assert not hit_at_1([0, 0, 0, 1], ratings)  # beyond what was rated
    assert not hit_at_1([], ratings)
