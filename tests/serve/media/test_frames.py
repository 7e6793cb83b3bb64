"""Frame images: the right frame with as little decoding as possible, kept, and made once."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.clips import quarters, rotate, write_frames
from helpers.coded_films import coded_image, number_in, write_coded_film
from helpers.media_server import record_of
from impart.errors import DataError
from impart.serve.media.frames import FrameImages
from impart.serve.media.sources import content_key
from impart.serve.media.worker.images import frame_webp
from impart.serve.media.worker.source import MediaSource
from impart.video.export.source.frames import frames_of_span, shown_frame


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
@pytest.mark.parametrize("gop", [12, 250])
def test_the_frame_alone_is_the_same_as_when_all_are_decoded(tmp_path, suffix, gop):
    path = tmp_path / f"film{suffix}"
    write_coded_film(path, frames=120, gop=gop)
    every = [(one.time_s, one.end_s, one.frame.to_ndarray()) for one in frames_of_span(path, 0, 100)]
    assert len(every) == 120
    for start_s, end_s, expected in every[::7]:
        shown = shown_frame(path, (start_s + end_s) / 2)
        assert shown.time_s == pytest.approx(start_s, abs=1e-3)
        assert np.array_equal(shown.frame.to_ndarray(), expected)


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {"bf": "3", "x264-params": "open-gop=1:b-pyramid=normal:keyint=20"}),
        ("b.mp4", "libx265", {"x265-params": "log-level=error:open-gop=1:keyint=20:bframes=3"}),
        ("c.mpg", "mpeg2video", {"bf": "2", "g": "12"}),
        ("d.webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "g": "30"}),
        ("e.avi", "mpeg4", {"bf": "2", "g": "20"}),
    ],
)
def test_frames_that_refer_beyond_a_key_frame(tmp_path, name, codec, options):
    path = tmp_path / name
    times = [number / 25 for number in range(75)]
    write_frames(path, [coded_image(n) for n in range(75)], times_s=times, codec=codec, **options)
    every = list(frames_of_span(path, 0, 100))
    for one in every[2:-2:5]:
        middle_s = (one.time_s + one.end_s) / 2
        assert number_in(shown_frame(path, middle_s).frame.to_ndarray(format="rgb24")) == number_in(
            one.frame.to_ndarray(format="rgb24")
        )


def test_frames_that_no_other_refers_to_are_left_out(tmp_path, monkeypatch):
    import impart.video.decode.timestamps as timestamps

    path, counts = tmp_path / "film.mp4", []
    write_coded_film(path, frames=120, gop=250)  # with B frames between the others
    add = timestamps.Tally.add_frame
    monkeypatch.setattr(timestamps.Tally, "add_frame", lambda *args, **kw: (counts.append(1), add(*args, **kw))[1])
    next(frames_of_span(path, 4.0, 4.01))
    every = len(counts)
    counts.clear()
    shown_frame(path, 4.0)
    assert len(counts) < 0.75 * every


def test_turned_and_wide_pixels(tmp_path):
    path = write_frames(tmp_path / "turned.mp4", [quarters()] * 10, times_s=[n / 10 for n in range(10)])
    rotate(path, 90)
    upright = pixels(frame_webp(MediaSource.of(record_of(path)), 0.5, width_px=160))
    assert upright.shape == (160, 120, 3)


def test_a_strip_is_not_higher_than_four_times_its_width(tmp_path):
    Image.new("RGB", (50, 20_000), "red").save(tmp_path / "strip.png")
    source = MediaSource.of(record_of(tmp_path / "strip.png", kind="photo", codec="png"))
    assert pixels(frame_webp(source, 0, width_px=160)).shape[0] <= 640


def test_one_frame_is_decoded_once_and_kept(tmp_path):
    write_coded_film(tmp_path / "film.mp4", frames=50)
    record, calls = record_of(tmp_path / "film.mp4"), []
    frames = FrameImages(
        tmp_path / "cache", most_bytes=1 << 20, workers=2, most_waiting=50, on_made=lambda s: calls.append(s)
    )

    async def ask(*times_s: float) -> list[bytes]:
        return await asyncio.gather(
            *(
                frames.webp(record, time_s, width_px=160, key=frames.key(record, time_s, width_px=160))
                for time_s in times_s
            )
        )

    same = asyncio.run(ask(*[1.0] * 10, 1.0001))
    assert len(calls) == 1
    assert len(set(same)) == 1
    assert asyncio.run(ask(1.0)) == same[:1]
    assert len(calls) == 1
    asyncio.run(ask(1.002))
    assert len(calls) == 2
    frames.close()


def test_a_cache_that_cannot_be_written_costs_no_frame(tmp_path):
    write_coded_film(tmp_path / "film.mp4", frames=20)
    (tmp_path / "cache").write_text("a file in place of the folder")
    record = record_of(tmp_path / "film.mp4")
    frames = FrameImages(tmp_path / "cache", most_bytes=1 << 20, workers=1, most_waiting=1)
    key = frames.key(record, 0.2, width_px=160)
    assert number_in(pixels(asyncio.run(frames.webp(record, 0.2, width_px=160, key=key)))) == 5
    frames.close()


def test_an_error_of_a_file_is_told_and_not_kept(tmp_path):
    write_coded_film(tmp_path / "film.mp4", frames=20)
    record = record_of(tmp_path / "film.mp4")
    content = (tmp_path / "film.mp4").read_bytes()
    (tmp_path / "film.mp4").write_bytes(b"no video" * 1000)
    frames = FrameImages(tmp_path / "cache", most_bytes=1 << 20, workers=1, most_waiting=1)
    with pytest.raises(DataError, match=r"film\.mp4"):
        asyncio.run(frames.webp(record, 0.2, width_px=160, key=frames.key(record, 0.2, width_px=160)))
    (tmp_path / "film.mp4").write_bytes(content)
    assert asyncio.run(frames.webp(record, 0.2, width_px=160, key=frames.key(record, 0.2, width_px=160)))
    frames.close()


def test_the_key_changes_with_the_file(tmp_path):
    path = tmp_path / "film.mp4"
    write_coded_film(path, frames=20)
    record = record_of(path)
    before = content_key(record)
    path.unlink()
    assert content_key(record) == before  # what was made of it is still found
    write_coded_film(path, frames=30)
    assert content_key(record) != before


def _joined(path: Path) -> Path:
    """Write a transport stream of two parts whose clocks both start at zero."""
    for name in "ab":
        write_coded_film(path.with_name(f"{name}.ts"), frames=60)
    path.write_bytes(path.with_name("a.ts").read_bytes() + path.with_name("b.ts").read_bytes())
    return path


def test_a_steady_transport_stream_is_not_read_whole_for_its_clock(tmp_path, monkeypatch):
    import impart.serve.media.worker.source as module

    write_coded_film(tmp_path / "steady.ts", frames=60)
    joined = _joined(tmp_path / "joined.ts")
    read, whole = [], module.has_jumps
    monkeypatch.setattr(module, "has_jumps", lambda path: (read.append(path.name), whole(path))[1])
    assert not MediaSource.of(record_of(tmp_path / "steady.ts", duration_s=2.4)).jumps
    assert read == []
    assert MediaSource.of(record_of(joined, duration_s=4.8)).jumps
    assert read == ["joined.ts"]
