"""Threads for products and searches: each piece of work on one thread, instead of the threads of BLAS and OpenMP.

Threads of a BLAS or of OpenMP wait for the next product in a loop (they spin). Beside an encoder that takes its cores:
the blend of a batch of 64 images took 9.9% of the time of encoding with two threads that spin, and 0.8% with one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any, TypeVar

from threadpoolctl import ThreadpoolController

__all__ = ["each", "in_pieces", "one_blas_thread", "one_faiss_thread"]

T = TypeVar("T")

_LOCK = Lock()
_LIMITS: list[Any] = []
"""The limit in force, once per user: the last one lifts it. Two limits would restore each other's."""


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Compute NumPy's products on the calling thread alone, in this block and in other threads meanwhile."""
    with _LOCK:
        _LIMITS.append(_LIMITS[0] if _LIMITS else _setter().submit(_limited).result())
    try:
        yield
    finally:
        with _LOCK:
            limit = _LIMITS.pop()
            if not _LIMITS:
                _setter().submit(limit.restore_original_limits).result()


@contextmanager
def one_faiss_thread() -> Iterator[None]:
    """Search with FAISS on the calling thread alone, in this block; OpenMP keeps the number per thread."""
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def in_pieces(count: int, work: Callable[[slice], None], *, rows: int) -> None:
    """Call `work` for consecutive pieces of n rows; several pieces in threads, each with products on one thread.

    Example:
        >>> done = []
        >>> in_pieces(5, done.append, rows=3)
        >>> sorted((piece.start, piece.stop) for piece in done)
        [(0, 3), (3, 5)]
    """
    each([slice(first, min(first + rows, count)) for first in range(0, count, rows)], work)


def each(items: Sequence[T], work: Callable[[T], None], *, on_done: Callable[[], None] | None = None) -> None:
    """Call `work` for each item; several items in threads, each with products on one thread.

    Args:
        items: independent parts of the work.
        work: called in several threads.
        on_done: called in this thread after each item, in order.

    Example:
        >>> done = []
        >>> each([3, 1, 2], done.append)
        >>> sorted(done)
        [1, 2, 3]
    """
    with one_blas_thread(), ThreadPoolExecutor(min(len(items), os.cpu_count() or 1) or 1, "impart-piece") as pool:
        for _ in pool.map(work, items) if len(items) > 1 else map(work, items):
            if on_done is not None:
                on_done()


@cache
def _setter() -> ThreadPoolExecutor:
    """Make the thread that sets the limits: threadpoolctl 3.8 obeys the first one that did, while it lives."""
    return ThreadPoolExecutor(1, "impart-blas")


def _limited() -> Any:
    return _blas("faiss" in sys.modules).limit(limits=1, user_api="blas")


@cache
def _blas(_with_faiss: bool) -> ThreadpoolController:
    """Find the libraries, which takes milliseconds; FAISS brings its own BLAS when it is imported."""
    return ThreadpoolController()
