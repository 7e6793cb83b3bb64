"""Chapters: sorted, without overlaps, from 0 to the end, and read back from MP4 and Matroska."""

from __future__ import annotations

import re
from pathlib import Path

import av
import pytest

from helpers.clips import rotate, write_clip
from helpers.coded_films import numbers_of, write_coded_film
from impart.errors import DataError
from impart.video.export.source.facts import read_facts
from impart.video.export.spans import ExportSpan
from impart.video.export.timelines import write_timeline

WANTED = [(0, 1000, "-"), (1000, 1600, "dog"), (1600, 3000, "cat; a=b"), (3000, 4000, "-"), (4000, 5000, "bird"),
          (5000, 6000, "-")]  # fmt: skip


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    write_coded_film(path, frames=150)
    return path


def spans_of(film: Path) -> list[ExportSpan]:
    """Unsorted, and two of them overlap."""
    return [
        ExportSpan(path=film, start_s=4, end_s=5, label="bird"),
        ExportSpan(path=film, start_s=1, end_s=2, label="dog"),
        ExportSpan(path=film, start_s=1.6, end_s=3, label="cat; a=b"),
    ]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("source", [".mp4", ".mkv", ".ts"])
def test_chapters_in_a_copy_of_the_film(film: Path, tmp_path: Path, source: str, suffix: str) -> None:
    if source != ".mp4":
        film = tmp_path / f"film{source}"
        write_coded_film(film, frames=150, sound=source != ".ts")  # sound of a TS starts before its frames
    file = tmp_path / f"with{suffix}"
    write_timeline(spans_of(film), file, "chapters")
    with av.open(str(file)) as container:
        found = [
            (
                round(1000 * chapter["start"] * chapter["time_base"]),
                round(1000 * chapter["end"] * chapter["time_base"]),
                chapter["metadata"]["title"],
            )
            for chapter in container.chapters()
        ]
        assert len(container.streams.audio) == (source != ".ts")
    assert found == WANTED
    assert [number for _, number in numbers_of(file)] == list(range(150))
    assert [time_s for time_s, _ in numbers_of(file)] == pytest.approx([number / 25 for number in range(150)], abs=1e-3)


def test_a_copy_stays_upright_and_keeps_its_time_code(tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    write_coded_film(film, frames=50, timecode="10:00:00:00")
    rotate(film, 90)
    write_timeline([ExportSpan(path=film, start_s=0.4, end_s=1)], tmp_path / "with.mp4", "chapters")
    facts = read_facts(tmp_path / "with.mp4")
    assert facts.turned
    assert facts.timecode_at(0) == "10:00:00:00"


def test_ffmetadata(film: Path, tmp_path: Path) -> None:
    write_timeline(spans_of(film), tmp_path / "marks.ffmetadata", "chapters")
    text = (tmp_path / "marks.ffmetadata").read_text(encoding="utf-8")
    assert text.startswith(";FFMETADATA1\n")
    found = re.findall(r"\[CHAPTER\]\nTIMEBASE=1/1000\nSTART=(\d+)\nEND=(\d+)\ntitle=(.*)\n", text)
    assert [(int(start), int(end), re.sub(r"\\(.)", r"\1", title)) for start, end, title in found] == WANTED
    with av.open(str(tmp_path / "marks.ffmetadata"), format="ffmetadata") as container:  # FFmpeg's own reader
        assert [chapter["metadata"]["title"] for chapter in container.chapters()] == [title for *_, title in WANTED]


def test_a_span_within_another_one_cuts_it(film: Path, tmp_path: Path) -> None:
    spans = [
        ExportSpan(path=film, start_s=0, end_s=6, label="all"),
        ExportSpan(path=film, start_s=2, end_s=3, label="part"),
        ExportSpan(path=film, start_s=2, end_s=4, label="same start"),
    ]
    write_timeline(spans, tmp_path / "with.mp4", "chapters")
    with av.open(str(tmp_path / "with.mp4")) as container:
        found = [
            (round(1000 * one["start"] * one["time_base"]), one["metadata"]["title"]) for one in container.chapters()
        ]
    assert found == [(0, "all"), (2000, "same start"), (4000, "-")]


def test_a_copy_has_the_chapters_of_one_film(film: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.mp4"
    write_coded_film(other, frames=50)
    spans = [*spans_of(film), ExportSpan(path=other, start_s=0, end_s=1)]
    with pytest.raises(DataError, match="of one film"):
        write_timeline(spans, tmp_path / "with.mp4", "chapters")
    with pytest.raises(DataError, match="one of the exported videos"):
        write_timeline(spans_of(film), film, "chapters", overwrite=True)
    image = write_clip(tmp_path / "film.gif", fps=10)
    with pytest.raises(DataError, match="cannot hold gif"):
        write_timeline([ExportSpan(path=image, start_s=0, end_s=1)], tmp_path / "with.mkv", "chapters")
    written = write_timeline(spans, tmp_path / "marks.ffmetadata", "chapters")
    assert [file.name for file in written.files] == ["marks-film.ffmetadata", "marks-other.ffmetadata"]
