"""Previews on demand: made once, cut, kept, dropped when nobody waits."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time

import pytest

from helpers.coded_films import numbers_of, write_coded_film
from helpers.media_server import record_of
from impart.errors import DataError
from impart.serve.media.previews import MOST_S, Previews, PreviewSpan
from impart.serve.media.work import CancelledWorkError


@pytest.mark.parametrize(
    ("asked", "duration_s", "span"),
    [
        ((1, 3), 10, (1, 3, False)),
        ((1, 30), 10, (1, 10, False)),
        ((5, 500), 1000, (5, 5 + MOST_S, True)),
        ((5, 5 + MOST_S), 1000, (5, 5 + MOST_S, False)),
        ((0, 500), 130, (0, MOST_S, True)),
        ((0.12345, 0.98765), 10, (0.123, 0.988, False)),
        ((9.9999, 12), 10, (10, 10.001, False)),
    ],
)
def test_spans_are_within_the_video_and_below_the_limit(asked, duration_s, span):
    made = PreviewSpan.of(*asked, duration_s=duration_s)
    assert (made.start_s, made.end_s, made.cut) == pytest.approx(span)


def make(folder, **settings) -> Previews:
    return Previews(folder / "cache", **{"most_bytes": 1 << 24, "workers": 1, "most_waiting": 4} | settings)


def span_of(start_s: float, end_s: float) -> PreviewSpan:
    return PreviewSpan.of(start_s, end_s, duration_s=1000)


def test_a_preview_is_made_once_and_kept(tmp_path):
    write_coded_film(tmp_path / "film.mkv", frames=100)
    record, calls = record_of(tmp_path / "film.mkv"), []
    previews = make(tmp_path, on_made=calls.append)

    async def ask() -> list[str]:
        opened = await asyncio.gather(*(previews.opened(record, span_of(1, 2)) for _ in range(5)))
        for one, _ in opened:
            one.close()
        return [tag for _, tag in opened]

    assert len(set(asyncio.run(ask()))) == 1
    assert asyncio.run(ask())
    assert len(calls) == 1
    (file,) = (tmp_path / "cache").glob("*.mp4")
    assert numbers_of(file)[0][1] == 25
    os.utime(tmp_path / "film.mkv", ns=(1, 1))  # another content
    asyncio.run(ask())
    assert len(calls) == 2
    previews.close()


def test_a_bound_on_disk(tmp_path):
    write_coded_film(tmp_path / "film.mkv", frames=100)
    record = record_of(tmp_path / "film.mkv")
    previews = make(tmp_path, most_bytes=150_000)
    sizes = []
    for start_s in range(3):
        opened, _ = asyncio.run(previews.opened(record, span_of(start_s, start_s + 1)))
        sizes.append(opened.size)
        opened.close()
    kept = list((tmp_path / "cache").glob("*.mp4"))
    assert sum(path.stat().st_size for path in kept) <= max(150_000, max(sizes))
    previews.close()


def test_a_preview_that_nobody_waits_for_is_dropped(tmp_path):
    write_coded_film(tmp_path / "film.mkv", frames=2500)
    previews, started = make(tmp_path), time.monotonic()

    class Gone:
        async def receive(self) -> dict[str, str]:
            return {"type": "http.disconnect"}

    with pytest.raises(CancelledWorkError):
        asyncio.run(previews.opened(record_of(tmp_path / "film.mkv"), span_of(0, 100), request=Gone()))
    previews.close()  # waits for what runs
    assert time.monotonic() - started < 4
    assert list((tmp_path / "cache").iterdir()) == []


def test_errors_are_told_and_leave_nothing(tmp_path):
    write_coded_film(tmp_path / "film.mkv", frames=20)
    record = record_of(tmp_path / "film.mkv")
    (tmp_path / "film.mkv").write_bytes(b"x" * 5000)
    previews = make(tmp_path)
    with pytest.raises(DataError):
        asyncio.run(previews.opened(record, span_of(0, 1)))
    assert list((tmp_path / "cache").iterdir()) == []
    previews.close()


def test_searches_go_first(tmp_path, monkeypatch):
    if not hasattr(os, "getpriority"):
        pytest.skip("this system has no priorities")
    write_coded_film(tmp_path / "film.mkv", frames=20)
    numbers, popen = [], subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **kw: (numbers.append(popen(*a, **kw)), numbers[-1])[1])
    previews = make(tmp_path)
    asyncio.run(previews.opened(record_of(tmp_path / "film.mkv"), span_of(0, 0.5)))[0].close()
    assert os.getpriority(os.PRIO_PROCESS, numbers[0].pid) > os.getpriority(os.PRIO_PROCESS, 0)
    previews.close()
    assert numbers[0].wait(5) is not None
