"""Spans of one pair of videos: joined where they continue, dropped where found twice."""

from __future__ import annotations

import pytest

from impart.video.copies.spans import AlignedSpan, joined, seconds_of


def span(start_s: float, end_s: float, at_s: float, *, score: float = 0.9, mirrored: bool = False) -> AlignedSpan:
    length_s = end_s - start_s
    return AlignedSpan(
        start_s=start_s,
        end_s=end_s,
        video_start_s=at_s,
        video_end_s=at_s + length_s,
        speed=1.0,
        score=score,
        evidence_s=length_s * score,
        mirrored=mirrored,
    )


def test_spans_of_overlapping_chunks_become_one() -> None:
    (one,) = joined([span(0, 20, 100), span(10, 30, 110.25), span(20, 37, 120)])
    assert (one.start_s, one.end_s, one.video_start_s, one.video_end_s) == (0, 37, 100, 137)
    assert one.speed == pytest.approx(1)
    assert one.evidence_s == pytest.approx(37 * 0.9)


def test_two_places_of_one_part_are_two_spans_unless_one_is_much_worse() -> None:
    assert len(joined([span(0, 5, 10), span(0, 5, 60, score=0.85)])) == 2
    assert [one.video_start_s for one in joined([span(0, 5, 60, score=0.65), span(0, 5, 10)])] == [10]


def test_a_short_span_beside_a_long_one_is_no_second_place() -> None:
    long, tail = span(0, 10, 37), span(8, 10, 47.2)
    assert joined([long, tail]) == [long]
    assert len(joined([long, span(8, 10, 80)])) == 2


def test_a_span_found_in_both_views_is_mirrored_only_where_that_fits_clearly_better() -> None:
    assert [one.mirrored for one in joined([span(0, 5, 10, score=0.9), span(0, 5, 10, score=0.91, mirrored=True)])] == [
        False
    ]
    assert [one.mirrored for one in joined([span(0, 5, 10, score=0.8), span(0, 5, 10, score=0.95, mirrored=True)])] == [
        True
    ]


def test_exchanged_spans_map_back() -> None:
    one = AlignedSpan(
        start_s=2, end_s=6, video_start_s=30, video_end_s=35, speed=1.25, score=0.8, evidence_s=3, mirrored=False
    )
    assert one.reversed().reversed() == one
    assert one.reversed().at(one.at(4)) == pytest.approx(4)


def test_the_length_of_a_union_counts_overlaps_once() -> None:
    assert seconds_of([(5, 6), (0, 2), (1, 3)]) == 4
    assert seconds_of([]) == 0
