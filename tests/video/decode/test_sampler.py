"""Sampling by presentation time, upright and in the right colours; reasons for broken files."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from av.video.frame import PictureType

from helpers import clips
from helpers.tiny_encoder import COLOURS
from impart.config import DecodeSettings
from impart.errors import ConfigError, DecodeError
from impart.video.decode.sampler import DecodedSegment, DecodeFinished, sample_video, sampled_frames
from impart.video.decode.scaling import MAX_ASPECT, difference
from impart.video.decode.timestamps import Clock, FrameReader, Tally, _Packets, first_sample

EVERY = DecodeSettings(fit="crop", reuse_threshold=0)  # encode every sampled frame
REUSE = DecodeSettings(fit="crop")


def sample(
    path: Path, settings: DecodeSettings = EVERY, *, side: int = 64, skip_unshown: bool = True
) -> tuple[list[DecodedSegment], DecodeFinished]:
    *segments, finished = sample_video(path, settings=settings, short_side_px=side, skip_unshown=skip_unshown)
    assert isinstance(finished, DecodeFinished)
    assert all(isinstance(segment, DecodedSegment) for segment in segments)
    assert sum(segment.weight for segment in segments) == finished.samples
    for before, after in itertools.pairwise(segments):
        assert after.start_s == before.end_s
    assert all(segment.end_s > segment.start_s for segment in segments)
    return segments, finished


def colour(image: np.ndarray) -> str:
    """The named colour nearest to the middle of an image."""
    height, width = image.shape[:2]
    middle = image[height // 2, width // 2].astype(float)
    return min(COLOURS, key=lambda name: float(np.abs(middle - COLOURS[name]).sum()))


def colours(segments: list[DecodedSegment]) -> list[str]:
    return [colour(segment.image) for segment in segments]


def reason(path: Path) -> str:
    with pytest.raises(DecodeError) as caught:
        list(sample_video(path, settings=EVERY, short_side_px=64))
    assert str(path) in str(caught.value)
    assert str(path) not in caught.value.reason
    return caught.value.reason


# Time


def test_grid_of_a_constant_frame_rate(tmp_path):
    path = clips.write_clip(tmp_path / "a.mp4", colours=["red", "green", "blue"], seconds_each=1.0, fps=25)
    segments, finished = sample(path)
    assert [segment.start_s for segment in segments] == [i / 4 for i in range(12)]
    assert segments[-1].end_s == pytest.approx(3.0, abs=1e-3)
    assert colours(segments) == ["red"] * 4 + ["green"] * 4 + ["blue"] * 4
    assert (finished.samples, finished.problem) == (12, None)
    assert finished.info.duration_s == pytest.approx(3.0, abs=1e-3)
    assert (finished.info.width, finished.info.height, finished.info.codec) == (160, 120, "h264")
    assert finished.info.fps == pytest.approx(25)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.mov", "a.ts"])
def test_containers_agree(tmp_path, name):
    codec = "mpeg4" if name.endswith("avi") else "libx264"
    path = clips.write_clip(tmp_path / name, colours=["red", "blue"], seconds_each=1.0, codec=codec)
    segments, finished = sample(path)
    assert colours(segments) == ["red"] * 4 + ["blue"] * 4
    assert (segments[0].start_s, finished.problem) == (0.0, None)


def test_variable_frame_rate_shows_the_last_frame_not_later(tmp_path):
    times = [0.0, 0.1, 0.249, 0.251, 0.9, 2.0]
    shown = ["red", "green", "blue", "yellow", "cyan", "white"]
    path = clips.write_frames(tmp_path / "v.mp4", [clips.solid(c) for c in shown], times_s=times, last_s=0.5)
    segments, finished = sample(path)
    # at    0      .25     .5        .75       1.0     1.25    1.5     1.75    2.0      2.25
    expected = ["red", "blue", "yellow", "yellow", "cyan", "cyan", "cyan", "cyan", "white", "white"]
    at = {k: segment for segment in segments for k in range(round(segment.start_s * 4), round(segment.end_s * 4))}
    assert [colour(at[k].image) for k in range(10)] == expected
    assert finished.samples == 10
    assert finished.info.duration_s == pytest.approx(2.5, abs=1e-3)


def test_a_frame_shown_for_long_is_one_segment_with_its_weight(tmp_path):
    images = [clips.solid("red"), clips.solid("blue")]
    path = clips.write_frames(tmp_path / "slides.mkv", images, times_s=[0.0, 3.0], last_s=1.0)
    segments, _ = sample(path, REUSE)
    assert [(s.start_s, s.weight) for s in segments] == [(0.0, 12), (3.0, segments[1].weight)]
    assert colours(segments) == ["red", "blue"]


def test_timestamps_of_a_fast_grid_are_exact_to_a_millisecond(tmp_path):
    # The grey level of a frame encodes its time: uneven steps between 20 and 60 ms.
    rng = np.random.default_rng(0)
    times = np.cumsum(np.r_[0.0, rng.uniform(0.02, 0.06, 29)]).tolist()
    images = [clips.solid((8 * i, 8 * i, 8 * i)) for i in range(30)]
    path = clips.write_frames(tmp_path / "v.mp4", images, times_s=times, qp="1", crf="1")
    segments, _ = sample(path, DecodeSettings(fps=200, reuse_threshold=0))
    begins = {}
    for segment in segments:
        begins.setdefault(round(float(segment.image.mean()) / 8), segment.start_s)
    for i, time_s in enumerate(times):  # first grid time (5 ms) at or after the frame's own
        assert begins[i] == pytest.approx(np.ceil((time_s - 1e-4) * 200) / 200, abs=1e-3)


def test_video_that_starts_after_its_sound(tmp_path):
    path = clips.write_clip(tmp_path / "late.mkv", colours=["red", "blue"], start_s=0.6, audio=True)
    segments, _ = sample(path)
    # The first frame also represents the grid time just before it (0.5); sound alone has no sample.
    assert segments[0].start_s == 0.5
    assert colours(segments)[:5] == ["red"] * 5
    assert next(s.start_s for s in segments if colour(s.image) == "blue") == 1.75


def test_times_count_from_a_start_that_is_not_zero(tmp_path):
    path = clips.write_clip(tmp_path / "offset.ts", colours=["red", "blue"], start_s=100.0)
    segments, _ = sample(path)
    assert [s.start_s for s in segments] == [i / 4 for i in range(8)]
    assert colours(segments) == ["red"] * 4 + ["blue"] * 4


def test_edit_list_cuts_the_beginning(tmp_path):
    path = clips.write_clip(tmp_path / "edited.mp4", colours=["red", "blue"], start_s=-0.5)  # written as an edit list
    segments, finished = sample(path)
    assert finished.info.duration_s == pytest.approx(1.5, abs=0.05)
    assert next(s.start_s for s in segments if colour(s.image) == "blue") == 0.5


def test_shorter_than_one_step_gives_one_sample(tmp_path):
    path = clips.write_frames(tmp_path / "one.mp4", [clips.solid("green")], times_s=[0.0])
    segments, finished = sample(path)
    assert (len(segments), finished.samples, colours(segments)) == (1, 1, ["green"])


def test_gif(tmp_path):
    path = clips.write_clip(tmp_path / "a.gif", colours=["red", "blue"], fps=10)
    segments, finished = sample(path)
    assert colours(segments) == ["red"] * 4 + ["blue"] * 4
    assert finished.info.codec == "gif"


def test_a_clock_that_starts_again_and_an_image_that_changes_size(tmp_path):
    # Two recordings in one file, as broadcast recorders write them.
    first = clips.write_clip(tmp_path / "a.ts", colours=["red", "green"], size=(160, 120))
    second = clips.write_clip(tmp_path / "b.ts", colours=["blue", "white"], size=(320, 180))
    path = tmp_path / "both.ts"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    segments, finished = sample(path)
    assert [s.start_s for s in segments] == [i / 4 for i in range(16)]
    assert colours(segments) == ["red"] * 4 + ["green"] * 4 + ["blue"] * 4 + ["white"] * 4
    assert [s.image.shape[1] for s in segments] == [85] * 8 + [114] * 8
    assert finished.problem is None


def test_a_stream_without_timestamps_goes_by_its_frame_rate(tmp_path):
    path = clips.write_clip(tmp_path / "raw.h264", colours=["red", "green"], bf="2", preset="medium")
    segments, finished = sample(path)
    assert colours(segments) == ["red"] * 4 + ["green"] * 4
    assert finished.info.duration_s == pytest.approx(2.0, abs=1e-3)


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("b.mp4", "libx264", {"bf": "3", "preset": "medium", "g": "250"}),
        ("b.ts", "libx264", {"bf": "3", "preset": "medium", "g": "250"}),
        ("b.mp4", "libx265", {"preset": "ultrafast", "x265-params": "log-level=none:bframes=4"}),
        ("b.ts", "libx265", {"preset": "ultrafast", "x265-params": "log-level=none:bframes=4"}),
    ],
)
def test_fewer_frames_are_decoded_than_the_file_holds(tmp_path, name, codec, options):
    path = clips.write_clip(tmp_path / name, colours=["red"] * 8, codec=codec, **options)

    def decoded(*, skip_unshown: bool) -> int:
        tally = Tally()
        reader = FrameReader(path, origin_s=0.0, fps=4.0, limit_s=None, tally=tally, skip_unshown=skip_unshown)
        with av.open(str(path)) as container:
            return len(list(reader.read(container, container.streams.video[0])))

    assert decoded(skip_unshown=False) == 200
    assert decoded(skip_unshown=True) < 150


def test_first_sample_tolerates_clock_rounding():
    assert first_sample(0.25 + 5e-6, fps=4) == 1
    assert first_sample(0.25 + 1e-3, fps=4) == 2
    assert first_sample(-0.1, fps=4) == 0


@pytest.mark.parametrize(
    ("suffix", "codec", "options"),
    [
        ("mkv", "libx264", {"bf": "3", "preset": "medium", "b-pyramid": "normal"}),
        ("ts", "libx264", {"bf": "8", "preset": "medium", "b-adapt": "0"}),
        ("mkv", "libx265", {"preset": "ultrafast", "x265-params": "log-level=none:bframes=4"}),
        ("ts", "libx265", {"preset": "ultrafast", "x265-params": "log-level=none:bframes=4"}),
        ("mkv", "libx265", {"preset": "ultrafast", "x265-params": "log-level=none:bframes=4:temporal-layers=2"}),
        ("mkv", "mpeg4", {"bf": "2"}),
        ("mkv", "mjpeg", {}),
    ],
)
def test_leaving_out_unshown_frames_changes_nothing(tmp_path, suffix, codec, options):
    rng = np.random.default_rng(1)
    big = rng.integers(0, 255, (12, 200, 3), dtype=np.uint8).repeat(12, axis=0)
    images = [np.ascontiguousarray(big[:120, i : i + 160]) for i in range(40)]
    times = np.cumsum(np.r_[0.0, rng.uniform(0.02, 0.09, 39)]).tolist()
    pix_fmt = "yuvj420p" if codec == "mjpeg" else None
    path = tmp_path / f"b.{suffix}"
    clips.write_frames(path, images, times_s=times, codec=codec, pix_fmt=pix_fmt, **options)
    fast, _ = sample(path)
    full, _ = sample(path, skip_unshown=False)
    assert [(s.start_s, s.end_s, s.weight) for s in fast] == [(s.start_s, s.end_s, s.weight) for s in full]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(fast, full, strict=True))


def test_the_loop_filter_is_left_out_of_b_frames_alone_and_only_where_images_shrink_much(tmp_path):
    rng = np.random.default_rng(2)
    big = rng.integers(0, 255, (40, 60, 3), dtype=np.uint8).repeat(16, axis=0).repeat(16, axis=1)
    images = [np.ascontiguousarray(big[:512, 3 * i : 3 * i + 512]) for i in range(30)]
    path = clips.write_frames(
        tmp_path / "b.mp4", images, times_s=[i / 25 for i in range(30)], bf="3", preset="medium", crf="38"
    )

    def decoded(shrunk_px: int | None) -> list[tuple[str, np.ndarray]]:
        options = {"origin_s": 0.0, "fps": 25.0, "limit_s": None, "tally": Tally(), "shrunk_px": shrunk_px}
        with av.open(str(path)) as container:
            read = FrameReader(path, **options).read(container, container.streams.video[0])
            return [(PictureType(one.frame.pict_type).name, one.frame.to_ndarray()) for one in read]

    exact, little, much = decoded(None), decoded(129), decoded(128)
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(exact, little, strict=True))
    changed = {kind for (kind, a), (_, b) in zip(exact, much, strict=True) if not np.array_equal(a, b)}
    assert "B" in changed
    assert "I" not in changed
    apart = [np.abs(a.astype(int) - b).mean() for (_, a), (_, b) in zip(exact, much, strict=True)]
    assert max(apart) < 3


# Images


@pytest.mark.parametrize(
    ("degrees", "corners"),
    [
        (0, ["red", "green", "blue", "white"]),
        (90, ["blue", "red", "white", "green"]),
        (180, ["white", "blue", "green", "red"]),
        (270, ["green", "white", "red", "blue"]),
    ],
)
def test_rotation_is_upright(tmp_path, degrees, corners):
    path = clips.write_frames(tmp_path / "r.mp4", [clips.quarters()] * 5, times_s=[i / 25 for i in range(5)])
    clips.rotate(path, degrees)
    segments, finished = sample(path)
    height, width = segments[0].image.shape[:2]
    image = segments[0].image
    parts = [image[: height // 2, : width // 2], image[: height // 2, width // 2 :]]
    parts += [image[height // 2 :, : width // 2], image[height // 2 :, width // 2 :]]
    assert [colour(part) for part in parts] == corners
    assert (width > height) == (degrees % 180 == 0)
    assert (finished.info.width > finished.info.height) == (degrees % 180 == 0)
    assert finished.info.rotation_deg == degrees


@pytest.mark.parametrize("size", [(160, 120), (120, 160), (32, 24), (644, 100)])
def test_short_side_and_shape(tmp_path, size):
    path = clips.write_clip(tmp_path / "a.mp4", size=size, seconds_each=0.2)
    image = sample(path, side=64)[0][0].image
    assert (min(image.shape[:2]), image.dtype, image.flags["C_CONTIGUOUS"]) == (64, np.uint8, True)
    shown = min(max(size[0] / size[1], 1 / MAX_ASPECT), MAX_ASPECT)
    assert image.shape[1] / image.shape[0] == pytest.approx(shown, rel=0.02)


@pytest.mark.parametrize("size", [(320, 180), (90, 160), (64, 64)])
def test_squashed_frames_are_whole(tmp_path, size):
    width, height = size
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 8], pixels[:, -(width // 8) :] = clips.COLOURS["red"], clips.COLOURS["blue"]
    path = clips.write_frames(tmp_path / "edges.mp4", [pixels] * 3, times_s=[0, 0.1, 0.2])
    image = sample(path, DecodeSettings(), side=64)[0][0].image
    assert image.shape == (64, 64, 3)
    assert [colour(image[:, :6]), colour(image[:, -6:])] == ["red", "blue"]  # the centre crop of 16:9 has neither


def test_a_strip_is_cropped_to_the_largest_aspect(tmp_path):
    path = clips.write_clip(tmp_path / "strip.mkv", size=(8, 8000), seconds_each=0.1, codec="ffv1")
    image = sample(path, side=224)[0][0].image
    assert image.shape == (224 * MAX_ASPECT, 224, 3)


@pytest.mark.parametrize("matrix", ["bt709", "smpte170m"])
@pytest.mark.parametrize("limited", [True, False])
def test_colours_follow_the_declared_matrix_and_range(tmp_path, matrix, limited):
    # RGB to YUV by hand, tagged: what comes back must be what went in.
    kr, kb = {"bt709": (0.2126, 0.0722), "smpte170m": (0.299, 0.114)}[matrix]
    rgb = np.array([200.0, 60.0, 30.0])
    y = kr * rgb[0] + (1 - kr - kb) * rgb[1] + kb * rgb[2]
    u, v = (rgb[2] - y) / (2 * (1 - kb)), (rgb[0] - y) / (2 * (1 - kr))
    planes = (16 + y * 219 / 255, 128 + u * 224 / 255, 128 + v * 224 / 255) if limited else (y, 128 + u, 128 + v)
    path = tmp_path / "c.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv444p"
        context = stream.codec_context
        context.colorspace, context.color_range = {"bt709": 1, "smpte170m": 6}[matrix], 1 if limited else 2
        data = np.stack([np.full((64, 64), round(value), np.uint8) for value in planes])
        frame = av.VideoFrame.from_ndarray(data, format="yuv444p")
        frame.colorspace, frame.color_range = context.colorspace, context.color_range
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    image = sample(path)[0][0].image
    assert np.abs(image.reshape(-1, 3).mean(axis=0) - rgb).max() <= 2.5


def test_ten_bit(tmp_path):
    path = clips.write_clip(tmp_path / "ten.mkv", colours=["orange"], codec="ffv1", seconds_each=0.2)
    eight = sample(path)[0][0].image
    images = [clips.solid("orange")] * 5
    times = [i / 25 for i in range(5)]
    path = clips.write_frames(tmp_path / "b.mkv", images, times_s=times, codec="ffv1", pix_fmt="yuv420p10le")
    assert np.abs(sample(path)[0][0].image.astype(int) - eight.astype(int)).max() <= 3


# Reuse of near-identical frames


def test_still_shots_are_one_segment_each(tmp_path):
    path = clips.write_clip(tmp_path / "a.mp4", colours=["red", "blue", "red"], seconds_each=2.0)
    segments, finished = sample(path, REUSE)
    assert [(s.start_s, s.end_s, s.weight) for s in segments] == [(0, 2, 8), (2, 4, 8), (4, pytest.approx(6), 8)]
    assert finished.samples == 24


def test_a_slow_fade_is_more_than_one_segment(tmp_path):
    # Half a grey level a frame: each is like the last one, but not like the first.
    images = [clips.solid((60 + i // 2,) * 3) for i in range(200)]
    path = clips.write_frames(tmp_path / "f.mp4", images, times_s=[i / 25 for i in range(200)])
    segments, _ = sample(path, DecodeSettings(reuse_threshold=5.0))
    levels = [float(s.image.mean()) for s in segments]
    assert len(segments) > 10
    assert max(b - a for a, b in itertools.pairwise(levels)) < 10


def test_difference_counts_a_small_object_that_moves():
    still = np.zeros((32, 32, 3), np.float32)
    moved = still.copy()
    moved[8:16, 8:16] = 40.0  # one block of sixteen
    assert difference(still, moved) == 20.0
    assert difference(still, still + 3.0) == 3.0


@pytest.mark.parametrize("values", [{"fps": 0}, {"reuse_threshold": -1}, {"look_ahead": 0}, {"stall_s": 0}])
def test_settings_that_cannot_work(values):
    with pytest.raises(ConfigError, match=next(iter(values))):
        DecodeSettings(**values)


# Files that are not right


def test_reasons(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("Dear diary, today I saw a video.\n" * 50)
    (tmp_path / "folder.mp4").mkdir()
    clips.truncate(clips.write_clip(tmp_path / "cut.mp4", colours=["red", "blue"]), 0.5)
    clips.write_audio(tmp_path / "song.m4a")
    clips.write_clip(tmp_path / "dot.mp4", size=(1, 1), seconds_each=0.2)
    assert reason(tmp_path / "empty.mp4") == "the file is empty"
    assert reason(tmp_path / "text.mp4").startswith("not a video")
    assert reason(tmp_path / "folder.mp4") == "is not a file"
    assert reason(tmp_path / "missing.mp4") == "no such file"
    assert "index (moov atom)" in reason(tmp_path / "cut.mp4")
    assert reason(tmp_path / "song.m4a") == "has sound but no image"
    assert "too small: 1x1" in reason(tmp_path / "dot.mp4")


def test_no_permission(tmp_path, monkeypatch):
    path = clips.write_clip(tmp_path / "locked.mp4", seconds_each=0.2)
    path.chmod(0)
    if os.access(path, os.R_OK):  # root may read everything, and Windows has no such mode

        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", refuse)
    assert reason(path) == "permission denied"


def test_cover_art_is_not_a_video(tmp_path):
    path = tmp_path / "song.m4a"
    clips.write_audio(tmp_path / "sound.m4a")
    with av.open(str(tmp_path / "sound.m4a")) as source, av.open(str(path), "w", format="mp4") as target:
        sound = target.add_stream_from_template(source.streams.audio[0])
        image = target.add_stream("mjpeg", rate=1)
        image.width, image.height, image.pix_fmt = 64, 64, "yuvj420p"
        image.disposition = Disposition.attached_pic
        target.mux(image.encode(av.VideoFrame.from_ndarray(clips.solid("red", size=(64, 64)), format="rgb24")))
        target.mux(image.encode(None))
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = sound
                target.mux(packet)
    with av.open(str(path)) as container:
        assert [s.type for s in container.streams] == ["audio", "video"]
    assert reason(path) == "has sound but no image"


@pytest.mark.parametrize("name", ["cut.mkv", "cut.mp4"])
def test_truncated_files_keep_what_can_be_read(tmp_path, name):
    path = clips.write_clip(tmp_path / name, colours=["red", "green", "blue", "white"] * 2, seconds_each=1.0, g="10")
    if name.endswith("mp4"):
        clips.faststart(path)
    clips.truncate(path, 0.6)
    segments, finished = sample(path)
    assert finished.problem is not None
    assert finished.problem.startswith("stopped at ")
    assert "of 8.0 s" in finished.problem
    assert 3 <= segments[-1].end_s <= 6
    assert colours(segments)[:8] == ["red"] * 4 + ["green"] * 4


def test_damage_in_the_middle_is_skipped(tmp_path):
    path = clips.write_clip(tmp_path / "d.ts", colours=["red", "green", "blue", "white"], seconds_each=1.0, g="5")
    clips.corrupt(path, start=0.4, stop=0.5)
    segments, _ = sample(path)
    assert colours(segments)[:4] == ["red"] * 4
    assert colours(segments)[-3:] == ["white"] * 3
    assert segments[-1].end_s == pytest.approx(4.0, abs=0.3)


def test_names_with_anything_in_them(tmp_path):
    for name in ["a b.mp4", 'it\'s "x".mp4', "žluťoučký 猫.mp4", "a:b.mp4", "http:x.mp4", "%03d.mp4", "-i.mp4"]:
        if os.name == "nt" and set(name) & set(':"'):
            continue
        path = clips.write_clip(tmp_path / "plain.mp4", seconds_each=0.2).rename(tmp_path / name)
        assert colours(sample(path)[0]) == ["red"]


def test_a_playlist_named_like_a_video_opens_nothing_else(tmp_path):
    clips.write_clip(tmp_path / "real.ts", seconds_each=0.5)
    path = tmp_path / "list.mp4"
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    assert reason(path)


def test_progress_is_reported(tmp_path):
    path = clips.write_clip(tmp_path / "a.mp4", colours=["red"] * 2)
    times: list[float] = []
    list(sample_video(path, settings=REUSE, short_side_px=64, on_progress=times.append))
    assert times == sorted(times)
    assert times[-1] > 1.7


@pytest.mark.data
def test_real_clips_come_out_as_long_as_they_are(data_dir):
    for path in sorted((data_dir / "videos" / "panda").glob("*.mp4"))[:3]:
        segments, finished = sample(path, side=224)
        assert finished.problem is None
        assert finished.samples == pytest.approx(finished.info.duration_s * 4, abs=1)
        assert segments[0].image.shape == (224, 398, 3)


def test_streams_that_appear_in_a_damaged_file_end_it_and_lose_nothing(tmp_path, monkeypatch):
    path = clips.write_clip(tmp_path / "a.mkv", seconds_each=0.2)
    tally = Tally()
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        whole = list(container.demux(stream))

        def damaged(self: object) -> Iterator[av.Packet]:
            yield from (packet for packet in whole if packet.size)
            raise IndexError("list index out of range")  # as PyAV does at the end of such an MPEG-TS

        monkeypatch.setattr(_Packets, "_read", damaged)
        packets = list(_Packets(container, stream, tally=tally, clock=Clock(0.0, limit_s=None)))
    assert (len(packets), packets[-1]) == (6, None)
    assert not tally.gave_up


# Frames for evaluation


def test_frames_have_true_times_and_equal_ones_are_joined(tmp_path: Path) -> None:
    clip = clips.write_clip(tmp_path / "clip.mp4", colours=["red", "blue"], seconds_each=1.0)
    frames = list(sampled_frames(clip, short_side_px=32, fit="crop"))
    assert [(start_s, end_s) for start_s, end_s, _ in frames] == [(0.0, 1.0), (1.0, 2.0)]
    for (_, _, image), name in zip(frames, ("red", "blue"), strict=True):
        assert image.shape == (32, 43, 3)
        assert np.abs(image.mean(axis=(0, 1)) - COLOURS[name]).max() < 12
    every = list(sampled_frames(clip, short_side_px=32, fps=2.0, reuse_threshold=0))
    assert [start_s for start_s, _, _ in every] == [0.0, 0.5, 1.0, 1.5]


def test_a_file_that_is_no_video_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.mp4").write_bytes(b"no video")
    with pytest.raises(DecodeError, match=r"x\.mp4"):
        list(sampled_frames(tmp_path / "x.mp4", short_side_px=32, fit="crop"))


def test_the_reason_of_a_truncated_file_is_returned(tmp_path: Path) -> None:
    def returned(path: Path) -> str | None:
        frames = sampled_frames(path, short_side_px=32)
        try:
            while True:
                next(frames)
        except StopIteration as end:
            return end.value

    clip = clips.faststart(clips.write_clip(tmp_path / "clip.mp4", colours=["red", "blue"] * 4, g="10"))
    assert returned(clip) is None
    problem = returned(clips.truncate(clip, 0.6))
    assert problem is not None
    assert "of 8.0 s" in problem
