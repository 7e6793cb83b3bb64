"""Rows that stay on disk: gathered, multiplied and read in blocks as an array would be."""

from __future__ import annotations

import numpy as np

from impart.encoders.base import l2_normalise
from impart.retrieval import rows as module
from impart.retrieval.nearest import PairIndex
from impart.retrieval.rows import MappedFile, StoredRows, blocks
from impart.retrieval.znorm import ZNorm


def halves(count: int, width: int = 16, seed: int = 0) -> np.ndarray:
    return l2_normalise(np.random.default_rng(seed).standard_normal((count, width))).astype(np.float16)


def in_pieces(whole: np.ndarray, *cuts: int) -> StoredRows:
    return StoredRows(np.split(whole, cuts), width=whole.shape[1])


def test_rows_are_those_of_the_whole_array() -> None:
    whole = halves(1000)
    stored, array = in_pieces(whole, 0, 300, 301, 999), whole.astype(np.float32)
    numbers = np.random.default_rng(1).integers(0, 1000, (7, 5))
    np.testing.assert_array_equal(stored[numbers], array[numbers])
    assert stored[np.empty((0, 3), np.int64)].shape == (0, 3, 16)
    assert stored.shape == array.shape
    np.testing.assert_allclose(stored @ array[:3].T, array @ array[:3].T, atol=1e-6)
    for one in (stored, array):
        parts = list(blocks(one, 128))
        np.testing.assert_array_equal(np.concatenate([part for _, part in parts]), array)
        assert [first for first, _ in parts] == np.cumsum([0, *(len(part) for _, part in parts)])[:-1].tolist()


def test_rows_of_a_file_are_read_without_keeping_its_pages(tmp_path, monkeypatch) -> None:
    whole = halves(20_000, 256)
    path = tmp_path / "rows"
    path.write_bytes(b"heading " + whole.tobytes())
    file = MappedFile(path)
    view = np.frombuffer(file.pages, np.float16, offset=8).reshape(-1, 256)
    stored = StoredRows([view[:9000], view[9000:]], width=256, file=file)
    numbers = np.random.default_rng(0).permutation(20_000)[:4000].reshape(40, 100)
    np.testing.assert_array_equal(stored[numbers], whole[numbers].astype(np.float32))
    given: list[int] = []
    monkeypatch.setattr(module, "_RELEASE", 1_000_000)
    monkeypatch.setattr(file, "release", lambda: given.append(1))
    read = [part.copy() for _, part in stored.blocks(1000)]
    np.testing.assert_array_equal(np.concatenate(read), whole.astype(np.float32))
    assert len(given) >= 5


def test_exact_search_of_stored_rows_is_that_of_the_array() -> None:
    whole = halves(5000)
    array, queries = whole.astype(np.float32), halves(40, seed=1).astype(np.float32)
    found = PairIndex(in_pieces(whole, 700, 4000), kind="exact").search(queries, 8)
    want = PairIndex(array, kind="exact").search(queries, 8)
    np.testing.assert_array_equal(found.ids, want.ids)
    np.testing.assert_allclose(found.sims, want.sims, atol=1e-6)


def test_background_statistics_of_stored_rows_are_those_of_the_array() -> None:
    whole = halves(3000)
    found, want = ZNorm.of(in_pieces(whole, 1000)), ZNorm.of(whole.astype(np.float32))
    np.testing.assert_allclose(found.mean, want.mean, atol=1e-7)
    np.testing.assert_allclose(found.covariance, want.covariance, atol=1e-7)
