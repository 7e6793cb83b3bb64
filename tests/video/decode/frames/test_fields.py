"""Interlaced frames: one field is scaled, so that movement leaves no combs."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from helpers import clips
from impart.config import DecodeSettings
from impart.video.decode.frames.fields import FieldFilter
from impart.video.decode.sampler import DecodedSegment, sample_video

WIDTH, HEIGHT, COUNT = 360, 288, 5
SQUASH = DecodeSettings(reuse_threshold=0)
SHAPE = DecodeSettings(fit="crop", reuse_threshold=0)


def disks(x: int) -> np.ndarray:
    """Two grey disks at a horizontal position, (HEIGHT, WIDTH, 3); grey, since 4:2:0 chroma would be woven wrongly."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    image = np.full((HEIGHT, WIDTH, 3), 80, np.uint8)
    for row, colour in ((90, 20), (200, 240)):
        image[(rows - row) ** 2 + (columns - x) ** 2 < 60**2] = colour
    return image


def woven(x: int, *, step: int = 40) -> np.ndarray:
    """The image of two fields: in the odd rows the disks are `step` px further right."""
    image = disks(x)
    image[1::2] = disks(x + step)[1::2]
    return image


def written(path: Path, images: list[np.ndarray], **how: str) -> Path:
    return clips.write_frames(path, images, times_s=[i / 25 for i in range(len(images))], **how)


def image_of(path: Path, settings: DecodeSettings = SQUASH) -> np.ndarray:
    first = next(iter(sample_video(path, settings=settings, short_side_px=64)))
    assert isinstance(first, DecodedSegment)
    return first.image.astype(float)


@pytest.fixture
def progressive(tmp_path: Path) -> np.ndarray:
    return image_of(written(tmp_path / "progressive.mkv", [disks(120)] * COUNT, codec="ffv1"))


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("h264.mp4", {"codec": "libx264", "x264-params": "tff=1"}),
        ("h264_bff_10_bit.mkv", {"codec": "libx264", "x264-params": "bff=1", "pix_fmt": "yuv422p10le"}),
        ("mpeg2.ts", {"codec": "mpeg2video", "flags": "+ildct+ilme", "b": "8000000"}),
        ("mpeg4.avi", {"codec": "mpeg4", "flags": "+ildct+ilme", "b": "8000000"}),
    ],
)
def test_movement_between_fields_leaves_no_combs(tmp_path, progressive, name, how):
    path = written(tmp_path / name, [woven(120)] * COUNT, **how)
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).interlaced_frame
    assert np.abs(image_of(path) - progressive).mean() < 1.0  # with


def test_fields_that_are_images_of_their_own_stay_whole(tmp_path, progressive):
    fields = [image for _ in range(COUNT) for image in (disks(120)[::2], disks(160)[1::2])]
    path = written(tmp_path / "fields.mkv", fields, codec="libx265", **{"x265-params": "interlace=tff:log-level=error"})
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        assert (frame.height, frame.interlaced_frame) == (HEIGHT // 2, True)
        field = FieldFilter("hevc").field(frame)
        assert (field.height, field.interlaced_frame) == (HEIGHT // 2, False)
    assert np.abs(image_of(path) - progressive).mean() < 1.0
    assert image_of(path, SHAPE).shape == (64, 80, 3)


def test_shape_and_colours_of_a_field_are_those_of_the_frame(tmp_path):
    path = written(tmp_path / "a.mp4", [woven(120)] * COUNT, **{"x264-params": "tff=1:colormatrix=bt709"})
    assert image_of(path, SHAPE).shape == (64, 80, 3)
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        field = FieldFilter().field(frame)
    assert (field.width, field.height, field.interlaced_frame) == (WIDTH, HEIGHT // 2, False)
    assert field.colorspace == frame.colorspace == 1
    assert np.array_equal(field.to_ndarray(format="gray"), frame.to_ndarray(format="gray")[::2])


def test_a_frame_without_the_flag_is_not_changed():
    frame = av.VideoFrame.from_ndarray(disks(120), format="rgb24")
    assert FieldFilter().field(frame) is frame


def test_frames_whose_size_changes(tmp_path):
    taken = FieldFilter()
    for size in ((WIDTH, HEIGHT), (WIDTH // 2, HEIGHT // 2)):
        images = [clips.solid("red", size=size)] * 2
        path = written(tmp_path / f"{size[0]}.mp4", images, **{"x264-params": "tff=1"})
        with av.open(str(path)) as container:
            field = taken.field(next(container.decode(video=0)))
        assert (field.width, field.height) == (size[0], size[1] // 2)
