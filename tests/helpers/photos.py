"""Photos of one or two colours, in any format that Pillow or pillow-heif writes, with EXIF tags."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pillow_heif
from PIL import Image

from helpers.tiny_encoder import COLOURS

__all__ = ["exif", "halves", "write_animation", "write_photo"]


def exif(*, orientation: int = 1, taken: str | None = None, offset: str | None = None, digitised: str = "") -> bytes:
    """Make an EXIF block; `taken` is written as cameras do, such as `2024:05:01 12:00:00`."""
    tags = Image.Exif()
    tags[0x0112] = orientation
    inner = tags.get_ifd(0x8769)
    inner.update({tag: text for tag, text in ((0x9003, taken), (0x9011, offset), (0x9004, digitised)) if text})
    return tags.tobytes()


def halves(left: str = "red", right: str = "blue", *, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """Draw an image of two halves."""
    image = Image.new("RGB", size, COLOURS[left])
    image.paste(COLOURS[right], (size[0] // 2, 0, *size))
    return image


def write_photo(path: Path, image: Image.Image | str = "red", **options: Any) -> Path:
    """Write an image, or one of a single colour, in the format of the suffix."""
    if isinstance(image, str):
        image = Image.new("RGB", (64, 48), COLOURS[image])
    if path.suffix.lower() in (".heic", ".heif"):
        content = io.BytesIO()
        pillow_heif.from_pillow(image).save(content, **options)
        path.write_bytes(content.getvalue())
    else:
        image.save(path, **options)
    return path


def write_animation(path: Path, *, colours: tuple[str, ...] = ("red", "green", "blue"), ms: int = 300) -> Path:
    """Write an animated image."""
    images = [Image.new("RGB", (64, 48), COLOURS[colour]) for colour in colours]
    images[0].save(path, save_all=True, append_images=images[1:], duration=ms)
    return path
