"""What is called cut short or damaged, and what is whole although a picture stays long."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from helpers import clips
from impart.config import DecodeSettings
from impart.video.decode.sampler import DecodeFinished, sample_video

COLOURS = ["red", "green", "blue", "white"] * 2


def end_of(path: Path) -> DecodeFinished:
    *_, finished = sample_video(path, settings=DecodeSettings(), short_side_px=32)
    assert isinstance(finished, DecodeFinished)
    return finished


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.avi", "a.flv", "a.ts", "a.mov", "a.webm", "a.wmv"])
def test_a_file_that_was_cut_is_called_so_and_a_whole_one_is_not(tmp_path, name):
    codec = {"avi": "mpeg4", "flv": "flv1", "webm": "libvpx", "wmv": "wmv2"}
    suffix = name.split(".")[1]
    path = tmp_path / name
    options = {"deadline": "realtime", "cpu-used": "8"} if suffix == "webm" else {}
    clips.write_clip(path, colours=COLOURS, codec=codec.get(suffix, "libx264"), g="10", **options)
    if suffix in ("mp4", "mov"):
        clips.faststart(path)
    whole = end_of(path)
    assert (whole.problem, round(whole.info.duration_s)) == (None, 8)
    raw = path.read_bytes()
    kept = raw.rindex(b"idx1") if suffix == "avi" else len(raw)  # two thirds of this AVI are its index
    path.write_bytes(raw[: int(kept * 0.6) + 1])
    cut = end_of(path)
    assert cut.problem is not None
    assert cut.problem.startswith("stopped at ")
    assert "the file ends" in cut.problem
    assert cut.samples < whole.samples


def test_a_cut_fragment_is_said_although_the_fragments_before_are_whole(tmp_path):
    source = clips.write_clip(tmp_path / "source.mp4", colours=COLOURS, g="25")
    path = tmp_path / "fragments.mp4"
    with av.open(str(source)) as film, av.open(str(path), "w", options={"movflags": "frag_keyframe+empty_moov"}) as out:
        stream = out.add_stream_from_template(film.streams.video[0])
        for packet in film.demux():
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    assert end_of(path).problem is None
    clips.truncate(path, 0.6)
    assert "in the middle of a fragment" in (end_of(path).problem or "")


@pytest.mark.parametrize("options", [{"live": "1"}, {}], ids=["unknown cluster size", "known cluster size"])
def test_a_recording_that_was_interrupted_is_called_so_although_its_header_declares_nothing(tmp_path, options):
    source = clips.write_clip(tmp_path / "source.mp4", colours=COLOURS, g="10")
    path = tmp_path / "screen.mkv"
    with av.open(str(source)) as film, av.open(str(path), "w", options=options) as out:
        stream = out.add_stream_from_template(film.streams.video[0])
        for packet in film.demux():
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    raw = bytearray(path.read_bytes())
    segment = raw.index(b"\x18\x53\x80\x67") + 4
    raw[segment : segment + 8] = b"\x01" + b"\xff" * 7
    duration = raw.find(b"\x44\x89\x88")
    if duration >= 0:
        raw[duration + 3 : duration + 11] = bytes(8)
    path.write_bytes(raw)
    assert end_of(path).problem is None
    for share in (0.4, 0.7):
        path.write_bytes(raw[: int(len(raw) * share)])
        assert "the file ends in the middle of a cluster" in (end_of(path).problem or "")


def test_a_gif_that_was_cut_or_damaged_is_called_so(tmp_path):
    path = tmp_path / "a.gif"
    # Seeded: in a sixth of all such files the block chain of a damaged frame ends, by chance, at the next frame.
    noise = np.random.default_rng(0).normal(128, 60, (8, 48, 64)).clip(0, 255).astype(np.uint8)
    images = [Image.fromarray(pixels).convert("P") for pixels in noise]
    images[0].save(path, save_all=True, append_images=images[1:], duration=500)
    raw = path.read_bytes()
    for rest in (b"", b"appended by a web server"):
        path.write_bytes(raw + rest)
        assert end_of(path).problem is None
    path.write_bytes(raw[:-1])  # some writers leave the last byte out
    assert end_of(path).problem is None
    path.write_bytes(raw[: len(raw) // 2])
    cut = end_of(path)
    assert "the file ends in the middle of a frame" in (cut.problem or "")
    assert cut.samples < 16
    path.write_bytes(raw[: len(raw) // 2] + b"\xfe" * 300 + raw[len(raw) // 2 + 300 :])
    assert "the file" in (end_of(path).problem or "")


@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "libx264"), ("flv", "flv1")])
def test_a_second_film_that_was_joined_byte_by_byte_is_named(tmp_path, suffix, codec):
    first = clips.write_clip(tmp_path / f"a.{suffix}", colours=COLOURS[:2], codec=codec, g="10")
    assert end_of(first).notes == ()
    joined = tmp_path / f"joined.{suffix}"
    joined.write_bytes(first.read_bytes() * 2)
    found = end_of(joined)
    assert (found.problem, round(found.info.duration_s)) == (None, 2)
    assert "a second film" in found.notes[0]


def test_a_recording_in_progress_is_read_as_far_as_it_is(tmp_path):
    path = clips.write_clip(tmp_path / "growing.mkv", colours=COLOURS, g="10")
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])
    assert "of 8.0 s" in (end_of(path).problem or "")
    path.write_bytes(raw)
    assert end_of(path).problem is None


def test_an_avi_without_its_index_has_all_frames(tmp_path):
    path = clips.write_clip(tmp_path / "recording.avi", colours=COLOURS, codec="mpeg4")
    raw = path.read_bytes()
    path.write_bytes(raw[: raw.rindex(b"idx1")])
    finished = end_of(path)
    assert (finished.samples, finished.problem) == (32, None)


@pytest.mark.parametrize(("name", "codec"), [("d.mp4", "libx264"), ("d.avi", "mpeg4"), ("d.mkv", "libx264")])
def test_damage_that_is_concealed_is_counted(tmp_path, name, codec):
    rng = np.random.default_rng(3)
    noise = rng.integers(0, 255, (12, 200, 3), dtype=np.uint8).repeat(12, axis=0)
    images = [np.ascontiguousarray(noise[:120, i : i + 160]) for i in range(40)]
    path = tmp_path / name
    clips.write_frames(path, images, times_s=[i / 25 for i in range(40)], codec=codec, g="10")
    assert end_of(path).problem is None
    raw = bytearray(path.read_bytes())
    middle = (raw.rindex(b"idx1") if name.endswith("avi") else len(raw)) // 2
    raw[middle : middle + 200] = rng.integers(0, 256, 200, dtype=np.uint8).tobytes()
    path.write_bytes(raw)
    problem = end_of(path).problem
    assert problem is not None
    assert "damaged frame" in problem
    assert "concealed" in problem


def test_a_recording_that_begins_between_two_key_frames_is_not_damaged(tmp_path):
    path = clips.write_clip(tmp_path / "tv.ts", colours=COLOURS, g="12", bf="2", preset="medium")
    raw = path.read_bytes()
    path.write_bytes(raw[188 * (len(raw) // 188 // 3) :])
    assert end_of(path).problem is None
