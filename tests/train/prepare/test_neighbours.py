"""Neighbours against a naive loop; the image itself and near-duplicates are masked."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the extra `train`")

from helpers.generators import drain
from impart.encoders.base import l2_normalise
from impart.retrieval.nearest import PairIndex
from impart.train.events import Preparing
from impart.train.prepare.neighbours import NeighbourTable, find_neighbours, nearest


def _vectors(count, width=12, seed=0):
    return l2_normalise(np.random.default_rng(seed).standard_normal((count, width)))


def test_neighbours_against_a_naive_loop():
    references, queries = _vectors(300), _vectors(40, seed=1)
    references[17] = queries[3]  # the image itself
    references[18] = l2_normalise((queries[3] + 0.01 * references[18])[None])[0]  # and a near-duplicate
    groups = np.arange(300)
    own = np.full(40, -1)
    own[5] = 99
    found = nearest(PairIndex(references), queries, 6, groups=groups, own=own, near_duplicate=0.97)
    assert found.masked >= 2
    for row, query in enumerate(queries):
        cosines = references @ query
        allowed = [n for n in np.argsort(-cosines, kind="stable") if cosines[n] <= 0.97 and groups[n] != own[row]]
        assert found.ids[row].tolist() == allowed[:6]
        assert np.allclose(found.sims[row], cosines[allowed[:6]], atol=1e-5)


def test_masked_duplicates_are_replaced_and_missing_references_are_minus_one():
    references = _vectors(60)
    references[:40] = references[0]
    queries = references[:1]
    found = nearest(PairIndex(references), queries, 8, groups=np.arange(60), own=np.full(1, -1), near_duplicate=0.97)
    assert (found.ids[0] >= 40).all()
    assert found.masked >= 40
    few = nearest(PairIndex(references), queries, 30, groups=np.arange(60), own=np.full(1, -1), near_duplicate=0.97)
    assert (few.ids[0][:20] >= 40).all()
    assert (few.ids[0][20:] == -1).all()
    assert (few.sims[0][20:] == -1).all()


def test_the_table_is_stored_mapped_and_made_again_when_the_vectors_change(tmp_path):
    references, queries = _vectors(200), _vectors(50, seed=1)
    options = {
        "k": 4,
        "query_hashes": [f"q{n}" for n in range(49)] + ["r7"],
        "reference_hashes": [f"r{n}" for n in range(200)],
        "near_duplicate": 0.97,
    }
    progress, table = drain(find_neighbours(tmp_path, queries, references, **options))
    assert progress == [Preparing(what="neighbours", done=50, total=50)]
    assert isinstance(table, NeighbourTable)
    assert isinstance(table.ids, np.memmap)
    assert 7 not in table.ids[49]
    progress, again = drain(find_neighbours(tmp_path, queries, references, **options))
    assert progress == []
    assert np.array_equal(again.ids, table.ids)
    assert again.masked == table.masked
    progress, _ = drain(find_neighbours(tmp_path, queries[::-1].copy(), references, **options))
    assert progress != []
