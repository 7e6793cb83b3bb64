"""Pieces: every way to read rows equals that of one array, and nothing is copied where one run has the rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from impart.video.search.state.pieces import Pieces, Runs, products

SOURCES = [np.arange(40, dtype=np.float32).reshape(10, 4), 100 + np.arange(24, dtype=np.float32).reshape(6, 4)]
OFFSETS = [np.array([0, 2, 2, 7, 10]), np.array([0, 5, 6])]
CHOSEN = [(0, 2), (1, 1), (0, 0), (0, 1), (1, 0), (0, 3)]  # (source, video); video 1 of source 0 has no rows


@pytest.fixture
def runs() -> Runs:
    source = np.array([one for one, _ in CHOSEN])
    begin = np.array([OFFSETS[one][video] for one, video in CHOSEN])
    end = np.array([OFFSETS[one][video + 1] for one, video in CHOSEN])
    return Runs.of(source, begin, end)


@pytest.fixture
def plain() -> npt.NDArray[Any]:
    return np.concatenate([SOURCES[one][OFFSETS[one][video] : OFFSETS[one][video + 1]] for one, video in CHOSEN])


def test_runs_are_as_few_as_possible(runs: Runs, plain: npt.NDArray[Any]) -> None:
    assert runs.offsets.tolist() == [0, 5, 6, 8, 8, 13, 16]
    assert len(runs.source) == 5
    np.testing.assert_array_equal(runs.join(SOURCES), plain)
    neighbours = Runs.of(np.array([1, 1]), np.array([0, 5]), np.array([5, 6]))
    assert len(neighbours.source) == 1
    assert np.shares_memory(neighbours.choose(SOURCES), SOURCES[1])


INDICES = [
    3,
    -1,
    np.int64(7),
    slice(None),
    slice(1, 4),
    slice(3, 12),
    slice(0, 99, 3),
    slice(9, 2, -2),
    slice(5, 5),
    slice(12, 3),
    [0, 15, 7, 7],
    np.array([], np.int64),
    np.array([[3, 12], [8, -16]]),
    np.arange(16) % 3 == 0,
    (4, 2),
    (slice(2, 9), 1),
    (slice(2, 9), 1, None),
    (np.array([1, 14]), slice(1, 3)),
]


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_rows_are_those_of_one_array(runs: Runs, plain: npt.NDArray[Any], index: Any) -> None:
    pieces = runs.choose(SOURCES)
    assert isinstance(pieces, Pieces)
    np.testing.assert_array_equal(pieces[index], plain[index])
    assert np.asarray(pieces[index]).dtype == plain.dtype


def test_it_behaves_as_an_array(runs: Runs, plain: npt.NDArray[Any]) -> None:
    pieces = runs.choose(SOURCES)
    assert (len(pieces), pieces.shape, pieces.dtype, pieces.ndim) == (16, (16, 4), plain.dtype, 2)
    np.testing.assert_array_equal(np.asarray(pieces, np.float64), plain)
    np.testing.assert_array_equal(pieces.astype(np.float16), plain.astype(np.float16))
    np.testing.assert_array_equal(np.ones(16)[:, None] * pieces, plain)
    np.testing.assert_array_equal(np.stack(list(pieces)), plain)
    assert np.shares_memory(pieces[1:4], SOURCES[0])
    with pytest.raises(IndexError):
        pieces[16]


def test_products_are_those_of_one_array(runs: Runs, plain: npt.NDArray[Any]) -> None:
    queries = np.arange(8, dtype=np.float32).reshape(2, 4)
    np.testing.assert_array_equal(products(queries, runs.choose(SOURCES)), queries @ plain.T)


def test_no_videos_have_no_rows() -> None:
    none = np.zeros(0, np.int64)
    assert Runs.of(none, none, none).choose(SOURCES).shape == (0, 4)


@pytest.mark.parametrize("order", ["ascending", "mixed"])
def test_rows_are_the_same_in_few_and_in_many_stretches_of_a_source(order: str) -> None:
    rng = np.random.default_rng(5)
    arrays = [rng.standard_normal((50, 3)).astype(np.float16) for _ in range(4)]
    source, begin = np.tile(np.arange(4), 10), np.repeat(np.arange(10) * 5, 4)
    pieces = Pieces(Runs.of(source, begin, begin + 5), arrays)
    whole = np.asarray(pieces)
    rows = rng.integers(-len(whole), len(whole), 150)
    rows = np.sort(rows) if order == "ascending" else rows
    assert np.array_equal(pieces[rows], whole[rows])
    assert np.array_equal(pieces[np.int64(7)], whole[7])
    assert np.array_equal(pieces[-1], whole[-1])
    with pytest.raises(IndexError):
        pieces[len(whole)]
