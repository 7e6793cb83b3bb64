"""Previews as files: right frames at right times, upright, SDR, 8 bit, with sound, index first."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from helpers.clips import mirror, quarters, rotate, write_clip, write_frames
from helpers.coded_films import clicks_of, numbers_of, write_coded_film
from impart.errors import DataError
from impart.serve.media.worker.transcode import LONGEST_SIDE_PX, write_preview


def preview(path: Path, start_s: float, end_s: float) -> Path:
    target = path.with_name(f"{path.name}.preview.mp4")
    write_preview(path, start_s, end_s, target, jumps=False)
    return target


def boxes(path: Path) -> list[str]:
    content, at, names = path.read_bytes(), 0, []
    while at < len(content):
        names.append(content[at + 4 : at + 8].decode())
        at += int.from_bytes(content[at : at + 4], "big")
    return names


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".mov"])
def test_frames_and_sound_at_their_times(tmp_path, suffix):
    path = tmp_path / f"film{suffix}"
    write_coded_film(path, frames=150)
    shift_s = numbers_of(path)[0][0] if suffix == ".ts" else 0.0  # a transport stream begins later
    with av.open(str(path)) as source:
        shift_s -= (source.start_time or 0) / 1e6 if suffix == ".ts" else 0
    got = preview(path, 2.0, 4.0)
    numbers = numbers_of(got)
    assert 49 <= len(numbers) <= 51
    for time_s, number in numbers[1:]:
        assert abs(number / 25 + shift_s - 2 - time_s) < 0.03
    clicks = clicks_of(got)
    assert len(clicks) == 2  # of the frames 72 and 96
    for click_s, number in zip(clicks, (72, 96), strict=True):
        assert abs(click_s - (number / 25 - 2)) < 0.06


def test_what_every_browser_plays(tmp_path):
    write_coded_film(tmp_path / "film.mkv", frames=100)
    got = preview(tmp_path / "film.mkv", 0, 2)
    names = boxes(got)
    assert names.index("moov") < names.index("mdat")
    assert "moof" not in names
    with av.open(str(got)) as container:
        video, sound = container.streams.video[0], container.streams.audio[0]
        assert container.start_time == 0
        assert (video.codec_context.name, video.codec_context.pix_fmt, sound.codec_context.name) == (
            "h264",
            "yuv420p",
            "aac",
        )
        assert video.sample_aspect_ratio in (None, 1)


def test_variable_rates_keep_their_times(tmp_path):
    times = [0.0, 0.04, 0.5, 1.5, 1.54, 3.0]
    write_coded_film(tmp_path / "film.mp4", times_s=times)
    assert [(round(t, 2), n) for t, n in numbers_of(preview(tmp_path / "film.mp4", 0.5, 3.0))] == [
        (0.0, 2),
        (1.0, 3),
        (1.04, 4),
    ]


def test_all_frames_at_60_fps_though_matroska_rounds_their_times(tmp_path):
    write_coded_film(tmp_path / "film.mkv", times_s=[n / 60 for n in range(60)])
    assert [number for _, number in numbers_of(preview(tmp_path / "film.mkv", 0, 0.8))] == list(range(48))


@pytest.mark.parametrize("change", ["turned", "mirrored", "plain"])
def test_upright_without_a_display_matrix(tmp_path, change):
    path = write_frames(tmp_path / "film.mp4", [quarters()] * 25, times_s=[n / 25 for n in range(25)])
    expected = quarters()
    if change == "turned":
        rotate(path, 90)
        expected = np.rot90(expected, -1)
    if change == "mirrored":
        mirror(path, left_right=True)
        expected = expected[:, ::-1]
    from impart.video.export.source.frames import frame_image

    index = frame_image(path, 0.5, short_side_px=120)
    with av.open(str(preview(path, 0, 1))) as container:
        frame = next(container.decode(video=0))
        shown = frame.to_ndarray(format="rgb24")
        assert frame.rotation == 0
    assert shown.shape == index.shape == expected.shape
    assert np.abs(shown.astype(int) - index.astype(int)).mean() < 6


def test_large_frames_are_made_smaller_with_square_pixels(tmp_path):
    path = tmp_path / "wide.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 1440, 1080, "yuv420p"
        stream.sample_aspect_ratio = Fraction(4, 3)
        for _ in range(5):
            frame = av.VideoFrame.from_ndarray(np.full((1080, 1440, 3), 90, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with av.open(str(preview(path, 0, 1))) as container:
        video = container.streams.video[0]
        assert (video.width, video.height) == (LONGEST_SIDE_PX, LONGEST_SIDE_PX * 9 // 16)


def test_hdr_and_ten_bits_become_sdr(tmp_path):
    from av.video.reformatter import ColorPrimaries, Colorspace, ColorTrc

    path = tmp_path / "hdr.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx265", rate=25, options={"x265-params": "log-level=error", "crf": "8"})
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p10le"
        context = stream.codec_context
        context.color_trc, context.color_primaries = ColorTrc.SMPTE2084, ColorPrimaries.BT2020
        context.colorspace = Colorspace.BT2020
        for _ in range(10):
            frame = av.VideoFrame.from_ndarray(np.full((96, 160, 3), 148, np.uint8), format="rgb24")  # 203 cd/m2
            frame = frame.reformat(format="yuv420p10le", dst_colorspace=Colorspace.BT2020)
            frame.color_trc, frame.color_primaries = ColorTrc.SMPTE2084, ColorPrimaries.BT2020
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with av.open(str(preview(path, 0, 1))) as container:
        frame = next(container.decode(video=0))
        assert frame.format.name == "yuv420p"
        assert frame.color_trc == ColorTrc.BT709
        assert frame.to_ndarray(format="rgb24").mean() > 240  # diffuse white is white


def test_colours_are_the_same_by_both_ways(tmp_path):
    for name in ("red", "green", "blue"):
        path = write_clip(tmp_path / f"{name}.mp4", colours=[name], seconds_each=0.4)
        with av.open(str(path)) as container:
            before = next(container.decode(video=0)).to_ndarray(format="rgb24").mean(axis=(0, 1))
        plain = _mean_colour(preview(path, 0, 1))
        turned = _mean_colour(preview(rotate(path, 90), 0, 1))
        assert np.abs(plain - before).max() < 4
        assert np.abs(turned - before).max() < 4


def _mean_colour(path: Path) -> np.ndarray:
    from av.video.reformatter import Colorspace

    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        assert frame.colorspace == Colorspace.ITU709
        return frame.to_ndarray(format="rgb24").mean(axis=(0, 1))


@pytest.mark.parametrize("end_s", [2.0, 2.01, 2.5, 3.99, 4.0])
def test_it_lasts_as_long_as_the_span(tmp_path, end_s):
    write_coded_film(tmp_path / "film.mp4", frames=100)
    with av.open(str(preview(tmp_path / "film.mp4", 1.0, end_s))) as container:
        for stream in (container.streams.video[0], container.streams.audio[0]):
            assert abs(float(stream.duration * stream.time_base) - (end_s - 1)) < 0.03


def test_high_rates_are_thinned_out(tmp_path):
    write_clip(tmp_path / "fast.mp4", seconds_each=1, fps=240)
    with av.open(str(preview(tmp_path / "fast.mp4", 0, 1))) as container:
        assert 50 <= sum(1 for _ in container.decode(video=0)) <= 61


def test_what_is_no_video_is_named(tmp_path):
    (tmp_path / "text.mp4").write_text("nothing " * 1000)
    with pytest.raises(DataError, match=r"text\.mp4"):
        preview(tmp_path / "text.mp4", 0, 1)
