"""Which stream is decoded, what goes on in another one, what is left out, and what is encrypted."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from helpers import clips
from impart.config import DecodeSettings
from impart.errors import ConfigError, DecodeError
from impart.video.decode.sampler import DecodedSegment, DecodeFinished, sample_video


def grey(number: int) -> np.ndarray:
    return clips.solid((20 * number,) * 3, size=(64, 48))


def pictures(path: Path, *, stream: int = 0) -> tuple[list[int], DecodeFinished]:
    """Sample a file: the number of the picture at each grid time, and the end."""
    settings = DecodeSettings(fit="squash", reuse_threshold=0, stream=stream)
    *segments, finished = sample_video(path, settings=settings, short_side_px=32)
    assert isinstance(finished, DecodeFinished)
    numbers = []
    for segment in segments:
        assert isinstance(segment, DecodedSegment)
        numbers += [round(float(segment.image.mean()) / 20)] * segment.weight
    return numbers, finished


def reason(path: Path) -> str:
    with pytest.raises(DecodeError) as caught:
        pictures(path)
    return caught.value.reason


def write(path: Path, *tracks: tuple[list[int], float], ids: tuple[int, ...] = (), codec: str = "mpeg4") -> Path:
    """Write video tracks of numbered pictures, 0.25 s each, from the given starts on; `ids` are their PIDs."""
    with av.open(str(path), "w") as container:
        packets = []
        for at, (numbers, start_s) in enumerate(tracks):
            stream = container.add_stream(codec, rate=4)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p" if codec == "mjpeg" else "yuv420p"
            if ids:
                stream.id = ids[at]
            for n, number in enumerate(numbers):
                frame = av.VideoFrame.from_ndarray(grey(number), format="rgb24")
                frame.pts, frame.time_base = round(start_s * 4) + n, Fraction(1, 4)
                packets += stream.encode(frame)
            packets += stream.encode(None)
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return path


def part(folder: Path, numbers: list[int], *, start_s: float, pid: int, codec: str = "mpeg4") -> bytes:
    return write(folder / "part.ts", (numbers, start_s), ids=(pid,), codec=codec).read_bytes()


def test_pictures_that_go_on_under_another_identifier_are_read_on(tmp_path):
    path = tmp_path / "spliced.ts"
    first = part(tmp_path, [1, 2, 3, 4] * 4, start_s=0, pid=256)
    path.write_bytes(first + part(tmp_path, [5, 6, 7, 8] * 4, start_s=4, pid=512, codec="libx264"))
    numbers, finished = pictures(path)
    assert numbers[:16] == [1, 2, 3, 4] * 4
    assert numbers[16:31] == ([5, 6, 7, 8] * 4)[:15]
    assert (finished.problem, finished.notes) == (None, ())


def test_advertising_between_two_parts_of_a_stream_is_read_in_its_place(tmp_path):
    path = tmp_path / "advertising.ts"
    path.write_bytes(
        part(tmp_path, [1, 2] * 16, start_s=0, pid=256)
        + part(tmp_path, [9, 10] * 16, start_s=8, pid=512)
        + part(tmp_path, [3, 4] * 16, start_s=16, pid=256)
    )
    numbers, finished = pictures(path)
    assert numbers[:32] == [1, 2] * 16
    assert numbers[32:63] == ([9, 10] * 16)[:31]
    assert numbers[64:95] == ([3, 4] * 16)[:31]
    assert (finished.problem, finished.notes) == (None, ())


@pytest.mark.parametrize("name", ["two.mkv", "two.mp4", "two.ts"])
def test_a_second_stream_is_named_and_can_be_chosen(tmp_path, name):
    path = write(tmp_path / name, ([1, 2, 3, 4] * 8, 0.0), ([5, 6, 7, 8] * 8, 0.0))
    numbers, finished = pictures(path)
    assert finished.notes == ("1 further video stream left out (--stream chooses)",)
    assert set(numbers) in ({1, 2, 3, 4}, {5, 6, 7, 8})
    assert set(pictures(path, stream=1)[0]) == {1, 2, 3, 4}
    assert set(pictures(path, stream=2)[0]) == {5, 6, 7, 8}
    numbers, finished = pictures(path, stream=3)
    assert any("stream 3 was asked for" in note for note in finished.notes)


def test_settings_refuse_a_stream_below_nought():
    with pytest.raises(ConfigError, match="stream"):
        DecodeSettings(stream=-1)


@pytest.mark.parametrize("name", ["photo.mkv", "photo.mp4"])
def test_an_unmarked_thumbnail_track_is_no_stream(tmp_path, name):
    path = tmp_path / name
    with av.open(str(path), "w") as container:
        photo = container.add_stream("mjpeg", rate=25)
        photo.width, photo.height, photo.pix_fmt = 640, 480, "yuvj420p"
        film = container.add_stream("mpeg4", rate=4)
        film.width, film.height, film.pix_fmt = 64, 48, "yuv420p"
        still = av.VideoFrame.from_ndarray(clips.solid("red", size=(640, 480)), format="rgb24")
        container.mux(photo.encode(still))
        container.mux(photo.encode(None))
        for n in range(16):
            frame = av.VideoFrame.from_ndarray(grey(n % 4 + 1), format="rgb24")
            frame.pts, frame.time_base = n, Fraction(1, 4)
            container.mux(film.encode(frame))
        container.mux(film.encode(None))
    numbers, finished = pictures(path)
    assert set(numbers) == {1, 2, 3, 4}
    assert finished.notes == ()


def test_cover_art_is_no_further_stream(tmp_path):
    path = tmp_path / "cover.mp4"
    with av.open(str(path), "w") as container:
        film = container.add_stream("mpeg4", rate=4)
        film.width, film.height, film.pix_fmt = 64, 48, "yuv420p"
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(clips.solid("red", size=(64, 48)), format="rgb24")))
        container.mux(cover.encode(None))
        for n in range(8):
            frame = av.VideoFrame.from_ndarray(grey(n % 4 + 1), format="rgb24")
            frame.pts, frame.time_base = n, Fraction(1, 4)
            container.mux(film.encode(frame))
        container.mux(film.encode(None))
    assert pictures(path)[1].notes == ()


@pytest.mark.parametrize("kind", [b"encv", b"drmi"])
def test_an_encrypted_mp4_is_called_encrypted(tmp_path, kind):
    path = clips.write_clip(tmp_path / "film.mp4", seconds_each=0.5)
    raw = path.read_bytes()
    at = raw.index(b"avc1", raw.index(b"stsd"))
    path.write_bytes(raw[:at] + kind + raw[at + 4 :])
    assert reason(path).startswith("encrypted")


def test_a_scrambled_broadcast_is_called_encrypted(tmp_path):
    path = clips.write_clip(tmp_path / "pay.ts", colours=["red", "blue"], size=(320, 240))
    raw = bytearray(path.read_bytes())
    noise = np.random.default_rng(0)
    for at in range(0, len(raw), 188):
        if int.from_bytes(raw[at + 1 : at + 3], "big") & 0x1FFF == 256 and raw[at + 3] & 0x10:
            raw[at + 3] |= 0x80
            start = 5 + raw[at + 4] if raw[at + 3] & 0x20 else 4
            raw[at + start : at + 188] = noise.integers(0, 256, 188 - start, dtype=np.uint8).tobytes()
    path.write_bytes(raw)
    assert reason(path).startswith("encrypted")
