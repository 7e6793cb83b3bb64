"""What browsers play: the decision by codec, container, pixel format, sound, fields and start."""

from __future__ import annotations

import re
from pathlib import Path

import av
import numpy as np
import pytest

from helpers.clips import mirror, rotate, write_clip, write_frames
from helpers.coded_films import coded_image, write_coded_film
from helpers.media_server import record_of
from helpers.photos import write_animation, write_photo
from impart.serve.media import playable as module
from impart.serve.media.playable import media_type_of, playable


def clip(path: Path, **options) -> Path:
    return write_clip(path, seconds_each=0.4, **options)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {}),
        ("a.m4v", {}),
        ("a.mov", {"audio": True}),
        ("a.mp4", {"audio": True, "bf": "3"}),
        ("a.webm", {"codec": "libvpx"}),
        ("a.webm", {"codec": "libvpx-vp9"}),
        ("b.mp4", {"codec": "libvpx-vp9"}),
    ],
)
def test_these_are_played_directly(tmp_path, name, options):
    found = playable(record_of(clip(tmp_path / name, **options)))
    assert (found.how, found.reason) == ("direct", None)


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("a.mkv", {}, "Matroska"),
        ("a.avi", {"codec": "mpeg4"}, "AVI"),
        ("a.ts", {}, "transport stream"),
        ("a.mp4", {"codec": "libx265", "x265-params": "log-level=error"}, r"H\.265"),
        ("a.mp4", {"codec": "mpeg4"}, "MPEG-4 Part 2"),
        ("a.gif", {}, "GIF"),
    ],
)
def test_these_need_a_preview_by_their_row_alone(tmp_path, monkeypatch, name, options, reason):
    record = record_of(clip(tmp_path / name, **options))
    monkeypatch.setattr(module, "open_video", None)  # it is not opened
    found = playable(record)
    assert found.how == "preview"
    assert found.reason is not None
    assert re.search(reason, found.reason)


@pytest.mark.parametrize("pix_fmt", ["yuv420p10le", "yuv422p", "yuv444p"])
def test_other_pixels_than_8_bit_420(tmp_path, pix_fmt):
    path = write_frames(tmp_path / "a.mp4", [coded_image(1)] * 5, times_s=[0, 0.1, 0.2, 0.3, 0.4], pix_fmt=pix_fmt)
    assert playable(record_of(path)).reason == f"not every browser plays H.264 in the pixel format {pix_fmt}"


def test_interlaced(tmp_path):
    path = clip(tmp_path / "a.mp4", flags="+ilme+ildct", **{"x264-params": "tff=1"})
    assert "interlaced" in (playable(record_of(path)).reason or "")


@pytest.mark.parametrize(("codec", "how"), [("aac", "direct"), ("pcm_s16le", "direct"), ("ac3", "preview")])
def test_sound_that_would_be_silent(tmp_path, codec, how):
    path = tmp_path / "a.mov"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 160, 96, "yuv420p"
        sound = container.add_stream(codec, rate=48_000, layout="stereo")
        for _ in range(10):
            container.mux(video.encode(av.VideoFrame.from_ndarray(coded_image(3), format="rgb24")))
        container.mux(video.encode(None))
        form = sound.format.name
        for number in range(10):
            count = 1024 if codec == "aac" else 1536
            planar = form.endswith("p")
            kind = np.float32 if form.startswith("flt") else np.int16
            silence = np.zeros((2, count) if planar else (1, 2 * count), kind)
            frame = av.AudioFrame.from_ndarray(silence, format=form, layout="stereo")
            frame.sample_rate, frame.pts = 48_000, number * count
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    found = playable(record_of(path))
    assert found.how == how
    assert how == "direct" or "AC-3" in (found.reason or "")


def test_a_start_that_browsers_do_not_take_off(tmp_path):
    write_coded_film(tmp_path / "late.mp4", times_s=[10 + n / 25 for n in range(30)], sound=False)
    assert "begin at 10.00 s" in (playable(record_of(tmp_path / "late.mp4")).reason or "")
    write_coded_film(tmp_path / "edit.mp4", times_s=[0.5 + n / 25 for n in range(30)])  # sound from 0
    assert playable(record_of(tmp_path / "edit.mp4")).how == "direct"


def test_turned_and_mirrored_files_are_played_as_they_are(tmp_path):
    assert playable(record_of(rotate(clip(tmp_path / "a.mp4"), 90))).how == "direct"
    assert playable(record_of(mirror(clip(tmp_path / "b.mp4"), left_right=True))).how == "direct"


@pytest.mark.parametrize(
    ("name", "codec", "how"),
    [
        ("a.jpg", "jpeg", "direct"),
        ("a.png", "png", "direct"),
        ("a.heic", "heif", "preview"),
        ("a.tif", "tiff", "preview"),
        ("a.nef", "jpeg", "preview"),  # the preview inside a raw file
    ],
)
def test_photos(tmp_path, name, codec, how):
    write_photo(tmp_path / "any.png")
    path = (tmp_path / "any.png").rename(tmp_path / name)
    assert playable(record_of(path, kind="photo", codec=codec)).how == how


def test_a_file_is_opened_once_until_it_changes(tmp_path, monkeypatch):
    record, count, opened = record_of(clip(tmp_path / "a.mp4")), [], module.open_video
    monkeypatch.setattr(module, "open_video", lambda path: (count.append(1), opened(path))[1])
    assert [playable(record).how for _ in range(5)] == ["direct"] * 5
    assert len(count) == 1
    write_frames(tmp_path / "a.mp4", [coded_image(1)] * 5, times_s=[0, 0.1, 0.2, 0.3, 0.4], pix_fmt="yuv444p")
    assert playable(record).how == "preview"
    assert len(count) == 2


def test_a_file_that_is_away_is_decided_by_its_row(tmp_path):
    record = record_of(clip(tmp_path / "a.mp4"))
    (tmp_path / "a.mp4").unlink()
    assert playable(record).how == "direct"


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("a.mp4", "video/mp4"),
        ("a.m4v", "video/mp4"),
        ("a.mov", "video/quicktime"),
        ("a.mkv", "video/matroska"),
        ("a.webm", "video/webm"),
        ("a.avi", "video/x-msvideo"),
        ("a.ts", "video/mp2t"),
    ],
)
def test_media_types(tmp_path, name, media_type):
    codec = {"a.webm": "libvpx", "a.avi": "mpeg4"}.get(name, "libx264")
    assert media_type_of(record_of(clip(tmp_path / name, codec=codec))) == media_type


def test_types_follow_the_content_and_not_the_name(tmp_path):
    path = clip(tmp_path / "a.mkv").rename(tmp_path / "a.mp4")
    assert media_type_of(record_of(path)) == "video/matroska"
    path = write_animation(tmp_path / "b.webp")
    assert media_type_of(record_of(path)) == "image/webp"
    path = clip(tmp_path / "c.mp4").rename(tmp_path / "c.html")
    assert media_type_of(record_of(path)) == "video/mp4"
