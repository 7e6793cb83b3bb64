"""Clips: the first and last frame are the asked ones, sound stays in step, and copies say how far they moved."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import ColorPrimaries, Colorspace, ColorTrc

from helpers.clips import quarters, rotate, write_clip, write_frames
from helpers.coded_films import EVERY, clicks_of, coded_image, number_in, numbers_of, write_coded_film
from impart.errors import DataError
from impart.video.export.clips import copy_clip, encode_clip, write_clips
from impart.video.export.source.facts import read_facts
from impart.video.export.source.frames import frames_of_span
from impart.video.export.spans import ExportSpan, Handles
from impart.video.index.files.scan import content_hash

RATES = {
    "23.976": Fraction(24000, 1001),
    "25": Fraction(25),
    "29.97": Fraction(30000, 1001),
    "59.94": Fraction(60000, 1001),
    "12.5": Fraction(25, 2),
}


def span_of(path: Path, times: list[float], first: int, last: int, *, off: float = 0.0) -> ExportSpan:
    """Frames first..last, with bounds moved by a part of a frame."""
    step = times[1] - times[0]
    return ExportSpan(path=path, start_s=times[first] + off * step, end_s=times[last + 1] + off * step)


@pytest.mark.parametrize("off", [0.0, 0.3, -0.3])
@pytest.mark.parametrize("name", RATES)
def test_the_first_and_last_frame_are_exact(tmp_path: Path, name: str, off: float) -> None:
    film = tmp_path / "film.mp4"
    times = write_coded_film(film, rate=RATES[name], frames=130)
    clip = encode_clip(span_of(film, times, 53, 97, off=off), tmp_path / "clip.mp4")
    found = numbers_of(clip.file)
    assert [number for _, number in found] == list(range(53, 98))
    assert found[0][0] == 0
    for time_s, number in found:
        assert time_s == pytest.approx(times[number] - times[53], abs=1e-4)
    assert clip.codec == "H.264 (x264)"
    with av.open(str(clip.file)) as container:
        assert container.streams.video[0].average_rate == RATES[name]


@pytest.mark.parametrize("suffix", [".mkv", ".ts", ".mov", ".avi"])
def test_every_container_is_cut_exactly(tmp_path: Path, suffix: str) -> None:
    film = tmp_path / f"film{suffix}"
    if suffix == ".avi":
        images = [coded_image(number) for number in range(120)]
        times = [number / 25 for number in range(121)]
        write_frames(film, images, times_s=times[:-1], codec="mpeg4", bf="2", g="24", q="2")
    else:
        times = write_coded_film(film, frames=120, gop=24)
    first_s = read_facts(film).first_s
    span = ExportSpan(path=film, start_s=times[40] + first_s, end_s=times[71] + first_s)
    clip = encode_clip(span, tmp_path / "clip.mp4")
    assert [number for _, number in numbers_of(clip.file)] == list(range(40, 71))


def test_variable_rates_keep_their_times(tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    steps = np.random.default_rng(0).choice([1 / 60, 1 / 30, 1 / 10, 0.25], 90)
    times = [0.0, *(float(time_s) for time_s in np.cumsum(steps))]
    write_coded_film(film, times_s=times, rate=Fraction(30))
    clip = encode_clip(ExportSpan(path=film, start_s=times[30], end_s=times[61]), tmp_path / "clip.mp4")
    found = numbers_of(clip.file)
    assert [number for _, number in found] == list(range(30, 61))
    for time_s, number in found:
        assert time_s == pytest.approx(times[number] - times[30], abs=2e-4)
    with av.open(str(clip.file)) as container:
        video = container.streams.video[0]
        assert float(video.duration * video.time_base) == pytest.approx(times[61] - times[30], abs=2e-4)


def test_sound_stays_in_step_with_the_frames(tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    times = write_coded_film(film, rate=Fraction(30000, 1001), frames=240)
    for copy in (False, True):
        span = span_of(film, times, 60, 200)
        clip = (copy_clip if copy else encode_clip)(span, tmp_path / f"clip-{copy}.mp4")
        shown = {number: time_s for time_s, number in numbers_of(clip.file)}
        clicked = [time_s for number, time_s in shown.items() if number % EVERY == 0]
        heard = clicks_of(clip.file)
        assert len(clicked) - 1 <= len(heard) <= len(clicked)  # one on the very edge may be lost
        for time_s in heard:
            assert min(abs(time_s - one) for one in clicked) < 0.012


def test_a_clip_of_a_film_whose_sound_starts_late_has_silence_first(tmp_path: Path) -> None:
    film = tmp_path / "film.mkv"
    with av.open(str(film), "w") as container:
        video, sound = container.add_stream("libx264", rate=25), container.add_stream("aac", rate=48_000)
        video.width, video.height, video.pix_fmt = 160, 96, "yuv420p"
        for number in range(100):
            frame = av.VideoFrame.from_ndarray(coded_image(number), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for first in range(96_000, 190_000, 1024):  # from 2 s on
            wave = np.full((1, 1024), 0.5, np.float32) * np.cos(np.arange(1024) / 4, dtype=np.float32)
            piece = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            piece.sample_rate, piece.pts, piece.time_base = 48_000, first, Fraction(1, 48_000)
            container.mux(sound.encode(piece))
        container.mux(sound.encode(None))
    clip = encode_clip(ExportSpan(path=film, start_s=1, end_s=3), tmp_path / "clip.mp4")
    with av.open(str(clip.file)) as container:
        heard = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    loud = np.flatnonzero(np.abs(heard) > 0.2)
    assert loud[0] / 48_000 == pytest.approx(1.0, abs=0.03)
    assert len(heard) / 48_000 == pytest.approx(2.0, abs=0.03)


def test_turned_films_stay_upright(tmp_path: Path) -> None:
    film = write_frames(tmp_path / "film.mp4", [quarters()] * 50, times_s=[number / 25 for number in range(50)])
    rotate(film, 90)
    for copy in (False, True):
        span = ExportSpan(path=film, start_s=0, end_s=1)
        clip = (copy_clip if copy else encode_clip)(span, tmp_path / f"clip{copy}.mp4")
        with av.open(str(clip.file)) as container, av.open(str(film)) as original:
            assert next(container.decode(video=0)).rotation == next(original.decode(video=0)).rotation != 0


def test_hdr_stays_hdr(tmp_path: Path) -> None:
    film = tmp_path / "film.mkv"
    options = {"preset": "ultrafast", "x265-params": "log-level=error:colorprim=bt2020:transfer=smpte2084:"}
    options["x265-params"] += "colormatrix=bt2020nc"
    with av.open(str(film), "w") as container:
        video = container.add_stream("libx265", rate=25, options=options)
        video.width, video.height, video.pix_fmt = 160, 96, "yuv420p10le"
        for number in range(30):
            image = av.VideoFrame.from_ndarray(coded_image(number), format="rgb24")
            frame = image.reformat(format="yuv420p10le", dst_colorspace=Colorspace.BT2020)
            frame.color_trc, frame.color_primaries = ColorTrc.SMPTE2084, ColorPrimaries.BT2020
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    clip = encode_clip(ExportSpan(path=film, start_s=0.4, end_s=0.8), tmp_path / "clip.mp4")
    assert "HDR" in clip.codec
    with av.open(str(clip.file)) as container:
        frames = list(container.decode(video=0))
    assert frames[0].format.name == "yuv420p10le"
    assert (frames[0].color_trc, frames[0].color_primaries) == (ColorTrc.SMPTE2084, ColorPrimaries.BT2020)
    assert frames[0].colorspace == Colorspace.BT2020
    assert [number_in(frame.to_ndarray(format="rgb24")) for frame in frames] == list(range(10, 20))


def test_odd_sizes_and_short_spans_work(tmp_path: Path) -> None:
    images = [np.full((61, 81, 3), 10 * number, np.uint8) for number in range(20)]
    film = write_frames(tmp_path / "film.mp4", images, times_s=[number / 25 for number in range(20)])
    clip = encode_clip(ExportSpan(path=film, start_s=0.4, end_s=0.4001), tmp_path / "clip.mp4")
    with av.open(str(clip.file)) as container:
        frames = list(container.decode(video=0))
    assert [(frame.width, frame.height) for frame in frames] == [(80, 60)]


def test_time_code_goes_on(tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    times = write_coded_film(film, rate=Fraction(30000, 1001), frames=150, timecode="00:59:58;00", gop=30)
    span = span_of(film, times, 61, 100)
    assert read_facts(encode_clip(span, tmp_path / "clip.mp4").file).timecode_at(0) == "01:00:00;01"
    assert read_facts(copy_clip(span, tmp_path / "copy.mp4").file).timecode_at(0) == "01:00:00;00"


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_a_copy_starts_at_zero_and_says_how_far_it_moved(tmp_path: Path, suffix: str) -> None:
    film = tmp_path / f"film{suffix}"
    times = write_coded_film(film, frames=200, gop=25)
    first_s = read_facts(film).first_s
    span = ExportSpan(path=film, start_s=times[60] + first_s, end_s=times[90] + first_s)
    clip = copy_clip(span, tmp_path / f"copy{'.mp4' if suffix == '.mp4' else '.mkv'}")
    found = numbers_of(clip.file)
    assert [number for _, number in found] == list(range(50, 100))  # key frames 50 and 100
    assert found[0][0] == 0
    assert clip.start_s - first_s == pytest.approx(2.0, abs=1e-3)
    assert clip.end_s - first_s == pytest.approx(4.0, abs=1e-3)
    assert "0.400 s before and ends 0.400 s behind" in clip.notes[0]
    with av.open(str(clip.file)) as container:
        assert abs(container.start_time or 0) < 30_000
        assert all((stream.start_time or 0) >= 0 for stream in container.streams)


def test_a_copy_up_to_the_end_of_the_film_ends_there(tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    write_coded_film(film, frames=60, gop=25, sound=False)
    clip = copy_clip(ExportSpan(path=film, start_s=2.1, end_s=9), tmp_path / "copy.mp4")
    assert [number for _, number in numbers_of(clip.file)] == list(range(50, 60))
    assert "0.100 s before and ends 0.000 s behind" in clip.notes[0]


def test_what_cannot_be_copied_can_be_encoded(tmp_path: Path) -> None:
    film = write_clip(tmp_path / "film.gif", colours=["red", "blue"], fps=10)
    span = ExportSpan(path=film, start_s=0.5, end_s=1.5)
    with pytest.raises(DataError, match=r"\.mkv holds no gif. Leave --copy out"):
        copy_clip(span, tmp_path / "copy.mkv")
    with av.open(str(encode_clip(span, tmp_path / "clip.mp4").file)) as container:
        assert len(list(container.decode(video=0))) == 10


def test_a_copy_changes_no_packet(tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    write_coded_film(film, frames=100, gop=25)

    def packets(file: Path) -> list[bytes]:
        with av.open(str(file)) as container:
            return [bytes(packet) for packet in container.demux(video=0) if packet.size]

    copied = packets(copy_clip(ExportSpan(path=film, start_s=1, end_s=2), tmp_path / "copy.mp4").file)
    assert copied == packets(film)[25:50]


def test_handles_are_added_and_stay_inside(tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    times = write_coded_film(film, frames=100)
    clip = encode_clip(span_of(film, times, 5, 20), tmp_path / "clip.mp4", handles=Handles(frames=12))
    assert [number for _, number in numbers_of(clip.file)] == list(range(33))


def test_names_are_unique_and_nothing_is_replaced(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_coded_film(tmp_path / folder / "film.mp4", frames=50, sound=False)
    spans = [ExportSpan(path=tmp_path / folder / "film.mp4", start_s=1, end_s=1.2) for folder in ("a", "b")]
    lost = ExportSpan(path=tmp_path / "gone.mp4", start_s=0, end_s=1)
    photo = ExportSpan(path=tmp_path / "photo.jpg", start_s=0, end_s=0, kind="photo")
    out = tmp_path / "clips"
    written = write_clips([*spans, lost, photo], out)
    assert [file.name for file in written.files] == ["001_film_00.00.01.000.mp4", "002_film_00.00.01.000.mp4"]
    assert (written.photos, [failure.span for failure in written.failures]) == (1, [lost])
    before = content_hash(written.files[0])
    with pytest.raises(DataError, match="--overwrite"):
        write_clips(spans, out)
    assert content_hash(written.files[0]) == before
    assert sorted(file.name for file in out.iterdir()) == [file.name for file in written.files]
    assert write_clips(spans, out, overwrite=True).spans == 2


def test_a_joined_transport_stream_is_cut_by_the_clock_of_the_index(tmp_path: Path) -> None:
    part = tmp_path / "part.ts"
    write_coded_film(part, frames=50, sound=False)
    second = tmp_path / "second.ts"
    write_coded_film(second, frames=50, sound=False)
    film = tmp_path / "joined.ts"
    film.write_bytes(part.read_bytes() + second.read_bytes())
    clip = encode_clip(ExportSpan(path=film, start_s=2.4, end_s=2.8), tmp_path / "clip.mp4")  # in the second part
    assert [number for _, number in numbers_of(clip.file)] == list(range(10, 20))
    with pytest.raises(DataError, match="clock jumps"):
        copy_clip(ExportSpan(path=film, start_s=2.4, end_s=2.8), tmp_path / "copy.mkv")


def test_a_damaged_or_foreign_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(DataError, match=r"text\.mp4: not a video"):
        encode_clip(ExportSpan(path=tmp_path / "text.mp4", start_s=0, end_s=1), tmp_path / "clip.mp4")
    assert not (tmp_path / "clip.mp4").exists()


def test_interlaced_films_stay_interlaced(tmp_path: Path) -> None:
    film = tmp_path / "film.mkv"
    options = {"preset": "ultrafast", "crf": "10", "x264-params": "tff=1"}
    with av.open(str(film), "w") as container:
        video = container.add_stream("libx264", rate=25, options=options)
        video.width, video.height, video.pix_fmt = 160, 96, "yuv420p"
        for number in range(40):
            image = np.full((96, 160, 3), 200, np.uint8)
            image[1::2] = 40 + number
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    clip = encode_clip(ExportSpan(path=film, start_s=0.4, end_s=0.8), tmp_path / "clip.mp4")
    with av.open(str(clip.file)) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == 10
    assert all(frame.interlaced_frame for frame in frames)
    rows = frames[3].to_ndarray(format="gray").mean(axis=1)
    assert rows[10::2].min() - rows[11::2].max() > 100  # the fields are still apart


def test_sound_of_six_channels_keeps_them(tmp_path: Path) -> None:
    film = tmp_path / "film.mkv"
    with av.open(str(film), "w") as container:
        video, sound = container.add_stream("libx264", rate=25), container.add_stream("ac3", rate=48_000, layout="5.1")
        video.width, video.height, video.pix_fmt = 160, 96, "yuv420p"
        for number in range(50):
            frame = av.VideoFrame.from_ndarray(coded_image(number), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for first in range(0, 96_000, 1536):
            piece = av.AudioFrame.from_ndarray(np.zeros((6, 1536), np.float32), format="fltp", layout="5.1")
            piece.sample_rate, piece.pts, piece.time_base = 48_000, first, Fraction(1, 48_000)
            container.mux(sound.encode(piece))
        container.mux(sound.encode(None))
    clip = encode_clip(ExportSpan(path=film, start_s=0.4, end_s=0.8), tmp_path / "clip.mp4")
    with av.open(str(clip.file)) as container:
        assert container.streams.audio[0].codec_context.layout.name == "5.1"


def test_a_span_of_an_avi_begins_with_its_own_frame(tmp_path):
    path = tmp_path / "film.avi"  # without times: behind a seek, frames before the key frame are missing
    images = [coded_image(number) for number in range(150)]
    write_frames(path, images, times_s=[number / 25 for number in range(150)], codec="mpeg4", bf="2", g="20")
    for start_s in (0.9, 2.1, 3.3, 4.1, 5.5):
        shown = next(frames_of_span(path, start_s, start_s + 1))
        assert number_in(shown.frame.to_ndarray(format="rgb24")) == pytest.approx(start_s * 25, abs=0.51)
