"""Ranking metrics against naive loops, scikit-learn and hand-worked cases, ties included."""

from __future__ import annotations

import math

import numpy as np
import pytest

from impart.metrics import ranking


def some_scores(seed: int = 3, *, ties: bool = True) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    scores = rng.standard_normal((40, 25))
    scores = (np.round(scores, 1) if ties else scores).astype(np.float32)
    relevant = rng.random((40, 25)) < 0.15
    relevant[np.arange(40), rng.integers(0, 25, 40)] = True
    return scores, relevant


def naive_order(scores: np.ndarray, relevant: np.ndarray) -> list[bool]:
    """Sort relevance from the best item down, tied irrelevant items before relevant ones."""
    ranked = sorted(range(len(scores)), key=lambda item: (-scores[item], bool(relevant[item])))
    return [bool(relevant[item]) for item in ranked]


def naive_ndcg(scores: np.ndarray, relevant: np.ndarray, k: int) -> float:
    order = naive_order(scores, relevant)
    gain = sum(1 / math.log2(2 + place) for place, right in enumerate(order[:k]) if right)
    return gain / sum(1 / math.log2(2 + place) for place in range(min(k, sum(order))))


def test_ranks_agree_with_a_naive_loop_and_do_not_depend_on_order() -> None:
    scores, relevant = some_scores()
    ranks = ranking.ranks_of(scores, relevant)
    assert ranks.tolist() == [1 + naive_order(s, r).index(True) for s, r in zip(scores, relevant, strict=True)]
    order = np.random.default_rng(0).permutation(25)
    assert ranking.ranks_of(scores[:, order], relevant[:, order]).tolist() == ranks.tolist()


def test_a_constant_score_is_the_worst_not_the_best() -> None:
    scores, relevant = np.zeros((2, 10), dtype=np.float32), np.eye(10, dtype=bool)[:2]
    assert ranking.ranks_of(scores, relevant).tolist() == [10, 10]
    assert ranking.ndcg(scores, relevant, k=9).tolist() == [0, 0]


def test_figures_by_hand() -> None:
    figures = ranking.rank_figures(np.array([1, 2, 6, 11]))
    assert (figures["R@1"], figures["R@5"], figures["R@10"]) == (0.25, 0.5, 0.75)
    assert (figures["median rank"], figures["mean rank"]) == (4.0, 5.0)
    assert figures["MRR"] == pytest.approx((1 + 1 / 2 + 1 / 6 + 1 / 11) / 4)


@pytest.mark.parametrize("k", [1, 5, 10, 25])
def test_ndcg_agrees_with_a_naive_loop(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    scores, relevant = some_scores()
    expected = [naive_ndcg(s, r, k) for s, r in zip(scores, relevant, strict=True)]
    assert ranking.ndcg(scores, relevant, k=k).tolist() == pytest.approx(expected)
    monkeypatch.setattr(ranking, "_CELLS", 60)  # two relevant items at a time
    assert ranking.ndcg(scores, relevant, k=k).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("k", [5, None])
def test_ndcg_agrees_with_scikit_learn_where_nothing_is_tied(k: int | None) -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn checks the metrics where it is installed")
    scores, relevant = some_scores(ties=False)
    assert ranking.ndcg(scores, relevant, k=k).mean() == pytest.approx(metrics.ndcg_score(relevant, scores, k=k))


def test_nan_scores_rank_last() -> None:
    relevant = np.array([[True, False, False]])
    broken = np.full((1, 3), np.nan)
    assert ranking.ranks_of(broken, relevant).tolist() == [3]
    assert ranking.ndcg(broken, relevant, k=None).tolist() == [0.5]


def test_caption_ranks_agree_with_a_naive_loop_in_both_directions() -> None:
    rng = np.random.default_rng(1)
    scores = rng.integers(0, 4, (30, 12)).astype(np.float32)  # many ties
    owners = rng.integers(0, 9, 30)  # images 9, 10 and 11 have no text
    texts, images = ranking.caption_ranks(scores, owners)
    assert texts.tolist() == [
        1 + sum(scores[text, image] >= scores[text, own] for image in range(12) if image != own)
        for text, own in enumerate(owners)
    ]
    expected = []
    for image in sorted(set(owners.tolist())):
        best = max(scores[text, image] for text in range(30) if owners[text] == image)
        expected.append(1 + sum(scores[text, image] >= best for text in range(30) if owners[text] != image))
    assert images.tolist() == expected


def test_recall_at_k_counts_ties_and_missing_scores_as_wrong() -> None:
    scores = np.array([[0.5, 0.5, 0.1], [0.2, 0.9, 0.1], [np.nan, np.nan, np.nan]], dtype=np.float32)
    texts, _ = ranking.caption_ranks(scores, np.array([0, 1, 2]))
    assert ranking.recall_at(texts, ks=(1, 2, 3)) == {1: 1 / 3, 2: 2 / 3, 3: 1.0}
