"""Every still image becomes RGB by one rule, wherever it is read from."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw

import impart
from helpers.tiny_encoder import TinyEncoder
from impart.encoders.preprocess import PreprocessConfig, preprocess
from impart.errors import DataError
from impart.evaluate import open_set
from impart.images import load_image, read_header, to_rgb
from impart.train.prepare.views import open_view
from impart.video.search.query import Query, query_vectors

Pixels = npt.NDArray[Any]


def drawing() -> tuple[Image.Image, Image.Image]:
    """Draw two shapes on white, and the mask of the shapes."""
    image, mask = Image.new("RGB", (96, 72), "white"), Image.new("L", (96, 72), 0)
    for canvas, red, blue in ((image, (200, 30, 30), (20, 60, 200)), (mask, 255, 255)):
        draw = ImageDraw.Draw(canvas)
        draw.ellipse((18, 12, 78, 60), fill=red)
        draw.rectangle((42, 30, 90, 54), fill=blue)
    return image, mask


def cut_out() -> Image.Image:
    """The drawing with transparent black around it, as most programs save it."""
    image, mask = drawing()
    layer = Image.new("RGBA", image.size, (0, 0, 0, 0))
    layer.paste(image, mask=mask)
    return layer


def grey() -> Image.Image:
    return drawing()[0].convert("L")


def turned() -> Image.Image:
    image = drawing()[0].transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.info["exif"] = exif.tobytes()
    return image


def sixteen(bits: int = 16) -> Image.Image:
    return Image.fromarray(np.rint(np.asarray(grey()) / 255 * (2**bits - 1)).astype(np.uint16))


def right(image: Image.Image) -> Pixels:
    return np.asarray(image.convert("RGB")).astype(int)


FORMS: dict[str, tuple[Callable[[], Image.Image], dict[str, Any], Callable[[], Image.Image]]] = {
    "rgb.png": (lambda: drawing()[0], {}, lambda: drawing()[0]),
    "rgba.png": (cut_out, {}, lambda: drawing()[0]),
    "palette.png": (lambda: cut_out().quantize(), {}, lambda: drawing()[0]),
    "la.png": (lambda: Image.merge("LA", (cut_out().convert("RGB").convert("L"), drawing()[1])), {}, grey),
    "grey16.png": (sixteen, {}, grey),
    "grey16.tif": (sixteen, {}, grey),
    "grey32.tif": (lambda: Image.fromarray(np.asarray(sixteen()).astype(np.int32)), {}, grey),
    "float1.tif": (lambda: Image.fromarray(np.asarray(grey()).astype(np.float32) / 255), {}, grey),
    "float_overshoot.tif": (lambda: Image.fromarray(np.asarray(grey()).astype(np.float32) / 250), {}, grey),
    "float255.tif": (lambda: Image.fromarray(np.asarray(grey()).astype(np.float32)), {}, grey),
    "grey16.pgm": (sixteen, {}, grey),
    "cmyk.jpg": (lambda: drawing()[0].convert("CMYK"), {"quality": 98}, lambda: drawing()[0]),
    "grey.jpg": (grey, {"quality": 98}, grey),
    "alpha.webp": (cut_out, {"lossless": True}, lambda: drawing()[0]),
    "alpha.gif": (cut_out, {}, lambda: drawing()[0]),
    "alpha.tif": (cut_out, {}, lambda: drawing()[0]),
    "alpha.ico": (cut_out, {"sizes": [(96, 72)]}, lambda: drawing()[0]),
    "bilevel.png": (lambda: drawing()[0].convert("1"), {}, lambda: drawing()[0].convert("1")),
    "exif.png": (turned, {}, lambda: drawing()[0]),
    "exif.jpg": (turned, {"quality": 98}, lambda: drawing()[0]),
    "lab.tif": (lambda: Image.new("LAB", (96, 72), (255, 128, 128)), {}, lambda: Image.new("RGB", (96, 72), "white")),
}


def written(name: str, folder: Path) -> tuple[Path, Pixels]:
    """Write one form; its file and the right pixels."""
    made, options, expected = FORMS[name]
    image = made()
    if "exif" in image.info:
        options = {**options, "exif": image.info["exif"]}
    image.save(folder / name, **options)
    return folder / name, right(expected())


@pytest.mark.parametrize("name", FORMS)
def test_each_form_gives_the_same_pixels_from_a_file_bytes_and_memory(name: str, tmp_path: Path) -> None:
    path, expected = written(name, tmp_path)
    found, _ = load_image(path)
    assert found.mode == "RGB"
    distance = np.abs(np.asarray(found).astype(int) - expected).mean() if found.size == (96, 72) else 255.0
    assert distance < (4 if path.suffix in (".jpg", ".gif") else 1.5), f"{name}: {found.size}, {distance}"
    for other in (load_image(path.read_bytes())[0], load_image(path.read_bytes)[0], to_rgb(Image.open(path))):
        np.testing.assert_array_equal(np.asarray(other), np.asarray(found))
    np.testing.assert_array_equal(np.asarray(to_rgb(found)), np.asarray(found))  # the orientation is obeyed once
    opened = Image.open(path)
    assert load_image(opened)[1] == load_image(found)[1]


@pytest.mark.parametrize("name", ["rgba.png", "palette.png", "grey16.png", "exif.jpg", "la.png"])
def test_reference_sets_evaluation_training_encoders_and_queries_read_alike(name: str, tmp_path: Path) -> None:
    (tmp_path / "set" / "thing").mkdir(parents=True)
    path, _ = written(name, tmp_path / "set" / "thing")
    wanted = np.asarray(load_image(path)[0])
    config = PreprocessConfig(size_px=32)
    np.testing.assert_array_equal(preprocess([Image.open(path)], config), preprocess([wanted], config))
    np.testing.assert_array_equal(np.asarray(open_view((path, "clean", 0))), wanted)
    dataset = open_set(tmp_path / "set", kind="classes")
    np.testing.assert_array_equal(np.asarray(dataset.images.read(0)[0]), wanted)
    tiny = TinyEncoder()
    vector = tiny.encode_images([Image.fromarray(wanted)]).embeddings[0]
    stored = impart.ReferenceSet.build(tmp_path / "set", tiny, storage="float32").image_embeddings[0]
    np.testing.assert_allclose(stored, vector, atol=1e-6)
    query = query_vectors([Query(image=path)], tiny, impart.config.SearchSettings(), fit="crop")[0]
    np.testing.assert_allclose(query, vector, atol=1e-6)


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "La", "P", "PA", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV", "LAB", "I", "F", "I;16", "I;16B"]
)
def test_every_mode_becomes_rgb(mode: str) -> None:
    image = Image.new(mode, (50, 40))
    assert preprocess([image], PreprocessConfig(size_px=16)).shape == (1, 3, 16, 16)
    assert to_rgb(image).mode == "RGB"


def test_transparency_is_composited_on_white() -> None:
    clear = Image.new("RGBA", (8, 8), (200, 0, 0, 0))
    assert to_rgb(clear).getpixel((0, 0)) == (255, 255, 255)
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    assert to_rgb(palette).getpixel((0, 0)) == (10, 20, 30)
    palette.info["transparency"] = 1
    assert to_rgb(palette).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(("mode", "key"), [("L", 0), ("RGB", (0, 0, 0)), ("I;16", 0)])
def test_a_transparent_colour_is_white(mode: str, key: Any, tmp_path: Path) -> None:
    Image.new(mode, (8, 8), key).save(tmp_path / "keyed.png", transparency=key)
    assert load_image(tmp_path / "keyed.png")[0].getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(("level", "expected"), [(0, 0), (32768, 128), (65535, 255)])
def test_sixteen_bits_are_scaled(level: int, expected: int) -> None:
    pixels = np.full((4, 4), level, dtype=np.uint16)
    pixels[0, 0] = 65535  # makes it a 16-bit image at every level
    for image in (Image.fromarray(pixels), Image.fromarray(pixels.astype(np.int32))):
        assert to_rgb(image).getpixel((2, 2)) == (expected,) * 3
    assert to_rgb(Image.fromarray(np.full((4, 4), 0.5, dtype=np.float32))).getpixel((0, 0)) == (128,) * 3


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_a_dark_sixteen_bit_image_stays_dark(suffix: str, tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 200, np.uint16)).save(tmp_path / f"dark.{suffix}")
    assert load_image(tmp_path / f"dark.{suffix}")[0].getpixel((0, 0)) == (1, 1, 1)


def test_tags_of_a_tiff_give_the_range(tmp_path: Path) -> None:
    negative = Image.fromarray(np.full((8, 8), 65535, np.uint16))
    negative.save(tmp_path / "negative.tif", tiffinfo={262: 0})
    assert load_image(tmp_path / "negative.tif")[0].getpixel((0, 0)) == (0, 0, 0)
    gaps = np.full((8, 8), 0.5, np.float32)
    gaps[0] = np.nan
    Image.fromarray(gaps).save(tmp_path / "gaps.tif")
    found = load_image(tmp_path / "gaps.tif")[0]
    assert (found.getpixel((0, 0)), found.getpixel((0, 4))) == ((0, 0, 0), (128, 128, 128))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_each_exif_orientation_is_obeyed(orientation: int, tmp_path: Path) -> None:
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    drawing()[0].save(tmp_path / "turned.png", exif=exif)
    expected = ImageOps.exif_transpose(Image.open(tmp_path / "turned.png"))
    np.testing.assert_array_equal(np.asarray(load_image(tmp_path / "turned.png")[0]), np.asarray(expected))


def test_a_damaged_exif_block_costs_the_orientation_alone(tmp_path: Path) -> None:
    damaged = b"Exif\0\0MM\0*" + struct.pack(">I", 8) + struct.pack(">H", 900) + b"\x01\x12\0\x03"
    drawing()[0].save(tmp_path / "odd.jpg", exif=damaged, quality=98)
    assert load_image(tmp_path / "odd.jpg")[0].size == (96, 72)


def test_headers_are_read_without_pixels(tmp_path: Path) -> None:
    whole = io.BytesIO()
    drawing()[0].save(whole, "PNG")
    header = read_header(whole.getvalue()[:60])
    assert (header.width, header.height, header.plain) == (96, 72, True)
    assert not read_header(written("exif.jpg", tmp_path)[0]).plain
    assert not read_header(written("rgba.png", tmp_path)[0]).plain
    with pytest.raises(DataError, match=r"over the limit of 0\.001 megapixels"):
        read_header(whole.getvalue(), max_megapixels=0.001)


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "missing"), (b"", "empty"), (b"no image", "format is unknown"), ("cut", "truncated")]
)
def test_what_cannot_be_read_is_an_error_with_the_reason(content: Any, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    if content == "cut":
        drawing()[0].save(path)
        content = path.read_bytes()[:-300]
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=reason):
        load_image(path)
    with pytest.raises(DataError, match=r"image\.png"):
        query_vectors([Query(image=path)], TinyEncoder(), impart.config.SearchSettings(), fit="crop")
