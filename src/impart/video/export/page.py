"""Page: hits of a search as one HTML file with thumbnails and players; it loads nothing from a network.

Thumbnails are inside the file. Players refer to the videos where they are, by `file:` addresses with a media fragment
(`#t=12.5,15`), so that they start at the moment; they work in a browser on the same computer.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote_from_bytes

from impart.errors import DataError
from impart.files import write_atomic
from impart.video.export.file_names import check_free, clean
from impart.video.export.thumbnails import Thumbnail, thumbnails
from impart.video.search.hits import Hit, timecode

__all__ = ["write_page"]

THUMB = (480, 270)
QUALITY = 78
MOST_MOMENTS = 12  # further moments of a hit
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --faint: #777; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 1.5rem auto; max-width: 1280px; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.hits { display: grid; grid-template-columns: repeat(auto-fill, minmax(290px, 1fr)); gap: 1.2rem; }
article { border: 1px solid var(--line); border-radius: 8px; overflow: hidden; }
video, article > img { display: block; width: 100%; aspect-ratio: 16/9; object-fit: contain; background: #000; }
.text { padding: .6rem .8rem .8rem; overflow-wrap: anywhere; }
.text p { margin: .15rem 0; } .faint, summary { color: var(--faint); font-size: .88rem; }
.rank { font-weight: 700; } .head { display: flex; gap: .5em; white-space: nowrap; }
.score { margin-left: auto; font-variant-numeric: tabular-nums; }
.name { background: #2a62; border-radius: 4px; padding: 0 .4em; } ul { margin: .3rem 0; padding-left: 1.2rem; }
"""
_MARK = '<meta name=generator content="impart search --page">'
_POLICY = "default-src 'none'; img-src data: file:; media-src file:; style-src 'unsafe-inline'"


def write_page(answers: Sequence[tuple[str, Sequence[Hit]]], file: Path) -> tuple[tuple[Path, str], ...]:
    """Write hits as one HTML page.

    Args:
        answers: queries with their hits, best first.
        file: the page; an earlier page of a search is replaced, another file is not.

    Returns:
        Videos without a thumbnail, and why.

    Raises:
        DataError: the page cannot be written there.
    """
    if file.suffix.lower() not in (".html", ".htm"):
        raise DataError(f"{file} does not end with .html: choose another name for the page")
    check_free([file], overwrite=_is_ours(file), sources=(hit.path for _, hits in answers for hit in hits))
    every = [hit for _, hits in answers for hit in hits]
    made = thumbnails([(hit.path, hit.best_s, hit.kind) for hit in every], size=THUMB)
    problems: dict[Path, str] = {}
    parts: list[str] = []
    for query, hits in answers:
        cards = []
        for hit in hits:
            thumb = next(made)
            if isinstance(thumb, DataError):
                problems.setdefault(hit.path, str(thumb))
            cards.append(_card(hit, thumb))
        found = f"<div class=hits>{''.join(cards)}</div>" if cards else "<p>no hits</p>"
        heading = f"<h2>{_text(query)} <span class=faint>{len(hits)} hits</span></h2>"
        parts.append(f"<section>{heading}{found}</section>")
    title = _text(answers[0][0] if len(answers) == 1 else f"{len(answers)} queries")
    page = (
        f'<!doctype html><html lang=en><head><meta charset="utf-8"><title>{title}</title>'
        f"{_MARK}"
        f'<meta name=viewport content="width=device-width">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )
    write_atomic(file, page)
    return tuple(problems.items())


def _is_ours(file: Path) -> bool:
    """Whether a file is a page of an earlier search."""
    try:
        with file.open("rb") as content:
            return _MARK.encode() in content.read(4096)
    except OSError:
        return False


def _card(hit: Hit, thumb: Thumbnail) -> str:
    image = "" if isinstance(thumb, DataError) else _data_uri(thumb)
    name = _text(Path(hit.path).name)
    if hit.kind == "photo":
        shown = f'<img src="{image}" alt="{name}">'
        times = f'<a href="{_address(hit.path)}" target=_blank>photo</a>'
    else:
        source = _address(hit.path, hit.start_s, hit.end_s)
        shown = f'<video controls preload=none poster="{image}" src="{source}"></video>'
        times = f'<a href="{source}" target=_blank>{timecode(hit.start_s)} – {timecode(hit.end_s)}</a>'
    rows = [
        f"<p class=head><span class=rank>{hit.rank}</span> {times} <span class=score>{hit.score:.3f}</span></p>",
        f'<p title="{_text(str(hit.path))}">{name}</p>',
    ]
    if hit.names:
        rows.append(f"<p>{' '.join(f'<span class=name>{_text(one)}</span>' for one in hit.names)}</p>")
    if isinstance(thumb, DataError):
        rows.append(f"<p class=faint>{_text(str(thumb))}</p>")
    if hit.moments:
        links = [
            f'<a href="{_address(hit.path, one.start_s, one.end_s)}" target=_blank>{timecode(one.start_s)[:-4]}</a>'
            for one in hit.moments[:MOST_MOMENTS]
        ]
        more = len(hit.moments) - len(links)
        rows.append(f"<p class=faint>also at {' '.join(links)}{f' and {more} more' if more > 0 else ''}</p>")
    rows += [f"<p class=faint>same content: {_text(str(path))}</p>" for path in hit.also_at]
    if hit.why:
        items = "".join(
            f"<li>{_text(reason.text)} <span class=faint>image {reason.weight_img:.3f}, text {reason.weight_txt:.3f}, "
            f"similarity {reason.similarity:.2f}</span></li>"
            for reason in hit.why
        )
        rows.append(f"<details><summary>{len(hit.why)} reference pairs</summary><ul>{items}</ul></details>")
    return f"<article>{shown}<div class=text>{''.join(rows)}</div></article>"


def _data_uri(image: Thumbnail) -> str:
    assert not isinstance(image, DataError)
    content = io.BytesIO()
    image.save(content, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode('ascii')}"


def _address(path: Path, start_s: float | None = None, end_s: float | None = None) -> str:
    """Make the `file:` address of a video, with a media fragment. Names that are no text are kept byte for byte."""
    path = Path(path).absolute()
    address = path.as_uri() if os.name == "nt" else f"file://{quote_from_bytes(os.fsencode(path))}"
    times = "" if start_s is None else f"#t={max(start_s, 0):.3f}" + ("" if end_s is None else f",{end_s:.3f}")
    return escape(address + times, quote=True)


def _text(text: str) -> str:
    return escape(clean(text), quote=True)
