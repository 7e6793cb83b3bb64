"""Conditional and range requests, against the rules of RFC 9110."""

from __future__ import annotations

import pytest

from impart.serve.media.conditions import ByteSpan, Decision, decide, http_date

TAG, CHANGED_S, SIZE = '"abc"', 1_000_000_000.75, 1000


def answer(method: str = "GET", **headers: str) -> Decision:
    return decide(
        method,
        {name.replace("_", "-"): value for name, value in headers.items()},
        etag=TAG,
        modified_s=CHANGED_S,
        size=SIZE,
    )


@pytest.mark.parametrize(
    ("wanted", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=0-", 0, 999),
        ("bytes=10-19", 10, 19),
        ("bytes=990-5000", 990, 999),
        ("bytes=-5", 995, 999),
        ("bytes=-5000", 0, 999),
        ("BYTES = 7 - 8", 7, 8),
        ("bytes=0-9,10-19", 0, 19),  # they follow each other
        ("bytes=50-99,0-60", 0, 99),  # they overlap
        ("bytes=5-6,5000-", 5, 6),  # one of them is satisfiable
        ("bytes=,,3-4", 3, 4),
    ],
)
def test_ranges_that_are_one_span_are_answered_with_it(wanted, first, last):
    assert answer(range=wanted) == Decision(206, ByteSpan(first, last))


@pytest.mark.parametrize("wanted", ["bytes=1000-", "bytes=5000-6000", "bytes=-0", "bytes=1000-1001,2000-"])
def test_no_satisfiable_range_is_416(wanted):
    assert answer(range=wanted) == Decision(416)


@pytest.mark.parametrize(
    "wanted",
    [
        "bytes=9-3",
        "bytes=-",
        "bytes=a-b",
        "bytes=1",
        "bytes=",
        "bytes=,",
        "bytes=--5",
        "bytes=1-2-3",
        "bytes=²-5",
        "bytes",
        "items=0-5",
        "",
        "bytes=0-1,90-91",  # two spans
        "bytes=1" + "0" * 400 + "-",
    ],
)
def test_malformed_and_separate_ranges_are_ignored(wanted):
    assert answer(range=wanted) == Decision(200)


def test_a_list_of_very_many_ranges_is_ignored_without_parsing():
    assert answer(range="bytes=" + ",".join(["0-"] * 100_000)) == Decision(200)


def test_an_empty_file_has_no_satisfiable_range():
    assert decide("GET", {"range": "bytes=0-"}, etag=TAG, modified_s=0, size=0).status == 416
    assert decide("GET", {"range": "bytes=-5"}, etag=TAG, modified_s=0, size=0).status == 416


def test_head_has_no_ranges():
    assert answer("HEAD", range="bytes=0-5") == Decision(200)


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        (TAG, 206),
        ('"other"', 200),
        (f"W/{TAG}", 200),  # strong comparison
        (http_date(CHANGED_S), 206),
        (http_date(CHANGED_S - 1), 200),
        (http_date(CHANGED_S + 1), 200),  # an exact match is needed
        ("nonsense", 200),
    ],
)
def test_if_range(condition, status):
    assert answer(range="bytes=0-5", if_range=condition).status == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"if_none_match": TAG}, 304),
        ({"if_none_match": f"W/{TAG}"}, 304),
        ({"if_none_match": f'"x", {TAG}'}, 304),
        ({"if_none_match": "*"}, 304),
        ({"if_none_match": '"x"'}, 200),
        ({"if_modified_since": http_date(CHANGED_S)}, 304),
        ({"if_modified_since": http_date(CHANGED_S - 1)}, 200),
        ({"if_modified_since": "yesterday"}, 200),
        ({"if_none_match": '"x"', "if_modified_since": http_date(CHANGED_S)}, 200),  # the tag decides alone
        ({"if_match": TAG}, 200),
        ({"if_match": f"W/{TAG}"}, 412),
        ({"if_match": "*"}, 200),
        ({"if_match": '"x"'}, 412),
        ({"if_unmodified_since": http_date(CHANGED_S)}, 200),
        ({"if_unmodified_since": http_date(CHANGED_S - 1)}, 412),
        ({"if_none_match": TAG, "range": "bytes=0-5"}, 304),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_conditions(method, headers, status):
    assert answer(method, **headers).status == (200 if method == "HEAD" and status == 206 else status)
