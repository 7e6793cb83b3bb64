"""Bounded work: shared by key, limited, dropped when nobody waits."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from impart.serve.media.work import BusyError, CancelledWorkError, Work


class Gone:
    """Stands for a request whose client is gone."""

    async def receive(self) -> dict[str, str]:
        return {"type": "http.disconnect"}


def test_one_key_is_computed_once():
    calls = []

    def slow(_: threading.Event) -> int:
        calls.append(1)
        time.sleep(0.1)
        return 7

    async def main() -> list[int]:
        return await asyncio.gather(*(work.result("k", slow) for _ in range(20)))

    work: Work[int] = Work(workers=2, most_waiting=0, retry_s=1)
    assert asyncio.run(main()) == [7] * 20
    assert len(calls) == 1
    asyncio.run(work.result("k", slow))
    assert len(calls) == 2  # a cache is not its task
    work.close()


def test_no_more_than_the_workers_run_and_the_list_is_limited():
    running, most, gate = [], [], threading.Event()

    def step(_: threading.Event) -> None:
        running.append(1)
        most.append(len(running))
        gate.wait(5)
        running.pop()

    async def main() -> None:
        tasks = [asyncio.ensure_future(work.result(str(n), step)) for n in range(5)]
        await asyncio.sleep(0.05)
        with pytest.raises(BusyError) as refused:
            await work.result("6", step)
        assert refused.value.retry_s == 3
        gate.set()
        await asyncio.gather(*tasks)

    work: Work[None] = Work(workers=2, most_waiting=3, retry_s=3)
    asyncio.run(main())
    assert max(most) == 2
    work.close()


def test_errors_reach_all_that_wait_and_are_not_kept():
    def fails(_: threading.Event) -> int:
        time.sleep(0.02)
        raise ValueError("broken")

    async def main() -> list[object]:
        return await asyncio.gather(*(work.result("k", fails) for _ in range(3)), return_exceptions=True)

    work: Work[int] = Work(workers=1, most_waiting=0, retry_s=1)
    assert [type(error) for error in asyncio.run(main())] == [ValueError] * 3
    assert asyncio.run(work.result("k", lambda _: 1)) == 1
    work.close()


def test_work_that_nobody_waits_for_is_dropped_or_told_to_stop():
    started, told, ran = threading.Event(), threading.Event(), []

    def long(cancelled: threading.Event) -> None:
        started.set()
        if cancelled.wait(5):
            told.set()
            raise CancelledWorkError

    async def main() -> None:
        first = asyncio.ensure_future(work.result("running", long))
        while not started.is_set():
            await asyncio.sleep(0.005)
        second = asyncio.ensure_future(work.result("waiting", lambda _: ran.append(1)))
        await asyncio.sleep(0.01)
        for task in (second, first):
            task.cancel()
        await asyncio.gather(first, second, return_exceptions=True)

    work: Work[None] = Work(workers=1, most_waiting=1, retry_s=1)
    asyncio.run(main())
    assert told.wait(5)
    assert ran == []
    assert asyncio.run(work.result("next", lambda _: None)) is None  # there is room again
    work.close()


def test_one_that_leaves_does_not_stop_the_others():
    def slow(cancelled: threading.Event) -> str:
        return "stopped" if cancelled.wait(0.2) else "done"

    async def main() -> str:
        first = asyncio.ensure_future(work.result("k", slow))
        second = asyncio.ensure_future(work.result("k", slow))
        await asyncio.sleep(0.02)
        first.cancel()
        return await second

    work: Work[str] = Work(workers=1, most_waiting=0, retry_s=1)
    assert asyncio.run(main()) == "done"
    work.close()


def test_a_client_that_is_gone_leaves():
    told = threading.Event()

    def long(cancelled: threading.Event) -> None:
        if cancelled.wait(5):
            told.set()

    work: Work[None] = Work(workers=1, most_waiting=0, retry_s=1)
    with pytest.raises(CancelledWorkError):
        asyncio.run(work.result("k", long, request=Gone()))
    assert told.wait(1)
    work.close()


def test_closing_tells_what_runs_to_stop():
    started = threading.Event()

    def long(cancelled: threading.Event) -> bool:
        started.set()
        return cancelled.wait(5)

    async def main() -> list[object]:
        tasks = [asyncio.ensure_future(work.result(key, long)) for key in "ab"]
        while not started.is_set():
            await asyncio.sleep(0.005)
        await asyncio.to_thread(work.close)
        return await asyncio.gather(*tasks, return_exceptions=True)

    work: Work[bool] = Work(workers=1, most_waiting=1, retry_s=1)
    first, second = asyncio.run(main())
    assert first is True
    assert isinstance(second, BusyError)
