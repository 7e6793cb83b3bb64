"""The service of searches: batches, sharing, errors that stay with their request, and the bound of the queue."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.clips import write_clip
from helpers.tiny_encoder import TinyEncoder
from impart.errors import DataError, QueryError
from impart.serve.problems import Problem
from impart.serve.search.results import FoundHits, Results
from impart.serve.search.service import SearchService
from impart.video.index.index import Query, VideoIndex
from impart.video.search.query import SearchKeywords

COLOURS = ("red", "green", "blue", "white", "black", "yellow", "grey")
VIDEOS: SearchKeywords = {"group": "video", "by": "moment"}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> VideoIndex:
    folder = tmp_path_factory.mktemp("library")
    for number, colour in enumerate(COLOURS):
        other = COLOURS[(number + 1) % len(COLOURS)]
        write_clip(folder / f"{colour}.mp4", colours=[colour, other], seconds_each=1 + number / 4)
    index = VideoIndex.open(folder / "index", TinyEncoder())
    for _ in index.add([folder]):
        pass
    return index


@pytest.fixture
def service(index: VideoIndex) -> Iterator[SearchService]:
    made = SearchService(index, waiting=20)
    yield made
    made.close()


class Calls:
    """Counts the calls of `search_many`, and holds them until they may go on."""

    def __init__(self, index: VideoIndex, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        self.go_on = threading.Event()
        self.begun = threading.Event()
        search_many = index.search_many

        def counted(queries: list[Query], **keywords: Any) -> Any:
            self.sizes.append(len(queries))
            self.begun.set()
            assert self.go_on.wait(10)
            return search_many(queries, **keywords)

        monkeypatch.setattr(index, "search_many", counted)


async def until(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, 10)


def find(service: SearchService, text: str, *, offset: int = 0, limit: int = 3, **keywords: Any) -> Any:
    every = VIDEOS | keywords
    return service.find(f"{text} {every}", Query(text=text), every, offset=offset, limit=limit)  # type: ignore[arg-type]


def test_searches_that_wait_are_answered_together_with_the_hits_of_single_ones(
    index: VideoIndex, service: SearchService, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = {text: index.search(text=text, top=4) for text in COLOURS}
    calls = Calls(index, monkeypatch)

    async def ask() -> list[FoundHits]:
        first = asyncio.ensure_future(find(service, "a first one"))
        await until(calls.begun)
        others = [asyncio.ensure_future(find(service, text)) for text in COLOURS * 2]
        await asyncio.sleep(0.3)
        calls.go_on.set()
        return [await one for one in (first, *others)][1:]

    found = asyncio.run(ask())
    assert calls.sizes[0] == 1
    assert sum(calls.sizes) == 1 + len(COLOURS)  # equal searches once
    assert max(calls.sizes) > 2
    for text, one in zip(COLOURS * 2, found, strict=True):
        assert [hit.video_id for hit in one.hits] == [hit.video_id for hit in expected[text]]


def test_an_error_stays_with_its_request(
    index: VideoIndex, service: SearchService, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Calls(index, monkeypatch)
    missing = Query(image=Path("/nowhere/red.png"))

    async def ask() -> list[Any]:
        first = asyncio.ensure_future(find(service, "a first one"))
        await until(calls.begun)
        others = [
            find(service, "red"),
            find(service, "green", since="yesterday"),
            service.find("image", missing, VIDEOS, offset=0, limit=3),
            find(service, "blue"),
        ]
        waiting = asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0.2)
        calls.go_on.set()
        await first
        return await waiting

    red, bad, no_image, blue = asyncio.run(ask())
    assert isinstance(bad, QueryError)
    assert isinstance(no_image, DataError)
    assert red.hits[0].path.stem in ("red", "grey")
    assert blue.hits[0].path.stem in ("green", "blue")


def test_a_full_queue_refuses_with_the_time_to_try_again(
    index: VideoIndex, service: SearchService, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Calls(index, monkeypatch)

    async def ask() -> Problem:
        waiting = [asyncio.ensure_future(find(service, f"text {number}")) for number in range(20)]
        await until(calls.begun)
        with pytest.raises(Problem) as refused:
            await find(service, "one more")
        calls.go_on.set()
        await asyncio.gather(*waiting)
        await find(service, "one more")
        return refused.value

    problem = asyncio.run(ask())
    assert (problem.status, problem.code) == (429, "busy")
    assert int(problem.headers["Retry-After"]) >= 1


def test_pages_are_computed_in_growing_chunks_and_kept(
    index: VideoIndex, service: SearchService, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Calls(index, monkeypatch)
    calls.go_on.set()
    whole = index.search_many([Query(text="red")], group="frame", top=100)[0]
    calls.sizes.clear()

    async def page(offset: int) -> FoundHits:
        found: FoundHits = await find(service, "red", offset=offset, limit=2, group="frame")
        return found

    pages = [asyncio.run(page(offset)) for offset in range(0, len(whole), 2)]
    assert len(calls.sizes) < len(pages) / 2 + 1
    assert [hit.rank for hit in pages[-1].hits] == list(range(1, len(whole) + 1))
    assert [(hit.path, hit.start_s) for hit in pages[-1].hits] == [(hit.path, hit.start_s) for hit in whole]
    assert pages[-1].complete
    before = len(calls.sizes)
    asyncio.run(page(0))
    assert len(calls.sizes) == before


def test_results_are_bounded_by_their_hits(index: VideoIndex) -> None:
    (hit, *_) = index.search(text="red")
    results = Results(most_hits=100)
    for number in range(50):
        results.put(str(number), FoundHits(hits=(hit,) * 9, complete=False))
    assert len(results) == 10
    assert results.get("49") is not None
    assert results.get("0") is None
    results.put("49", FoundHits(hits=(hit,) * 1000, complete=True))
    assert len(results) == 1


def test_a_service_that_is_closed_answers_what_waits(index: VideoIndex) -> None:
    service = SearchService(index, waiting=20)

    async def ask() -> FoundHits:
        waiting = asyncio.ensure_future(find(service, "green"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        service.close()
        with pytest.raises(Problem):
            await find(service, "blue")
        found: FoundHits = await waiting
        return found

    assert asyncio.run(ask()).hits
