"""Side data that PyAV has no name for costs nothing; mirrored frames are upright too."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from helpers import clips
from impart.config import DecodeSettings
from impart.video.decode.sampler import DecodedSegment, DecodeFinished, sample_video

SETTINGS = DecodeSettings(fit="crop", reuse_threshold=0)
ORIENTATION = 0x0112
CORNERS = ["red", "green", "blue", "white"]  # of `clips.quarters`: top left, top right, bottom left, bottom right
STORED = {  # EXIF orientation: how an upright image lies in the file
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: np.rot90(image),
    7: lambda image: image[::-1, ::-1].transpose(1, 0, 2),
    8: lambda image: np.rot90(image, -1),
}


def photo(image: np.ndarray, *, orientation: int) -> bytes:
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(file, "JPEG", exif=tags, quality=95, subsampling=0)
    return file.getvalue()


def time_lapse(path: Path, photos: list[bytes]) -> Path:
    """Put JPEGs into a video as they are, one per second."""
    with Image.open(io.BytesIO(photos[0])) as first:
        width, height = first.size
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=1)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuvj444p"
        for number, data in enumerate(photos):
            packet = av.Packet(data)
            packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, 1), True
            packet.pts = packet.dts = number
            packet.duration = 1
            container.mux(packet)
    return path


def corners(image: np.ndarray) -> list[str]:
    height, width = image.shape[:2]
    points = [image[y, x].astype(int) for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]
    return [min(CORNERS, key=lambda name: np.abs(point - clips.COLOURS[name]).sum()) for point in points]


@pytest.mark.parametrize("suffix", [".mov", ".mkv", ".avi"])
def test_a_time_lapse_of_photos_with_exif(tmp_path, suffix):
    photos = [photo(clips.solid(name), orientation=1) for name in ("red", "blue", "white")]
    path = time_lapse(tmp_path / f"lapse{suffix}", photos)
    *segments, finished = sample_video(path, settings=SETTINGS, short_side_px=64)
    assert isinstance(finished, DecodeFinished)
    assert finished.problem is None
    assert finished.samples == 12
    assert [corners(segment.image)[0] for segment in segments] == ["red", "blue", "white"]


@pytest.mark.parametrize("orientation", sorted(STORED))
def test_all_eight_orientations_of_exif_are_upright(tmp_path, orientation):
    stored = STORED[orientation](clips.quarters())
    path = time_lapse(tmp_path / "turned.mov", [photo(stored, orientation=orientation)] * 2)
    first = next(iter(sample_video(path, settings=SETTINGS, short_side_px=64)))
    assert isinstance(first, DecodedSegment)
    assert corners(first.image) == CORNERS
    assert first.image.shape == (64, 85, 3)


@pytest.mark.parametrize("flips", [(True, False), (False, True)])
def test_a_mirrored_display_matrix(tmp_path, flips):
    left_right, top_bottom = flips
    image = clips.quarters()[:: -1 if top_bottom else 1, :: -1 if left_right else 1]
    path = clips.write_frames(tmp_path / "m.mp4", [image] * 3, times_s=[0, 0.1, 0.2])
    clips.mirror(path, left_right=left_right, top_bottom=top_bottom)
    first = next(iter(sample_video(path, settings=SETTINGS, short_side_px=64)))
    assert isinstance(first, DecodedSegment)
    assert corners(first.image) == CORNERS
