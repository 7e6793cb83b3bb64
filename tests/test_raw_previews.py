"""The preview of a raw file is the largest JPEG inside, upright, with the time of the raw file."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.photos import exif, halves
from impart.errors import DataError
from impart.images import load_image, load_photo
from impart.raw_previews import RAW_SUFFIXES
from impart.video.decode.content import is_photo


def jpeg(image: Image.Image, **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, "JPEG", quality=95, **options)
    return content.getvalue()


def raw_file(*, head: bytes = b"", orientation: int = 6) -> bytes:
    """Make a file as cameras do: TIFF tags, a thumbnail, a preview, and the sensor's values as a lossless JPEG."""
    tags = exif(orientation=orientation, taken="2024:05:01 14:00:00", offset="+02:00")[6:]
    thumb, preview = jpeg(halves(size=(160, 120))), jpeg(halves(size=(600, 400)))
    # SOI and SOF3 (lossless) of 4000 x 3000 pixels
    sensor = b"\xff\xd8\xff\xc3" + struct.pack(">HBHHB", 11, 14, 3000, 4000, 1) + b"\x01\x11\x00"
    noise = np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8).tobytes()
    smaller = jpeg(halves("green", "green", size=(300, 200)))
    return (head or tags[:4]) + tags[4:] + thumb + noise + preview + noise + smaller + sensor + noise


@pytest.mark.parametrize("suffix", ["dng", "NEF", "cr2", "arw"])
def test_the_largest_preview_is_taken_upright(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(raw_file())
    assert is_photo(path)
    image, _ = load_image(path)
    assert image.size == (400, 600)
    assert np.abs(np.subtract(image.getpixel((200, 20)), (255, 0, 0))).max() < 12
    photo = load_photo(path)
    np.testing.assert_array_equal(np.asarray(photo.image), np.asarray(image))
    assert (photo.format, photo.recorded_at) == ("jpeg", 1714564800)


@pytest.mark.parametrize(("suffix", "head"), [("rw2", b"MMU\0"), ("orf", b"MMOR"), ("raf", b"FUJI")])
def test_formats_that_begin_in_other_ways(tmp_path: Path, suffix: str, head: bytes) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(raw_file(head=head))
    upright = head == b"MMOR"  # TIFF but for its first bytes; of others, the orientation is unknown
    assert load_image(path)[0].size == ((400, 600) if upright else (600, 400))


def test_a_preview_keeps_an_orientation_that_is_the_files(tmp_path: Path) -> None:
    (tmp_path / "a.dng").write_bytes(raw_file(orientation=1))
    assert load_image(tmp_path / "a.dng")[0].size == (600, 400)


def test_without_a_preview_the_remedy_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.dng").write_bytes(b"II*\0" + bytes(1000) + jpeg(halves(size=(160, 120))))
    with pytest.raises(DataError, match="export it as JPEG or TIFF"):
        load_image(tmp_path / "a.dng")


def test_suffixes_are_in_lower_case() -> None:
    assert {suffix.lower() for suffix in RAW_SUFFIXES} == RAW_SUFFIXES
