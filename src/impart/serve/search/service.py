"""Searches of one server: requests wait in a bounded queue, and are answered in batches.

One thread encodes the texts of the requests that wait, another one ranks the batch before: 50 texts take a fifth less
time in batches than one by one, and one pass over the index answers all queries with the same options. Equal searches
that wait at the same time are answered once.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal

from threadpoolctl import threadpool_limits

from impart.errors import ImpartError
from impart.serve.problems import Problem
from impart.serve.search.asked import Similar
from impart.serve.search.results import FoundHits, Results
from impart.video.index.index import VideoIndex
from impart.video.search.hits import Hit
from impart.video.search.query import Query, SearchKeywords

__all__ = ["MOST_HITS", "Observe", "SearchService"]

Observe = Callable[[Literal["encode", "retrieve"], float], None]
"""Is told how many seconds a stage of a batch took."""

_AT_ONCE = 16  # queries of a batch; more make each wait longer and are hardly faster
_MOST_CHUNK = 1000  # hits that are computed at once for deep pages
_RETRY_S = 1

MOST_HITS = 100_000
"""Hits of one search that can be paged through."""


@dataclass(frozen=True, eq=False)
class _Waiting:
    """A search that waits.

    Attributes:
        key: names the search and the state of the index, see `SearchService.find`.
        offset, top: the hits that are computed.
    """

    key: str
    query: Query | Similar
    keywords: SearchKeywords
    offset: int
    top: int
    before: tuple[Hit, ...]
    found: Future[FoundHits] = field(default_factory=Future)


class SearchService:
    """Answers the searches of one server; `close` ends its threads.

    Args:
        index: whose state is held and refreshed by a `Refresher`.
        waiting: searches that may wait; more are refused.
        observe: told the times of the stages.
    """

    def __init__(self, index: VideoIndex, *, waiting: int, observe: Observe | None = None) -> None:
        self._index = index
        self._most = waiting
        self._observe = observe or (lambda _stage, _seconds: None)
        self._results = Results()
        self._lock = threading.Lock()
        self._in_flight: dict[tuple[str, int, int], _Waiting] = {}
        self._encoding: queue.Queue[_Waiting | None] = queue.Queue()
        self._ranking: queue.Queue[list[_Waiting] | None] = queue.Queue(1)
        self._closed = False
        # The threads of a BLAS wait in a loop for the next product, and take the cores from the other requests.
        self._limits = threadpool_limits(1, user_api="blas")
        self._threads = [
            threading.Thread(target=work, name=name, daemon=True)
            for name, work in (("impart-encode", self._encode), ("impart-rank", self._rank))
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop; searches that wait are answered first."""
        self._closed = True
        self._encoding.put(None)
        for thread in self._threads:
            thread.join(10)
        self._limits.restore_original_limits()

    async def find(
        self, key: str, query: Query | Similar, keywords: SearchKeywords, *, offset: int, limit: int
    ) -> FoundHits:
        """Find at least the hits up to the end of a page, where there are as many.

        Args:
            key: names query and keywords.
            offset: hits before the page; limit: of the page.

        Raises:
            Problem: 429, too many searches wait; 404, the video of a moment is not in the index.
            QueryError: the query or an option is not valid.
        """
        if not self._index.exists:
            return FoundHits(hits=(), complete=True)
        key = f"{self._index.searcher.state.in_force()} {key}"
        found = self._results.get(key)
        while found is None or not found.has(offset, limit):
            waiting = self._enqueue(key, query, keywords, found, offset=offset, limit=limit)
            found = await asyncio.shield(asyncio.wrap_future(waiting.found))
        return found

    def _enqueue(
        self,
        key: str,
        query: Query | Similar,
        keywords: SearchKeywords,
        found: FoundHits | None,
        *,
        offset: int,
        limit: int,
    ) -> _Waiting:
        """Let a search wait for the hits behind those that are known, or join one that waits."""
        before = () if found is None else found.hits
        # Each chunk is as long as all before, so that a long list takes few searches.
        top = min(max(offset + limit + 1 - len(before), len(before)), _MOST_CHUNK, MOST_HITS)
        place = (key, len(before), top)
        with self._lock:
            waiting = self._in_flight.get(place)
            if waiting is None:
                if self._closed:
                    raise Problem(503, "stopping", "the server stops", headers={"Retry-After": "5"})
                if len(self._in_flight) >= self._most:
                    raise Problem(
                        429,
                        "busy",
                        f"{len(self._in_flight)} searches wait already: try again in a second",
                        headers={"Retry-After": str(_RETRY_S)},
                    )
                waiting = _Waiting(key, query, keywords, len(before), top, before)
                self._in_flight[place] = waiting
                self._encoding.put(waiting)
            return waiting

    def _encode(self) -> None:
        """Take the searches that wait, encode their texts, and pass them on."""
        while True:
            batch = _taken(self._encoding)
            alive = None not in batch
            asked = [one for one in batch if one is not None]
            began = time.perf_counter()
            texts = [one.query for one in asked if isinstance(one.query, Query)]
            try:
                if texts and self._index.exists:
                    self._index.searcher.encode(texts)
                    self._observe("encode", time.perf_counter() - began)
            except ImpartError:
                pass  # the search meets it again, and tells whose it is
            if asked:
                self._ranking.put(asked)
            if not alive:
                self._ranking.put(None)
                return

    def _rank(self) -> None:
        """Rank batches until the service stops."""
        while (batch := self._ranking.get()) is not None:
            began = time.perf_counter()
            groups: dict[str, list[_Waiting]] = {}
            for one in batch:
                alone = isinstance(one.query, Similar) or one.query.has_image
                same = id(one) if alone else sorted(one.keywords.items(), key=str)
                groups.setdefault(f"{same} {one.offset} {one.top}", []).append(one)
            for group in groups.values():
                self._answer(group)
            self._observe("retrieve", time.perf_counter() - began)

    def _answer(self, group: Sequence[_Waiting]) -> None:
        """Answer searches with equal options in one call; where that fails, one by one."""
        try:
            found = self._search(group)
        except Exception as error:  # noqa: BLE001 - of any kind: it is the requests', and the thread goes on
            if len(group) > 1:
                for one in group:
                    self._answer([one])
                return
            self._done(group[0])
            group[0].found.set_exception(error)
            return
        for one, result in zip(group, found, strict=True):
            self._results.put(one.key, result)
            self._done(one)
            one.found.set_result(result)

    def _done(self, one: _Waiting) -> None:
        with self._lock:
            self._in_flight.pop((one.key, one.offset, one.top), None)

    def _search(self, group: Sequence[_Waiting]) -> list[FoundHits]:
        first = group[0]
        keywords: Any = {**first.keywords, "top": first.top, "offset": first.offset}
        queries = [one.query for one in group if isinstance(one.query, Query)]
        if isinstance(first.query, Similar):
            state = self._index.searcher.current() if self._index.exists else None
            number = None if state is None else state.number_of.get(first.query.video_id)
            if state is None or number is None:
                detail = f"the index has no video {first.query.video_id!r}: search again, or list /videos"
                raise Problem(404, "video_not_found", detail)
            of_queries = [self._index.similar(state.paths[number], first.query.at_s, **keywords)]
            names: list[tuple[str, ...]] = [()]
        else:
            of_queries = self._index.search_many(queries, **keywords)
            names = [()] * len(queries)
            if first.keywords.get("names") and self._index.exists:
                names = self._index.searcher.names_in(queries)
        return [
            FoundHits(hits=(*one.before, *hits), complete=len(hits) < one.top, names=of_query)
            for one, hits, of_query in zip(group, of_queries, names, strict=True)
        ]


def _taken(waiting: queue.Queue[_Waiting | None]) -> list[_Waiting | None]:
    """Take what waits, at least one and at most `_AT_ONCE`; None comes last."""
    batch = [waiting.get()]
    while batch[-1] is not None and len(batch) < _AT_ONCE:
        try:
            batch.append(waiting.get_nowait())
        except queue.Empty:
            break
    return batch
