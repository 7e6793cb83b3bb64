"""Nearest neighbours: exactness, order, exclusion, measured recall."""

from __future__ import annotations

import numpy as np
import pytest

from impart.encoders.base import l2_normalise
from impart.errors import ConfigError
from impart.retrieval import nearest
from impart.retrieval.nearest import EXACT_BELOW, PairIndex, kind_of


def vectors(count: int, width: int = 16, seed: int = 0) -> np.ndarray:
    return l2_normalise(np.random.default_rng(seed).standard_normal((count, width)))


def test_exact_search_equals_a_full_sort() -> None:
    rows, queries = vectors(500), vectors(60, seed=1)
    found = PairIndex(rows).search(queries, 8)
    sims = queries @ rows.T
    want = np.argsort(-sims, axis=1)[:, :8]
    np.testing.assert_array_equal(found.ids, want)
    np.testing.assert_allclose(found.sims, np.take_along_axis(sims, want, axis=1), atol=1e-6)


def test_ties_go_to_the_lower_row_in_any_batch() -> None:
    rows = np.repeat(vectors(10), 6, axis=0)  # each vector six times
    index = PairIndex(rows)
    queries = vectors(40, seed=2)
    whole = index.search(queries, 4)
    starts = (whole.ids[:, 0] // 6) * 6
    np.testing.assert_array_equal(whole.ids, starts[:, None] + np.arange(4))
    for row in range(40):
        np.testing.assert_array_equal(index.search(queries[row : row + 1], 4).ids[0], whole.ids[row])


def test_an_opposite_pair_is_a_neighbour_too() -> None:
    rows = np.array([[0.6, 0.8], [-1, 0]], np.float32)
    found = PairIndex(rows).search(np.array([[1, 0]], np.float32), 3)
    assert found.ids.tolist() == [[0, 1, -1]]
    assert -1 < found.sims[0, 1] < -0.999999
    assert found.sims[0, 2] == -1


def test_own_image_is_left_out_with_all_its_captions() -> None:
    images = np.repeat(np.arange(20, dtype=np.int32), 5)
    rows = np.repeat(vectors(20), 5, axis=0)
    found = PairIndex(rows, images=images).search(rows, 8, exclude=images)
    assert (images[found.ids] != images[:, None]).all()
    assert (found.ids >= 0).all()
    kept = PairIndex(rows, images=images).search(rows[:3], 8, exclude=np.array([-1, 0, -1], np.int32))
    assert kept.ids[0, 0] == 0
    assert (images[kept.ids[1]] != 0).all()


def test_small_and_empty_sets() -> None:
    found = PairIndex(vectors(3)).search(vectors(2, seed=1), 5)
    assert (found.ids[:, 3:] == -1).all()
    assert (found.sims[:, 3:] == -1).all()
    empty = PairIndex(np.empty((0, 16), np.float32)).search(vectors(2), 3)
    assert empty.ids.tolist() == [[-1] * 3] * 2
    alone = PairIndex(vectors(1)).search(vectors(1), 2, exclude=np.zeros(1, np.int32))
    assert alone.ids.tolist() == [[-1, -1]]


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_approximate_search_measures_its_recall(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "EXACT_BELOW", 0)
    centres = vectors(50, 32)
    rows = l2_normalise(centres[np.arange(5000) % 50] + 0.2 * np.random.default_rng(1).standard_normal((5000, 32)))
    index = PairIndex(rows, kind=kind)
    info = index.measure()
    assert info.kind == kind
    assert info.sample == 500
    assert 0.8 < info.recall <= 1
    queries = rows[:100]
    exact, near = PairIndex(rows, kind="exact").search(queries, 8), index.search(queries, 8)
    shared = np.mean([len(set(a) & set(b)) / 8 for a, b in zip(exact.ids, near.ids, strict=True)])
    assert abs(shared - info.recall) < 0.1
    assert PairIndex(rows).measure().recall == 1


def test_unknown_kind() -> None:
    with pytest.raises(ConfigError, match="exact, ivfpq, hnsw, ivf"):
        PairIndex(vectors(3), kind="annoy")


@pytest.mark.parametrize("kind", ["hnsw", "ivf", "exact", "auto"])
@pytest.mark.parametrize("count", [0, 1, 5, 15, 16, 20, 300])
def test_few_rows_are_searched_exactly(count: int, kind: str) -> None:
    rows = vectors(count) if count else np.empty((0, 16), np.float32)
    index = PairIndex(rows, kind=kind)
    assert (index.kind, index.measure().recall) == ("exact", 1)
    queries = vectors(4, seed=1)
    assert index.search(queries, 8).ids.tolist() == PairIndex(rows).search(queries, 8).ids.tolist()


def test_a_set_is_searched_approximately_where_ivf_finds_nearly_all() -> None:
    assert kind_of("ivf", EXACT_BELOW - 1) == "exact"
    assert kind_of("ivf", EXACT_BELOW) == "ivf"
    centres = vectors(200, 32)
    noise = 0.2 * np.random.default_rng(1).standard_normal((EXACT_BELOW, 32))
    rows = l2_normalise(centres[np.arange(EXACT_BELOW) % 200] + noise)
    assert PairIndex(rows, kind="ivf").measure().recall > 0.95


def test_ivf_of_fewer_rows_than_it_would_have_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "EXACT_BELOW", 0)
    vectors = l2_normalise(np.random.default_rng(0).standard_normal((5, 8)))
    found = PairIndex(vectors, kind="ivf").search(vectors, 1)
    assert found.ids.shape == (5, 1)
