"""Products on one thread each: the limit holds while anyone needs it, and is lifted afterwards."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from impart.retrieval.nearest import PairIndex
from impart.retrieval.threads import each, in_pieces, one_blas_thread


def blas_threads() -> set[int]:
    """Threads of NumPy's own library; other packages bring theirs, at any time."""
    found = [one for one in threadpool_info() if one["user_api"] == "blas" and "numpy" in one["filepath"]]
    return {one["num_threads"] for one in found}


def test_the_last_user_lifts_the_limit() -> None:
    np.ones((4, 4)) @ np.ones((4, 4))
    before = blas_threads()
    first, second = one_blas_thread(), one_blas_thread()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert blas_threads() == {1}
    second.__exit__(None, None, None)
    assert blas_threads() == before


def test_an_error_of_a_piece_is_raised_and_lifts_the_limit() -> None:
    before = blas_threads()

    def fail(part: slice) -> None:
        raise ValueError(part.start)

    with pytest.raises(ValueError, match="0"):
        in_pieces(5, fail, rows=2)
    assert blas_threads() == before


def test_a_search_leaves_the_threads_of_faiss_as_they_were() -> None:
    import faiss

    before = faiss.omp_get_max_threads()
    rows = np.eye(8, dtype=np.float32)
    assert PairIndex(rows).search(rows, 1).ids[:, 0].tolist() == list(range(8))
    assert faiss.omp_get_max_threads() == before


def test_each_item_is_done_in_threads_and_told_in_this_one() -> None:
    where, told = set[str](), list[str]()

    def work(number: int) -> None:
        time.sleep(0.01 * (3 - number))
        where.add(threading.current_thread().name)

    each([0, 1, 2], work, on_done=lambda: told.append(threading.current_thread().name))
    assert told == [threading.current_thread().name] * 3
    assert threading.current_thread().name not in where
    each([], work, on_done=lambda: told.append("none"))
    assert len(told) == 3
    with pytest.raises(ZeroDivisionError):
        each([1, 0], lambda number: divmod(1, number))
