"""Sheets and pages: every hit has its thumbnail and its words, whatever its name; nothing is loaded from a network."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote_to_bytes

import numpy as np
import pytest
from PIL import Image

from helpers.clips import write_clip
from impart.errors import DataError
from impart.video.export.page import write_page
from impart.video.export.sheet import COLUMNS, GAP_PX, THUMB, write_sheet
from impart.video.export.spans import ExportSpan
from impart.video.search.hits import Hit, Moment, Reason


class Page(HTMLParser):
    """Collects tags with their attributes, and the text."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def film(tmp_path: Path) -> Path:
    path = tmp_path / "film.mp4"
    return write_clip(path, colours=["red", "blue", "green"], seconds_each=1, size=(320, 180))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.new("RGB", (100, 200), (255, 255, 0)).save(path)
    return path


def hit(path: Path, rank: int, start_s: float, end_s: float, **more: object) -> Hit:
    values: dict[str, object] = {
        "rank": rank,
        "path": path,
        "start_s": start_s,
        "end_s": end_s,
        "score": 0.25,
        "video_id": "1",
        "best_s": (start_s + end_s) / 2,
        "scene_start_s": 0.0,
        "scene_end_s": 1.0,
        "video_s": 3.0,
    }
    return Hit(**(values | more))  # type: ignore[arg-type]


def colour_of(image: Image.Image, place: int, *, top: int = GAP_PX) -> str:
    row, column = divmod(place, COLUMNS)
    x = GAP_PX + column * (THUMB[0] + GAP_PX) + THUMB[0] // 2
    y = top + row * (THUMB[1] + 54 + GAP_PX) + THUMB[1] // 2
    values = np.asarray(image.convert("RGB"))[y, x].astype(int)
    names = {(1, 0, 0): "red", (0, 1, 0): "green", (0, 0, 1): "blue", (1, 1, 0): "yellow", (0, 0, 0): "black"}
    return names[tuple((values > 100).astype(int))]  # type: ignore[index]


def test_a_sheet_shows_each_span_in_its_place(tmp_path: Path, film: Path, photo: Path) -> None:
    spans = [
        ExportSpan(path=film, start_s=1, end_s=2, number=1, score=0.3),
        ExportSpan(path=film, start_s=0, end_s=1, number=2),
        ExportSpan(path=photo, start_s=0, end_s=0, number=3, kind="photo"),
        ExportSpan(path=tmp_path / "gone.mp4", start_s=0, end_s=1, number=4),
        ExportSpan(path=film, start_s=0, end_s=3, shown_s=2.5, number=5, label="a long " * 30),
    ]
    written = write_sheet(spans, tmp_path / "sheet.png")
    assert (written.spans, [failure.span.number for failure in written.failures]) == (4, [4])
    sheet = Image.open(tmp_path / "sheet.png")
    assert [colour_of(sheet, place) for place in range(5)] == ["blue", "red", "yellow", "black", "green"]
    below = np.asarray(sheet)[GAP_PX + THUMB[1] : GAP_PX + THUMB[1] + 36, GAP_PX : GAP_PX + THUMB[0]]
    assert (below < 100).any()  # there is text


def test_the_words_of_a_search_stand_above_its_hits(tmp_path: Path, photo: Path) -> None:
    spans = [ExportSpan(path=photo, start_s=0, end_s=0, kind="photo", label=label) for label in ("dog", "dog", "cat")]
    write_sheet(spans[:2], tmp_path / "one.png")
    write_sheet(spans, tmp_path / "two.png")
    heads = [np.asarray(Image.open(tmp_path / name))[: 2 * GAP_PX + 10] for name in ("one.png", "two.png")]
    assert (heads[0] < 100).any(axis=2).sum() < 400  # letters
    assert (heads[0] < 100).any()
    assert Image.open(tmp_path / "one.png").height == Image.open(tmp_path / "two.png").height + 36


def test_a_pdf_has_a_page_per_24_spans_and_an_image_a_file_per_240(
    tmp_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans = [ExportSpan(path=photo, start_s=0, end_s=0, kind="photo", number=number) for number in range(1, 51)]
    write_sheet(spans, tmp_path / "sheet.pdf", title="fifty")
    content = (tmp_path / "sheet.pdf").read_bytes()
    assert content.startswith(b"%PDF")
    assert len(re.findall(rb"/Type /Page\b", content)) == 3
    monkeypatch.setattr("impart.video.export.sheet.IMAGE_ROWS", 6)
    written = write_sheet(spans, tmp_path / "sheet.jpg")
    assert [file.name for file in written.files] == ["sheet.jpg", "sheet-2.jpg", "sheet-3.jpg"]


def test_a_sheet_replaces_nothing_and_names_its_formats(tmp_path: Path, photo: Path) -> None:
    span = ExportSpan(path=photo, start_s=0, end_s=0, kind="photo")
    with pytest.raises(DataError, match="one of the exported"):
        write_sheet([span], photo, overwrite=True)
    with pytest.raises(DataError, match=r"sheet\.png"):
        write_sheet([span], tmp_path / "sheet.docx")
    (tmp_path / "sheet.png").touch()
    with pytest.raises(DataError, match="--overwrite"):
        write_sheet([span], tmp_path / "sheet.png")


def test_a_page_has_players_at_the_moment_and_thumbnails_inside(tmp_path: Path, film: Path, photo: Path) -> None:
    odd = tmp_path / 'a "b" <i>&\udc80#?%20.mp4'
    film.rename(odd)
    reason = Reason(text="<b>a red wall</b>", source="", weight_img=0.2, weight_txt=0.1, similarity=0.9)
    hits = [
        hit(odd, 1, 1.0, 1.5, why=(reason,), names=("Rex & co",)),
        hit(photo, 2, 0, 0, kind="photo"),
        hit(tmp_path / "gone.mp4", 3, 0, 1),
        hit(odd, 4, 2.0, 3.0, moments=(Moment(start_s=0.5, end_s=0.75, score=0.2, best_s=0.5),)),
    ]
    problems = write_page([("<script>alert(1)</script>", hits)], tmp_path / "hits.html")
    assert [path.name for path, _ in problems] == ["gone.mp4"]
    page = Page(tmp_path / "hits.html")
    videos = page.all("video")
    assert [(video["src"] or "").rpartition("#")[2] for video in videos] == [
        "t=1.000,1.500",
        "t=0.000,1.000",
        "t=2.000,3.000",
    ]
    address = (videos[0]["src"] or "").rpartition("#")[0]
    assert unquote_to_bytes(address.removeprefix("file://")) == str(odd).encode("utf-8", "surrogateescape")
    poster = Image.open(io.BytesIO(base64.b64decode((videos[0]["poster"] or "").partition(",")[2])))
    assert np.asarray(poster)[50, 50].argmax() == 2  # blue at 1.25 s
    assert not page.all("script")
    assert not page.all("b")
    assert "<script>alert(1)</script>" in page.text
    assert 'a "b" <i>&?#?%20.mp4' in page.text
    assert "<b>a red wall</b>" in page.text
    assert "Rex & co" in page.text
    assert "similarity 0.90" in page.text
    assert "gone.mp4: no such file" in page.text
    assert [one["alt"] for one in page.all("img")] == ["photo.png"]
    moment = next(one for one in page.all("a") if (one["href"] or "").endswith("#t=0.500,0.750"))
    assert (moment["href"] or "").startswith("file://")
    raw = (tmp_path / "hits.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://", raw)
    policy = next(one["content"] for one in page.all("meta") if one.get("http-equiv"))
    assert (policy or "").startswith("default-src 'none'")


def test_a_page_replaces_pages_alone(tmp_path: Path, photo: Path) -> None:
    file = tmp_path / "hits.html"
    hits = [hit(photo, 1, 0, 0, kind="photo")]
    write_page([("a", hits)], file)
    write_page([("b", hits), ("none", [])], file)
    assert "2 queries" in Page(file).text
    assert "no hits" in Page(file).text
    file.write_text("<html>mine")
    with pytest.raises(DataError, match="exists"):
        write_page([("a", hits)], file)
    with pytest.raises(DataError, match=r"\.html"):
        write_page([("a", hits)], tmp_path / "hits.txt")


def test_a_page_of_a_hundred_hits(tmp_path: Path, film: Path) -> None:
    hits = [hit(film, rank, rank / 40, rank / 40 + 0.2) for rank in range(1, 101)]
    write_page([("colours", hits)], tmp_path / "hits.html")
    assert len(Page(tmp_path / "hits.html").all("video")) == 100
    assert (tmp_path / "hits.html").stat().st_size < 3_000_000
