"""Spans: what may be written on the command line and in files, and which words tell what is wrong."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest

from helpers.coded_films import write_coded_film
from impart.errors import DataError, QueryError
from impart.video.export.file_names import reel_names, safe_stem, unique_stems
from impart.video.export.source.facts import read_facts
from impart.video.export.source.timecode import Timebase, timecode_rate
from impart.video.export.spans import (
    ExportSpan,
    Handles,
    is_selection,
    parse_handles,
    parse_selection,
    parse_span,
    read_spans,
)
from impart.video.export.timelines import write_timeline


@pytest.mark.parametrize(
    ("text", "path", "start_s", "end_s"),
    [
        ("film.mp4@00:12-00:15.5", "film.mp4", 12, 15.5),
        ("a/b@c-d.mp4@1:02:03-1:02:04.25", "a/b@c-d.mp4", 3723, 3724.25),
        ("film.mp4@0-0.04", "film.mp4", 0, 0.04),
    ],
)
def test_spans_of_the_command_line(text: str, path: str, start_s: float, end_s: float) -> None:
    span = parse_span(text)
    assert (str(span.path), span.start_s, span.end_s) == (path, start_s, end_s)


@pytest.mark.parametrize(
    "text",
    [
        "film.mp4",
        "film.mp4@12",
        "film.mp4@3-2",
        "film.mp4@3-3",
        "@1-2",
        "film.mp4@a-b",
        "film.mp4@-1-2",
        "f@nan-2",
        "f@1-inf",
    ],
)
def test_what_is_no_span_is_refused_with_the_three_forms(text: str) -> None:
    with pytest.raises(QueryError, match=r"FILE@START-END.*1,3-5.*\.csv"):
        parse_span(text)


def test_numbers_of_hits() -> None:
    assert parse_selection("4,1-3,7") == [4, 1, 2, 3, 7]
    assert [is_selection(text) for text in ("1", "1,3-5", "1.mp4", "film", "1-", "-1")] == [True, True, *[False] * 4]
    with pytest.raises(QueryError, match="3-5"):
        parse_selection("5-3")


def test_handles() -> None:
    assert parse_handles("12f").seconds(Fraction(24000, 1001)) == pytest.approx(0.5005)
    assert parse_handles("0.5s") == parse_handles("0.5") == Handles(time_s=0.5)
    for text in ("x", "-1f", "-2s", "1.5f", "f", ""):
        with pytest.raises(QueryError, match="12f"):
            parse_handles(text)


def test_csv_and_json_files(tmp_path: Path) -> None:
    table = tmp_path / "spans.csv"
    table.write_text('\ufeffpath,start_s,end_s,label\n"a, b.mp4",1,2.5,dog\nc.mp4,00:03,00:04,\n', encoding="utf-8")
    spans = read_spans(table)
    assert [(str(span.path), span.start_s, span.end_s, span.label, span.number) for span in spans] == [
        ("a, b.mp4", 1, 2.5, "dog", 1),
        ("c.mp4", 3, 4, "", 2),
    ]
    listed = tmp_path / "spans.json"
    row = {"path": "a.mp4", "start_s": 1, "end_s": 2, "score": 0.5, "rank": 7, "kind": "photo"}
    for content in ([row], {"query": "dog", "hits": [row]}):
        listed.write_text(json.dumps(content))
        assert read_spans(listed) == [
            ExportSpan(path=Path("a.mp4"), start_s=1, end_s=2, score=0.5, number=7, kind="photo")
        ]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.csv", "path,start_s,end_s\na.mp4,1,2\nb.mp4,x,2\n", "row 2"),
        ("a.csv", "path,start_s\na.mp4,1\n", "row 1: has no end_s"),
        ("a.csv", "path,start_s,end_s\n", "no spans"),
        ("a.csv", "path,start_s,end_s\na.mp4,3,2\n", "not after the start"),
        ("a.json", "[1]", "row 1"),
        ("a.json", "{", "line 1"),
        ("a.json", '{"a": 1}', "hits"),
    ],
)
def test_a_damaged_file_names_its_row(tmp_path: Path, name: str, content: str, told: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=told):
        read_spans(tmp_path / name)
    with pytest.raises(DataError, match=r"none\.csv"):
        read_spans(tmp_path / "none.csv")


def test_an_exported_csv_is_read_again(tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    write_coded_film(film, frames=50)
    spans = [ExportSpan(path=film, start_s=0.25, end_s=1.5, label="x", number=3, score=0.25)]
    write_timeline(spans, tmp_path / "hits.csv", "csv")
    assert read_spans(tmp_path / "hits.csv") == spans


@pytest.mark.parametrize("nominal", [30, 60])
def test_drop_frame_equals_counting(nominal: int) -> None:
    """Count three hours frame by frame, skipping the first numbers of every minute but each tenth."""
    timebase = Timebase(Fraction(nominal * 1000, 1001), drop=True)
    number = 0
    for minute in range(0, 180):
        for second in range(60):
            for frame in range(nominal):
                if second == 0 and minute % 10 and frame < nominal // 15:
                    continue
                if frame in (0, nominal // 15, nominal - 1):
                    text = f"{minute // 60:02d}:{minute % 60:02d}:{second:02d};{frame:02d}"
                    assert timebase.text(number) == text
                    assert timebase.frame(text) == number
                number += 1
    assert abs(number / float(timebase.rate) - 3 * 3600) < 0.02  # in step with the clock


def test_time_codes_without_drop_frame() -> None:
    timebase = Timebase(Fraction(24000, 1001))
    assert timebase.text(3600 * 24 + 23) == "01:00:00:23"
    assert timebase.text(timebase.day + 1) == "00:00:00:01"
    assert timebase.frame("01:00:00:00") == 86_400
    for text in ("01:00:00", "00:00:00:24", "00:60:00:00", "x"):
        with pytest.raises(ValueError, match="no time code"):
            timebase.frame(text)


@pytest.mark.parametrize(
    ("average", "rate"),
    [
        ("24000/1001", "24000/1001"),
        ("2997/125", "24000/1001"),
        ("2997/100", "30000/1001"),
        ("24", "24"),
        ("15", "15"),
        ("25/2", "25"),
        ("120", "60"),
        ("240", "60"),
        ("120000/1001", "60000/1001"),
        ("2398/100", "24"),  # not 24000/1001: 17 s apart after a day
        ("2750/100", "30000/1001"),
        ("500", "60"),
    ],
)
def test_rates_are_exact(average: str, rate: str) -> None:
    assert timecode_rate(Fraction(average)) == Fraction(rate)


def test_names_are_unique_and_safe() -> None:
    paths = [Path(f"{folder}/Ein langer Name.mp4") for folder in "abc"]
    assert list(unique_stems(paths).values()) == ["Ein langer Name", "Ein langer Name-2", "Ein langer Name-3"]
    assert list(reel_names(paths).values()) == ["EINLANGE", "EINLAN02", "EINLAN03"]
    many = reel_names(Path(f"{number}/film.mp4") for number in range(300))
    assert len(set(many.values())) == 300
    assert max(map(len, many.values())) <= 8
    assert safe_stem("ü" * 200) == "ü" * 60
    assert safe_stem("...") == "video"


def test_facts_of_a_file(tmp_path: Path) -> None:
    film = tmp_path / "film.mov"
    write_coded_film(film, rate=Fraction(60000, 1001), frames=90, timecode="10:00:00:00")
    facts = read_facts(film)
    assert (facts.timebase.rate, facts.timebase.drop) == (Fraction(60000, 1001), False)  # `:` is no drop-frame
    assert facts.steady
    assert facts.frames == 90
    assert facts.timecode_at(61) == "10:00:01:01"
    assert (facts.sound_channels, facts.sound_hz) == (1, 48_000)
