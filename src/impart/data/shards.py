"""Check and resize fetched images, and write them with their captions to WebDataset shards.

A sample is `<photoid>.jpg`, `<photoid>.txt` (the caption) and `<photoid>.json` (photoid, licence, url and other
fields). The split of a pair depends on its photoid alone, so no pair changes its split when files are added.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from PIL import Image, ImageOps

from impart.errors import DataError
from impart.files import sha256_int
from impart.images import load_image, read_header

__all__ = ["SPLITS", "ImageSettings", "Sample", "ShardWriter", "checked_image", "split_of"]

SPLITS = ("train", "reference")
_MARKUP = (b"<!doctype", b"<html", b"<head", b"<body", b"<?xml", b"<script")


@dataclass(frozen=True, kw_only=True)
class ImageSettings:
    """Size limits and JPEG quality of the stored images.

    Attributes:
        image_size: length in pixels to which a longer shorter side is reduced; 0 = no reduction.
        min_size: images with a shorter side below this many pixels are left out.
        quality: JPEG quality of images that are encoded again.
        max_megapixels: larger images are left out.
    """

    image_size: int = 256
    min_size: int = 32
    quality: int = 92
    max_megapixels: float = 100.0


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One pair as it is written to a shard.

    Attributes:
        key: photoid.
        data: content of the JPEG file.
        caption: not empty.
        about: further fields of the JSON file.
    """

    key: str
    data: bytes
    caption: str
    about: Mapping[str, Any]


def split_of(photoid: str, *, reference: float) -> str:
    """Return the split of a photo, by a hash of its photoid.

    Args:
        photoid: as stored in the metadata.
        reference: fraction of all photoids that get `reference`; the others get `train`.

    >>> split_of("6985418911", reference=0.1), split_of("6985418911", reference=1.0)
    ('train', 'reference')
    """
    return "reference" if sha256_int(f"impart-reference:{photoid}") < reference * 2**64 else "train"


def checked_image(data: bytes, settings: ImageSettings) -> tuple[bytes, int, int]:
    """Check a served file and convert it to a JPEG of the wanted size.

    Returns:
        The content of the JPEG file, its width and its height in pixels.

    Raises:
        DataError: it is not a complete image of an allowed size. The message is the reason for `failures.csv`.
    """
    head = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith(_MARKUP):
        raise DataError("HTML instead of an image")
    try:
        image, _ = load_image(data, max_megapixels=settings.max_megapixels)
    except DataError as error:
        text = str(error)
        if "truncated" in text or "broken" in text or "Truncated" in text:
            raise DataError("the image is cut off") from error
        raise DataError("not an image" if "format is unknown" in text else text) from error
    width, height = image.size
    if min(width, height) < settings.min_size:
        raise DataError(f"smaller than {settings.min_size} px")
    size = settings.image_size
    if data.startswith(b"\xff\xd8") and (not size or min(width, height) <= size) and read_header(data).plain:
        return data, width, height
    if size and min(width, height) > size:
        scale = size / min(width, height)
        image = ImageOps.contain(image, (round(width * scale), round(height * scale)), Image.Resampling.LANCZOS)
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=settings.quality)
    return encoded.getvalue(), *image.size


@dataclass
class ShardWriter:
    """Context manager that writes samples to `<split>-00000.tar` and following in one folder.

    The same samples give the same bytes.

    Attributes:
        folder: empty at the start.
        shard_size: maximum number of pairs per shard.
        counts: shard name to its number of pairs.
    """

    folder: Path
    shard_size: int
    counts: dict[str, int] = field(default_factory=dict)
    _open: dict[str, tuple[str, tarfile.TarFile]] = field(default_factory=dict)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        for _, tar in self._open.values():
            tar.close()
        self._open.clear()

    def write(self, split: str, sample: Sample) -> None:
        """Append a sample to the open shard of its split."""
        name, tar = self._open.get(split, ("", None))
        if tar is None or self.counts[name] >= self.shard_size:
            if tar is not None:
                tar.close()
            number = sum(known.startswith(f"{split}-") for known in self.counts)
            name = f"{split}-{number:05d}.tar"
            tar = tarfile.open(self.folder / name, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
            self._open[split] = (name, tar)
            self.counts[name] = 0
        about = json.dumps({"caption": sample.caption, **sample.about}, ensure_ascii=False).encode()
        for suffix, content in (("jpg", sample.data), ("txt", sample.caption.encode()), ("json", about)):
            member = tarfile.TarInfo(f"{sample.key}.{suffix}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        self.counts[name] += 1
