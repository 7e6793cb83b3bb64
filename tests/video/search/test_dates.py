"""Dates and lengths as people write them."""

from __future__ import annotations

import doctest
from datetime import UTC, datetime

import pytest

from impart.errors import QueryError
from impart.video.search import dates
from impart.video.search.dates import end_of, length_s, start_of


def local(*parts: int) -> float:
    return datetime(*parts).timestamp()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("date", "start", "end"),
    [
        ("2024", local(2024, 1, 1), local(2025, 1, 1)),
        ("2024-02", local(2024, 2, 1), local(2024, 3, 1)),
        ("2024-12", local(2024, 12, 1), local(2025, 1, 1)),
        ("2023-02-28", local(2023, 2, 28), local(2023, 3, 1)),
        (" 2024-5-1 ", local(2024, 5, 1), local(2024, 5, 2)),
        ("2024-05-01T18:30", local(2024, 5, 1, 18, 30), local(2024, 5, 1, 18, 31)),
        ("2024-05-01 18:30:20", local(2024, 5, 1, 18, 30, 20), local(2024, 5, 1, 18, 30, 21)),
        ("2024-05-01T18:30:00Z", 1714588200, 1714588201),
        ("2024-05-01T18:30+02:00", 1714581000, 1714581060),
        (1714588200, 1714588200, 1714588201),
        (datetime(2024, 5, 1, 18, 30, tzinfo=UTC), 1714588200, 1714588201),
    ],
)
def test_dates_are_periods(date: dates.Date, start: float, end: float) -> None:
    assert (start_of(date), end_of(date)) == (start, end)


@pytest.mark.parametrize(
    "date",
    [
        "",
        "May",
        "1.5.2024",
        "5/1/2024",
        "2024-13",
        "2024-02-30",
        "20240501",
        "2024-W18",
        "0000",
        "yesterday",
        "24-5",
        1e30,
    ],
)
def test_other_dates_are_errors_with_examples(date: dates.Date) -> None:
    with pytest.raises(QueryError, match=r"2024-05-01T18:30|outside the years"):
        start_of(date)


@pytest.mark.parametrize(
    ("length", "seconds"),
    [
        *[("90", 90), ("10s", 10), ("2.5", 2.5), ("5m", 300), ("5 min", 300), ("1h", 3600), ("1h30m", 5400)],
        *[("1m5s", 65), ("1:30", 90), ("1:02:03", 3723), ("0", 0), (7, 7), (0.5, 0.5)],
    ],
)
def test_lengths(length: dates.Length, seconds: float) -> None:
    assert length_s(length) == seconds


@pytest.mark.parametrize("length", ["", "10x", "-5", "s", "1:2:3:4", "m5", "nan", "five", -1.0, float("inf")])
def test_other_lengths_are_errors_with_examples(length: dates.Length) -> None:
    with pytest.raises(QueryError, match="1h30m"):
        length_s(length)


def test_examples() -> None:
    assert doctest.testmod(dates).failed == 0
