"""Contact sheets: thumbnails with rank, time code, file name and score, as PNG, JPEG or PDF."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from impart.errors import DataError
from impart.files import atomic_path
from impart.video.export.file_names import check_free, clean
from impart.video.export.spans import ExportSpan, SpanFailure
from impart.video.export.thumbnails import thumbnails
from impart.video.export.timelines import Written
from impart.video.search.hits import timecode

__all__ = ["SHEET_SUFFIXES", "write_sheet"]

SHEET_SUFFIXES = (".png", ".jpg", ".jpeg", ".pdf")
COLUMNS = 4
THUMB = (320, 180)
TEXT_PX, LINE_PX, GAP_PX = 14, 18, 14
PDF_ROWS, IMAGE_ROWS = 6, 60  # on a page; an image of more rows would be too high for many viewers
PDF_DPI = 150
FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "Arial Unicode.ttf", "segoeui.ttf", "arial.ttf")
INK, FAINT, PAPER = (20, 20, 20), (100, 100, 100), (255, 255, 255)


def write_sheet(spans: Sequence[ExportSpan], file: Path, *, title: str = "", overwrite: bool = False) -> Written:
    """Write a contact sheet of spans and photos.

    Without a title, a label that all spans share is the title. A PDF has 24 spans per page, an image 240; further ones
    go to `NAME-2.png` and so on. A file that cannot be read keeps its place, with the reason, and counts as a failure.

    Raises:
        DataError: the name has another suffix, a file exists, or no span can be shown.
    """
    suffix = file.suffix.lower()
    if suffix not in SHEET_SUFFIXES:
        raise DataError(f"a contact sheet is a png, jpg or pdf file: name it {file.with_suffix('.png').name} with -o")
    if not spans:
        raise DataError("nothing to export: there are no spans")
    labels = {span.label for span in spans}
    if not title and len(labels) == 1:  # one search: its words stand above all
        (title,) = labels
        spans = [replace(span, label="") for span in spans]
    per_page = COLUMNS * (PDF_ROWS if suffix == ".pdf" else IMAGE_ROWS)
    parts = [list(spans[first : first + per_page]) for first in range(0, len(spans), per_page)]
    files = [file]
    if suffix != ".pdf":
        files += [file.with_name(f"{file.stem}-{number}{file.suffix}") for number in range(2, len(parts) + 1)]
    check_free(files, overwrite=overwrite, sources=(span.path for span in spans))
    font = _font()
    failures: list[SpanFailure] = []
    pages = []
    made = thumbnails([(span.path, span.frame_s, span.kind) for span in spans], size=THUMB)
    for part in parts:
        page = _blank(part, title=title, font=font)
        for place, span in enumerate(part):
            thumb = next(made)
            if isinstance(thumb, DataError):
                failures.append(SpanFailure(span=span, reason=str(thumb)))
            _draw(page, place, span, thumb if isinstance(thumb, Image.Image) else None, font=font, top=_head(title))
        pages.append(page)
    if len(failures) == len(spans):
        raise DataError(f"nothing to export: {failures[0].reason}")
    if suffix == ".pdf":
        with atomic_path(file, keep_suffix=True) as target:
            pages[0].save(
                target, "PDF", save_all=True, append_images=pages[1:], resolution=PDF_DPI, title=title or None
            )
    else:
        for page, one in zip(pages, files, strict=True):
            with atomic_path(one, keep_suffix=True) as target:
                page.save(target)
    return Written(files=tuple(files), spans=len(spans) - len(failures), failures=tuple(failures))


def _head(title: str) -> int:
    return GAP_PX + (2 * LINE_PX if title else 0)


def _blank(
    part: Sequence[ExportSpan], *, title: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> Image.Image:
    rows = -(-len(part) // COLUMNS)
    width = GAP_PX + COLUMNS * (THUMB[0] + GAP_PX)
    page = Image.new("RGB", (width, _head(title) + rows * _row()), PAPER)
    if title:
        _line(ImageDraw.Draw(page), (GAP_PX, GAP_PX), title, width - 2 * GAP_PX, font=font, ink=INK)
    return page


def _row() -> int:
    return THUMB[1] + 3 * LINE_PX + GAP_PX


def _draw(
    page: Image.Image,
    place: int,
    span: ExportSpan,
    thumb: Image.Image | None,
    *,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    top: int,
) -> None:
    row, column = divmod(place, COLUMNS)
    left, top = GAP_PX + column * (THUMB[0] + GAP_PX), top + row * _row()
    draw = ImageDraw.Draw(page)
    draw.rectangle((left, top, left + THUMB[0] - 1, top + THUMB[1] - 1), fill=(0, 0, 0))
    if thumb is not None:
        page.paste(thumb, (left + (THUMB[0] - thumb.width) // 2, top + (THUMB[1] - thumb.height) // 2))
    else:
        draw.text((left + 8, top + 8), "cannot be read", font=font, fill=PAPER)
    head = [f"{span.number}" if span.number else "", "photo" if span.kind == "photo" else _times(span)]
    if span.score is not None:
        head.append(f"{span.score:.3f}")
    below = top + THUMB[1] + 2
    for number, (text, ink) in enumerate(
        (("   ".join(part for part in head if part), INK), (span.path.name, INK), (span.label, FAINT))
    ):
        _line(draw, (left, below + number * LINE_PX), text, THUMB[0], font=font, ink=ink)


def _times(span: ExportSpan) -> str:
    return f"{timecode(span.start_s)} - {timecode(span.end_s)}"


def _line(
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    text: str,
    width: int,
    *,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    ink: tuple[int, int, int],
) -> None:
    """Draw one line; a longer text loses its middle, since names end with what distinguishes them."""
    text = clean(" ".join(text.split()))
    keep = len(text)
    short = text
    while keep > 1 and draw.textlength(short, font=font) > width:
        keep -= 1
        short = f"{text[: keep // 2]}…{text[len(text) - keep // 2 :]}"
    draw.text(at, short, font=font, fill=ink)


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Load a font with many scripts where the system has one, else Pillow's own, which has Latin letters."""
    for name in FONTS:
        try:
            return ImageFont.truetype(name, TEXT_PX)
        except OSError:
            continue
    return ImageFont.load_default(TEXT_PX)
