"""A photo is one segment without duration, with the pixels that queries and reference sets see."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from helpers.clips import write_clip
from helpers.photos import exif, halves, write_animation, write_photo
from helpers.tiny_encoder import TinyEncoder
from impart.config import DecodeSettings, Fit, SearchSettings
from impart.encoders.base import ImageEmbeddings, ImageInput
from impart.encoders.preprocess import PreprocessConfig, preprocess
from impart.errors import DecodeError
from impart.video.decode.container import open_video, video_info
from impart.video.decode.content import ICON, is_photo
from impart.video.decode.decoder import Decoder
from impart.video.decode.photo import sample_photo
from impart.video.decode.sampler import DecodedSegment, DecodeFailed, DecodeFinished
from impart.video.search.query import Query, query_vectors

FORMATS = ["jpg", "png", "webp", "tif", "bmp", "gif", "jp2", "avif", "heic", "heif", "ppm", "tga"]


class PixelEncoder(TinyEncoder):
    """Keeps what the image tower would see."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[np.ndarray] = []

    def encode_images(self, images: list[ImageInput]) -> ImageEmbeddings:  # type: ignore[override]
        self.seen.append(preprocess(images, PreprocessConfig(size_px=32)))
        return super().encode_images(images)


def decoded(path: Path, *, fit: Fit = "squash", side: int = 32) -> tuple[DecodedSegment, DecodeFinished]:
    segment, finished = sample_photo(path, settings=DecodeSettings(fit=fit), short_side_px=side)
    assert isinstance(segment, DecodedSegment)
    assert isinstance(finished, DecodeFinished)
    return segment, finished


@pytest.mark.parametrize("suffix", FORMATS)
def test_formats(tmp_path: Path, suffix: str) -> None:
    path = write_photo(tmp_path / f"a.{suffix}", halves())
    assert is_photo(path)
    segment, finished = decoded(path)
    assert (segment.start_s, segment.end_s, segment.weight, segment.still) == (0, 0, 1, True)
    assert segment.image.shape == (32, 32, 3)
    assert np.abs(segment.image[16, 4].astype(int) - (255, 0, 0)).max() < 12
    assert np.abs(segment.image[16, 28].astype(int) - (0, 0, 255)).max() < 12
    info = finished.info
    assert (info.kind, info.duration_s, info.fps, info.width, info.height) == ("photo", 0, 0, 64, 48)
    assert (finished.samples, finished.problem, finished.notes) == (1, None, ())


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "avif", "heic"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_orientation(tmp_path: Path, suffix: str, orientation: int) -> None:
    path = write_photo(tmp_path / f"a.{suffix}", halves(), exif=exif(orientation=orientation))
    segment, finished = decoded(path)
    red = {1: (16, 4), 3: (16, 28), 6: (4, 16), 8: (28, 16)}[orientation]
    assert np.abs(segment.image[red].astype(int) - (255, 0, 0)).max() < 12
    assert (finished.info.width, finished.info.height) == ((64, 48) if orientation < 5 else (48, 64))


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "RGBA", "LA", "16", "YCbCr"])
def test_modes(tmp_path: Path, mode: str) -> None:
    suffix = {"CMYK": "tif", "YCbCr": "jpg"}.get(mode, "png")
    image = halves("white", "black")
    stored = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257) if mode == "16" else image
    write_photo(tmp_path / f"a.{suffix}", stored if mode == "16" else stored.convert(mode))
    segment, _ = decoded(tmp_path / f"a.{suffix}")
    assert segment.image[16, 4].min() > 250
    assert segment.image[16, 28].max() < 5


@pytest.mark.parametrize("fit", ["squash", "crop"])
@pytest.mark.parametrize("size", [(1600, 1200), (900, 900), (100, 4000), (40, 20)])
def test_an_image_query_sees_the_same_pixels(tmp_path: Path, fit: Fit, size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    path = write_photo(tmp_path / "a.jpg", Image.fromarray(noise), exif=exif(orientation=6))
    encoder = PixelEncoder()
    encoder.encode_images([decoded(path, fit=fit)[0].image])
    query_vectors([Query(image=path)], encoder, SearchSettings(), fit=fit)
    indexed, asked = encoder.seen
    np.testing.assert_array_equal(indexed, asked)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "avif"])
def test_animations_are_videos(tmp_path: Path, suffix: str) -> None:
    path = write_animation(tmp_path / f"a.{suffix}")
    assert not is_photo(path)
    (*segments, finished) = Decoder(short_side_px=32).decode([path])
    assert isinstance(finished, DecodeFinished)
    assert finished.info.kind == "video"
    assert finished.info.duration_s == pytest.approx(0.9, abs=0.11)
    assert len(segments) >= 3


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_equal_frames_that_are_saved_as_one_are_a_photo(tmp_path: Path, suffix: str) -> None:
    path = write_animation(tmp_path / f"a.{suffix}", colours=("red",) * 5)
    segment, finished = Decoder(short_side_px=32).decode([path])
    assert isinstance(segment, DecodedSegment)
    assert isinstance(finished, DecodeFinished)
    assert (segment.still, finished.info.kind) == (True, "photo")


def test_a_film_of_jpegs_is_a_video(tmp_path: Path) -> None:
    one = write_photo(tmp_path / "one.jpg").read_bytes()
    (tmp_path / "film.mjpeg").write_bytes(one * 10)
    assert not is_photo(tmp_path / "film.mjpeg")
    assert is_photo(tmp_path / "one.jpg")


def test_pages_that_are_left_out_are_told(tmp_path: Path) -> None:
    pages = [halves("red"), halves("green"), halves("blue")]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    assert decoded(tmp_path / "a.tif")[1].notes == ("has 3 pages: the first one is taken",)


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.jpg", b"", "the file is empty"),
        ("a.jpg", b"<html>not found</html>", "its format is unknown"),
        ("a.png", b"\x89PNG\r\n\x1a\n" + bytes(50), "not a readable image"),
        ("a.heic", b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(50), "not a readable image"),
        ("a.dng", b"II*\x00" + bytes(500), "a raw file without a preview"),
    ],
)
def test_damaged_files_are_failures_of_their_own(tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(data)
    whole = write_photo(tmp_path / "whole.png")
    failed, *rest = Decoder(short_side_px=32).decode([tmp_path / name, whole])
    assert isinstance(failed, DecodeFailed)
    assert reason in failed.reason
    assert failed.lasting
    assert [type(item) for item in rest] == [DecodedSegment, DecodeFinished]


def test_a_cut_photo_is_a_failure(tmp_path: Path) -> None:
    path = write_photo(tmp_path / "a.jpg", halves(size=(640, 480)))
    path.write_bytes(path.read_bytes()[:-900])
    with pytest.raises(DecodeError, match=r"a\.jpg"):
        decoded(path)


def test_a_missing_photo_is_tried_again(tmp_path: Path) -> None:
    with pytest.raises(DecodeError) as raised:
        decoded(tmp_path / "absent.jpg")
    assert not raised.value.lasting


def test_icons_are_left_out(tmp_path: Path) -> None:
    write_photo(tmp_path / "small.png", halves(size=(31, 31)))
    with pytest.raises(DecodeError, match=ICON):
        decoded(tmp_path / "small.png")
    assert decoded(write_photo(tmp_path / "large.png", halves(size=(32, 8))))[1].samples == 1


NOON = datetime(2024, 5, 1, 12, tzinfo=UTC).timestamp()


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "avif", "heic"])
def test_the_time_of_a_photo_is_that_of_its_exif_block(tmp_path: Path, suffix: str) -> None:
    path = write_photo(tmp_path / f"a.{suffix}", exif=exif(taken="2024:05:01 14:00:00", offset="+02:00"))
    assert decoded(path)[1].info.recorded_at == NOON


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (exif(taken="2024:05:01 12:00:00"), datetime(2024, 5, 1, 12).timestamp()),  # the clock of this machine
        (exif(taken="0000:00:00 00:00:00"), None),
        (exif(taken="    :  :     :  :  "), None),
        (exif(taken="0000:00:00 00:00:00", digitised="2024:05:01 12:00:00"), datetime(2024, 5, 1, 12).timestamp()),
        (exif(taken="2024-05-01T12:00:00", offset="Z"), NOON),
        (exif(), None),
    ],
)
def test_exif_times(tmp_path: Path, block: bytes, expected: float | None) -> None:
    assert decoded(write_photo(tmp_path / "a.jpg", exif=block))[1].info.recorded_at == expected


def test_local_time_is_that_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_photo(tmp_path / "a.jpg", exif=exif(taken="2024:05:01 07:00:00"))
    monkeypatch.setenv("TZ", "Etc/GMT+5")
    time.tzset()
    try:
        assert decoded(path)[1].info.recorded_at == NOON
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"creation_time": "2024-05-01T12:00:00.000000Z"}, NOON),
        ({"creation_time": "1904-01-01T00:00:00.000000Z"}, None),
        ({"creation_time": "1970-01-01T00:00:00.000000Z"}, None),
        (
            {"com.apple.quicktime.creationdate": "2024-05-01T14:00:00+0200", "creation_time": "2024-06-01T00:00:00Z"},
            NOON,
        ),
        ({}, None),
    ],
)
def test_the_time_of_a_video_is_that_of_its_container(
    tmp_path: Path, tags: dict[str, str], expected: float | None
) -> None:
    write_clip(tmp_path / "plain.mov", seconds_each=0.2)
    path = tmp_path / "a.mov"
    with av.open(tmp_path / "plain.mov") as source, av.open(path, "w", options={"movflags": "use_metadata_tags"}) as to:
        to.metadata.update(tags)
        stream = to.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                to.mux(packet)
    with open_video(path) as container:
        info = video_info(container, container.streams.video[0], turn=(False, False, False), duration_s=0.2)
    assert info.recorded_at == expected
