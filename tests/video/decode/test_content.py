"""What a file is, by its first bytes, whatever its name."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import clips
from impart.config import DecodeSettings
from impart.errors import DecodeError
from impart.video.decode.content import content_of
from impart.video.decode.sampler import DecodedSegment, DecodeFinished, sample_video

PACKETS = np.random.default_rng(0).integers(0, 256, (60, 188), dtype=np.uint8)
PACKETS[:, 0] = 0x47


def box(kind: bytes, *parts: bytes) -> bytes:
    data = b"".join(parts)
    return struct.pack(">I4s", 8 + len(data), kind) + data


def ftyp(*brands: bytes) -> bytes:
    return box(b"ftyp", brands[0], bytes(4), *brands)


def image_file(suffix: str, *, count: int) -> bytes:
    images = [Image.new("RGB", (64, 48), (200, 40 * i, 30)) for i in range(count)]
    file = io.BytesIO()
    more = {"save_all": True, "append_images": images[1:], "duration": 500} if count > 1 else {}
    images[0].save(file, suffix, **more)
    return file.getvalue()


PLAIN = PACKETS.tobytes()
WITH_TIMES = b"".join(bytes(4) + packet.tobytes() for packet in PACKETS)
WITH_PARITY = b"".join(packet.tobytes() + bytes(16) for packet in PACKETS)


@pytest.mark.parametrize(
    ("data", "content"),
    [
        (PLAIN, "video"),
        (WITH_TIMES, "video"),
        (WITH_PARITY, "video"),
        (PLAIN[100:], "video"),  # cut within a packet
        (WITH_TIMES[77:], "video"),
        (bytes(500) + PLAIN, "video"),
        (b"import { Game } from './G';\nexport const G = 1;\n" * 300, "text"),
        ("// señal: ¿qué?\n".encode("latin-1") * 300, "text"),
        ("<?xml version='1.0'?><TS/>".encode("utf-16"), "text"),
        (b"", "empty"),
        (PACKETS[:, 1:].tobytes(), "unknown"),
        (ftyp(b"isom", b"mp41"), "video"),
        (ftyp(b"qt  "), "video"),
        (box(b"wide") + box(b"mdat", bytes(50)), "video"),
        (ftyp(b"M4A ", b"isom"), "sound"),
        (ftyp(b"crx ", b"isom") + box(b"moov", bytes(8)), "photo"),
        (ftyp(b"heic", b"mif1", b"heic") + box(b"meta", bytes(40)) + box(b"mdat", bytes(40)), "heif photo"),
        (ftyp(b"avif", b"mif1", b"miaf"), "heif photo"),
        (ftyp(b"msf1", b"hevc") + box(b"meta", bytes(40)) + box(b"moov", bytes(8)), "video"),
        (image_file("PNG", count=1), "photo"),
        (image_file("PNG", count=3), "video"),
        (image_file("WEBP", count=1), "photo"),
        (image_file("WEBP", count=3), "animated webp"),
        (image_file("AVIF", count=1), "heif photo"),
        (image_file("AVIF", count=3), "video"),
        (image_file("JPEG", count=1), "photo"),
        (b"\x00\x00\x01\xba" + bytes(100), "video"),
        (b"\x00\x00\x00\x01\x67\x64\x00\x1f" + bytes(100), "video"),
        (b"\x00\x00\x00\x01\x40\x01\x0c\x01" + bytes(100), "video"),
        (b"DHAV" + bytes(100), "video"),
        (b"RIFF\x00\x00\x00\x00AVI LIST", "video"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "sound"),
        (b"OggS" + bytes(24) + b"\x80theora" + bytes(50), "video"),
        (b"OggS" + bytes(24) + b"OpusHead" + bytes(50), "sound"),
        (b"PK\x03\x04" + bytes(100), "unknown"),
    ],
)
def test_content(tmp_path, data, content):
    path = tmp_path / "file.anything"
    path.write_bytes(data)
    assert content_of(path) == content


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".ts", ".flv", ".mpg", ".mxf", ".webm", ".nut", ".gif"])
def test_written_videos_are_recognised(tmp_path, suffix):
    codec = {".mpg": "mpeg2video", ".mxf": "mpeg2video", ".avi": "mpeg4", ".webm": "libvpx"}.get(suffix, "libx264")
    path = clips.write_clip(tmp_path / f"a{suffix}", seconds_each=0.2, codec=codec)
    assert content_of(path) == "video"


@pytest.mark.parametrize("suffix", ["WEBP", "PNG", "AVIF", "GIF"])
def test_animated_images_are_decoded_with_their_times(tmp_path, suffix):
    path = tmp_path / f"sticker.{suffix.lower()}"
    images = [Image.fromarray(clips.solid(name)) for name in ("red", "blue", "white")]
    images[0].save(path, save_all=True, append_images=images[1:], duration=1000)
    *segments, finished = sample_video(path, settings=DecodeSettings(), short_side_px=64)
    assert isinstance(finished, DecodeFinished)
    times = [(s.start_s, s.end_s, s.weight) for s in segments if isinstance(s, DecodedSegment)]
    assert times == [(0.0, 1.0, 4), (1.0, 2.0, 4), (2.0, 3.0, 4)]
    assert finished.info.duration_s == 3.0
    for segment, name in zip(segments, ("red", "blue", "white"), strict=True):
        assert isinstance(segment, DecodedSegment)
        assert np.abs(segment.image[32, 32].astype(int) - clips.COLOURS[name]).max() <= 12


def test_a_photo_of_tiles_is_no_video(tmp_path):
    path = tmp_path / "photo.mp4"
    path.write_bytes(image_file("AVIF", count=1))
    with pytest.raises(DecodeError) as caught:
        list(sample_video(path, settings=DecodeSettings(), short_side_px=64))
    assert caught.value.reason == "a photo (HEIC or AVIF), not a video"


def test_a_damaged_animation_is_named(tmp_path):
    path = tmp_path / "a.webp"
    path.write_bytes(image_file("WEBP", count=3)[:120])
    with pytest.raises(DecodeError, match="cannot be decoded"):
        list(sample_video(Path(path), settings=DecodeSettings(), short_side_px=64))
