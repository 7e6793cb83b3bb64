"""Candidates: the best groups by estimates and exact scores are those of all exact scores."""

from __future__ import annotations

import numpy as np
import pytest

from impart.video.search.rank.candidates import Scores, _largest
from impart.video.search.ranking import top_groups


def estimated(exact: np.ndarray, error: float, *, seed: int = 0) -> tuple[Scores, list[int]]:
    """Scores with an error, and how many were computed exactly by each call."""
    counts: list[int] = []

    def compute(items: np.ndarray | slice) -> np.ndarray:
        found = exact[items]
        counts.append(len(found))
        return found

    rough = exact + error * np.random.default_rng(seed).standard_normal(len(exact)).astype(np.float32)
    return Scores(rough.astype(np.float32), error=error, exact=compute), counts


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("top", [1, 10, 100])
def test_the_best_groups_equal_those_of_exact_scores(seed: int, top: int) -> None:
    rng = np.random.default_rng(seed)
    exact = rng.standard_normal(6000).astype(np.float32)
    offsets = None if seed % 3 == 0 else np.unique(np.append(rng.integers(1, 6000, 1500), [0, 6000]))
    groups = 6000 if offsets is None else len(offsets) - 1
    allowed = None if seed % 2 else rng.random(groups) < 0.5
    rough, counts = estimated(exact, 0.02, seed=seed)
    numbers, values = rough.best(top, offsets=offsets, allowed=allowed)
    highs = exact if offsets is None else np.maximum.reduceat(exact, offsets[:-1])
    expected = top_groups(highs, top=top, allowed=allowed)
    np.testing.assert_array_equal(numbers, expected)
    np.testing.assert_array_equal(values, highs[expected])
    assert sum(counts) < 0.5 * len(exact)
    for group in numbers.tolist():
        first, stop = (group, group + 1) if offsets is None else offsets[group : group + 2].tolist()
        assert rough.best_item(slice(first, stop))[0] == first + int(np.argmax(exact[first:stop]))


def test_few_candidates_are_computed_where_one_stands_out() -> None:
    exact = np.append(np.linspace(0, 0.1, 50_000), [0.9]).astype(np.float32)
    rough, counts = estimated(exact, 0.001)
    assert rough.best(1)[0].tolist() == [50_000]
    assert sum(counts) < 200


def test_near_duplicates_are_all_computed() -> None:
    """Scores that differ by less than the error: estimates cannot order them."""
    exact = (0.5 + 1e-4 * np.random.default_rng(0).random(5000)).astype(np.float32)
    rough, counts = estimated(exact, 0.01)
    np.testing.assert_array_equal(rough.best(10)[0], top_groups(exact, top=10))
    assert sum(counts) == 5000


def test_nothing_is_found_where_nothing_is_allowed() -> None:
    rough, counts = estimated(np.arange(100, dtype=np.float32), 0.1)
    assert [len(one) for one in rough.best(5, allowed=np.zeros(100, bool))] == [0, 0]
    assert not counts
    assert rough.best(500)[0].tolist() == list(range(99, -1, -1))


def test_exact_scores_are_computed_once() -> None:
    rough, counts = estimated(np.arange(100, dtype=np.float32), 0.1)
    assert rough.of(slice(10, 20)).tolist() == list(range(10, 20))
    assert rough.of(np.array([5, 12])).tolist() == [5, 12]
    assert rough.of(slice(8, 22)).tolist() == list(range(8, 22))
    assert counts == [10, 1, 4]


def test_the_kth_largest_of_many_values() -> None:
    values = np.random.default_rng(0).random(70_001).astype(np.float32)
    ordered = np.sort(values)[::-1]
    assert [_largest(values, k) for k in (1, 5, 60, 20_000, 70_001)] == ordered[[0, 4, 59, 19_999, 70_000]].tolist()
