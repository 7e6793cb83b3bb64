"""The media of one server: shares of the cache, and timings of what was made."""

from __future__ import annotations

import asyncio

from helpers.coded_films import write_coded_film
from helpers.media_server import record_of
from impart.serve.media.media import Media
from impart.serve.media.previews import PreviewSpan


def test_only_what_is_made_is_timed(tmp_path):
    write_coded_film(tmp_path / "film.mkv", frames=50)
    record, made = record_of(tmp_path / "film.mkv"), []
    media = Media(tmp_path / "cache", cache_mb=10, on_made=lambda what, seconds: made.append((what, seconds > 0)))

    async def ask() -> None:
        await media.frames.webp(record, 1.0, width_px=160, key=media.frames.key(record, 1.0, width_px=160))
        opened, _ = await media.previews.opened(record, PreviewSpan(start_s=0, end_s=1, cut=False))
        opened.close()

    asyncio.run(ask())
    asyncio.run(ask())
    media.close()
    assert made == [("frames", True), ("previews", True)]
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["frames", "previews"]
