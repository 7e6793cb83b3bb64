"""Open still images: the one place that opens image files, and the one rule by which every image becomes 8-bit RGB.

Reference sets, training, evaluation, encoders and image queries use it, so that one file gives the same pixels
everywhere. The rule, in this order:

- an animation gives its first frame, a raw file its largest preview (`impart.raw_previews`);
- transparent pixels are composited on white, as in transformers (open_clip drops the alpha channel);
- 16-bit, 32-bit and float pixels are scaled from the range of their format to 8 bits, not clipped;
- every other mode (palette, grey, 1-bit, CMYK, LAB, ...) is converted to RGB;
- the EXIF orientation is obeyed. A damaged EXIF block costs the orientation, not the image.
"""

from __future__ import annotations

import functools
import io
import math
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageSequence, UnidentifiedImageError

from impart.errors import DataError
from impart.files import sha256_hex
from impart.raw_previews import RAW_SUFFIXES, jpegs_in, with_exif_of

__all__ = [
    "DRAFT_SIDES",
    "ImageHeader",
    "ImageSource",
    "Photo",
    "animation_frames",
    "is_animation",
    "load_image",
    "load_photo",
    "read_header",
    "to_rgb",
]

ImageSource: TypeAlias = "Path | bytes | Callable[[], bytes] | Image.Image | npt.NDArray[np.uint8]"
"""An image: a file, its bytes, a function that reads its bytes, or an image in memory."""

DRAFT_SIDES = 2
"""A JPEG is decoded with sides of at least this many times the encoder's: a photo of 12 megapixels in a fifth of the
time. Photos of an index, images of a reference set and image queries use the same factor, so their pixels are equal."""

_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    ArithmeticError,
    TypeError,
    AttributeError,
    RuntimeError,
    struct.error,
    zlib.error,
)
"""Errors that Pillow raises for damaged files."""

_ORIENTATION = 0x0112
_EXIF_IFD = 0x8769
_TIMES = ((0x9003, 0x9011), (0x9004, 0x9012))
"""EXIF tags of the time at which a photo was taken, then digitised, each with the tag of its offset from UTC."""
_LEAST_PREVIEW_PX = 256  # of the long side of the JPEG in a raw file: a smaller one is a thumbnail
_FIRST_YEAR = 1826  # of the oldest photograph; 0000:00:00 is a clock that was not set
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
_SEVERAL = {"TIFF": "pages", "HEIF": "images"}
"""Formats whose further images are others; a JPEG's are previews, and those of a PSD are layers."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> the operation that turns the image upright."""

_FEW_BITS = {"L;2": 85, "L;4": 17}
"""Grey of 2 or 4 bits: Pillow scales the pixels by this factor to 8 bits, but not the transparent level."""

_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # TIFF tags
_WHITE_IS_ZERO, _SIGNED = 0, 2
_FLOAT_WHITES = ((16.0, 1.0), (512.0, 255.0), (2.0 * 65535, 65535.0))
"""White of float pixels by their highest value: files state none. The bounds leave room for highlights above white."""
_INTEGER_WHITES = ((255.0, 255.0), (65535.0, 65535.0), (math.inf, 2.0**31 - 1))
"""White of 32-bit integers by their highest value."""


@dataclass(frozen=True)
class ImageHeader:
    """Facts about an image that need no decoding.

    Attributes:
        width: in pixels, as stored.
        height: in pixels, as stored.
        plain: whether it is upright 8-bit RGB as stored, so that its file needs no conversion.
    """

    width: int
    height: int
    plain: bool


@dataclass(frozen=True, kw_only=True)
class Photo:
    """A still image file.

    Attributes:
        image: upright RGB, as `load_image` returns it.
        format: name of the format in lower case, such as `jpeg`, `png` or `heif`.
        recorded_at: Unix time (s) at which it was taken; None = unknown.
        notes: what was left out, such as further pages.
    """

    image: Image.Image
    format: str
    recorded_at: float | None
    notes: tuple[str, ...] = ()


def load_image(image: ImageSource, *, max_megapixels: float = math.inf, draft_px: int = 0) -> tuple[Image.Image, str]:
    """Read an image upright in RGB (see the module), with the sha256 of its content.

    The content of a file is its bytes, so that the same file has the same hash on every machine. The content of an
    image in memory is its size and RGB pixels.

    Args:
        image: a file, bytes, a function that returns bytes, a PIL image, or an RGB uint8 array (h, w, 3).
        max_megapixels: larger files are refused; Pillow refuses above 179 in any case.
        draft_px: a JPEG may be decoded smaller, with sides of at least this many pixels; 0 = at full size.

    Raises:
        DataError: missing, empty, not an image, cut off, or larger than allowed.

    Example:
        >>> clear = Image.new("RGBA", (2, 2), (200, 0, 0, 0))
        >>> load_image(clear)[0].getpixel((0, 0))
        (255, 255, 255)
    """
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
            raise DataError(f"array of shape {image.shape}, {image.dtype}: an RGB uint8 array (h, w, 3) is needed")
        image = Image.fromarray(image)
    if isinstance(image, Image.Image):
        upright = to_rgb(image)
        return upright, sha256_hex(repr(upright.size), upright.tobytes())
    data = _content(image)
    with _opened(data, max_megapixels) as opened:
        if draft_px:
            opened.draft("RGB", (draft_px, draft_px))
        upright = _upright_rgb(opened)
    return upright, sha256_hex(data)


def load_photo(path: Path, *, draft_px: int = 0) -> Photo:
    """Read an image file: the same pixels as `load_image`, with what else the file states about itself.

    Args:
        draft_px: see `load_image`.

    Raises:
        DataError: missing, empty, not an image, cut off, or larger than allowed.
    """
    with _opened(_content(path), math.inf) as opened:
        name = opened.format or "unknown"
        notes: tuple[str, ...] = ()
        if name in _SEVERAL and (count := getattr(opened, "n_frames", 1)) > 1:
            notes = (f"has {count} {_SEVERAL[name]}: the first one is taken",)
        recorded_at = _recorded_at(opened)
        if draft_px:
            opened.draft("RGB", (draft_px, draft_px))
        return Photo(image=_upright_rgb(opened), format=name.lower(), recorded_at=recorded_at, notes=notes)


def is_animation(path: Path) -> bool:
    """Tell whether an image file has several frames; True where this cannot be read, False where it is too large.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        try:
            with Image.open(file) as image:
                return bool(getattr(image, "is_animated", False))
        except Image.DecompressionBombError:
            return False
        except _DAMAGE:
            return True


def read_header(image: Path | bytes, *, max_megapixels: float = math.inf) -> ImageHeader:
    """Read the header of an image file or its bytes, without decoding the pixels.

    Raises:
        DataError: it is missing, of no known format, or larger than allowed.
    """
    with _opened(_content(image), max_megapixels) as opened:
        plain = opened.mode == "RGB" and "transparency" not in opened.info and _orientation(opened) == 1
        return ImageHeader(*opened.size, plain)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a PIL image of any mode to upright 8-bit RGB (see the module).

    Raises:
        DataError: the file behind the image is damaged.
    """
    try:
        return _upright_rgb(image)
    except _DAMAGE as error:
        name = getattr(image, "filename", "") or "the image"
        raise DataError(f"{name} cannot be read as an image ({error}); replace or leave out the file") from error


def animation_frames(path: Path, *, most_px: int) -> Iterator[tuple[Image.Image, int]]:
    """Yield the frames of an animated image, each in RGB (see the module) with its duration in milliseconds.

    Args:
        most_px: refuse an animation with more pixels in all frames together.

    Raises:
        OSError, SyntaxError: the file is damaged.
        ValueError: the animation is too large.
    """
    too_large = f"an animation of more than {most_px:,} pixels"
    try:
        with Image.open(path) as image:
            if image.width * image.height * getattr(image, "n_frames", 1) > most_px:
                raise ValueError(too_large)
            for shown in ImageSequence.Iterator(image):
                yield to_rgb(shown), round(shown.info.get("duration", 0))
    except Image.DecompressionBombError as error:
        raise ValueError(too_large) from error


def _content(image: Path | bytes | Callable[[], bytes]) -> bytes:
    try:
        data = image if isinstance(image, bytes) else image.read_bytes() if isinstance(image, Path) else image()
    except FileNotFoundError as error:
        raise DataError("the file is missing") from error
    except (OSError, tarfile.TarError) as error:
        raise DataError(f"cannot be read: {error.strerror if isinstance(error, OSError) else error}") from error
    if not data:
        raise DataError("the file is empty")
    if isinstance(image, Path) and image.suffix.lower() in RAW_SUFFIXES:
        return _preview_of(data)
    return data


def _preview_of(raw: bytes) -> bytes:
    """Find the largest JPEG in the content of a raw file."""
    best, most_px = b"", 0
    for part in jpegs_in(raw):
        try:
            with Image.open(io.BytesIO(part), formats=["JPEG"]) as image:
                size_px = image.width * image.height
                if max(image.size) < _LEAST_PREVIEW_PX or size_px <= most_px:
                    continue
                image.draft("RGB", (32, 32))
                image.load()  # the sensor's values are a JPEG of a kind that cannot be decoded
        except _DAMAGE:
            continue
        best, most_px = part, size_px
    if not best:
        raise DataError("a raw file without a preview that can be read: export it as JPEG or TIFF")
    return with_exif_of(raw, best)


@contextmanager
def _opened(data: bytes, max_megapixels: float) -> Iterator[Image.Image]:
    """Open an image without decoding it; whatever its decoder raises becomes a `DataError`."""
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS:
        _register_heif()
    try:
        with Image.open(io.BytesIO(data)) as opened:
            width, height = opened.size
            if width * height > max_megapixels * 1e6:
                raise DataError(f"{width} x {height} px is over the limit of {max_megapixels:g} megapixels")
            yield opened
    except Image.DecompressionBombError as error:
        limit = min(max_megapixels, 2e-6 * (Image.MAX_IMAGE_PIXELS or math.inf))
        raise DataError(f"over the limit of {limit:.3g} megapixels") from error
    except _DAMAGE as error:
        reason = "its format is unknown" if isinstance(error, UnidentifiedImageError) else error
        raise DataError(f"not a readable image: {reason}") from error


@functools.cache
def _register_heif() -> None:
    """Teach Pillow to read HEIC and HEIF: with the first of them, since loading the decoder takes time."""
    import pillow_heif

    pillow_heif.register_heif_opener()


def _recorded_at(image: Image.Image) -> float | None:
    """Read the EXIF time at which a photo was taken, as Unix time (s). Without an offset, it is local time."""
    try:
        tags = image.getexif().get_ifd(_EXIF_IFD)
    except _DAMAGE:
        return None
    for time_tag, offset_tag in _TIMES:
        text = f"{tags.get(time_tag, '')}".strip("\0 ")[:19].replace("-", ":").replace("T", " ")
        offset = f"{tags.get(offset_tag, '')}".strip("\0 ")
        try:
            clock = datetime.strptime(text, "%Y:%m:%d %H:%M:%S")
            if clock.year < _FIRST_YEAR:
                continue
            if offset:
                clock = datetime.fromisoformat(f"{clock.isoformat()}{offset}")
            return clock.timestamp()
        except (ValueError, OverflowError, OSError):
            continue
    return None


def _upright_rgb(image: Image.Image) -> Image.Image:
    stored_as = [str(tile.args) for tile in getattr(image, "tile", ())]  # known until the pixels are loaded
    image.load()
    key = image.info.get("transparency")
    if isinstance(key, int) and stored_as and stored_as[0] in _FEW_BITS:
        image.info["transparency"] = key * _FEW_BITS[stored_as[0]]
    turn = _TURNS.get(_orientation(image))
    image = _rgb(image)
    if turn is not None:
        image = image.transpose(turn)
        image.info = {}  # its EXIF block still has the old orientation
    return image


def _orientation(image: Image.Image) -> int:
    """Read the EXIF orientation; 1 where there is none, or where the EXIF block is damaged."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except _DAMAGE:
        return 1
    return value if isinstance(value, int) else 1


def _rgb(image: Image.Image) -> Image.Image:
    """Convert a loaded image to RGB, in the orientation that it has."""
    key = image.info.get("transparency")
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Image.fromarray(_eight_bits(image, key)).convert("RGB")
    if image.mode == "RGB" and isinstance(key, tuple) and max(key) > 255:  # the transparent colour of a 16-bit PNG
        image = image.copy()
        image.info["transparency"] = key = tuple(level >> 8 for level in key)
    if image.mode in ("La", "RGBa"):  # alpha already multiplied
        image = image.convert(image.mode.replace("a", "A"))
    if "A" in image.getbands() or key is not None:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bits(image: Image.Image, transparent: Any) -> npt.NDArray[np.uint8]:
    """Scale 16-bit, 32-bit or float pixels (H, W) to 8 bits; the conversion of Pillow clips them to white."""
    stored = np.asarray(image)
    pixels = np.nan_to_num(stored.astype(np.float32), nan=0.0, posinf=np.inf, neginf=-np.inf)
    tags: Any = getattr(image, "tag_v2", {})
    black, white = _range(image, pixels, tags)
    levels = np.rint((pixels - black) * (255.0 / (white - black)))
    scaled: npt.NDArray[np.uint8] = np.clip(levels, 0, 255).astype(np.uint8)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        scaled = np.uint8(255) - scaled
    if isinstance(transparent, int):
        scaled[stored == transparent] = 255
    return scaled


def _range(image: Image.Image, pixels: npt.NDArray[np.float32], tags: Any) -> tuple[float, float]:
    """Return the values that are black and white: those of the format, or by the pixels where it states none."""
    bits = _first(tags.get(_BITS_PER_SAMPLE), 16 if image.mode.startswith("I;16") else 32)
    if image.mode != "F" and image.format in ("PNG", "PPM"):
        bits = 16  # Pillow has mode "I" for both in some versions
    if image.mode != "F" and bits <= 16:
        if _first(tags.get(_SAMPLE_FORMAT), 1) != _SIGNED:
            return 0.0, 2.0**bits - 1
        white = 2.0 ** (bits - 1) - 1
        return (-white - 1 if pixels.min(initial=0.0) < 0 else 0.0), white
    highest = float(pixels.max(initial=0.0, where=np.isfinite(pixels)))
    whites = _FLOAT_WHITES if image.mode == "F" else _INTEGER_WHITES
    return 0.0, next((white for bound, white in whites if highest <= bound), highest)


def _first(value: Any, default: int) -> int:
    """Return a TIFF tag's number, or the first of its numbers."""
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) else default
