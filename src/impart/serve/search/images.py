"""Query images: uploaded images as small WebP files on disk, so that further pages and a reload find them again."""

from __future__ import annotations

import io
import os
import re
import threading
from contextlib import suppress
from pathlib import Path

from PIL import Image
from PIL.Image import DecompressionBombError

from impart.errors import DataError
from impart.files import sha256_hex, write_atomic
from impart.images import load_image, read_header
from impart.serve.problems import Problem

__all__ = ["QueryImages"]

_SIDE_PX = 768  # larger than what any model reads
_QUALITY = 95
_ID = re.compile("[0-9a-f]{32}")
_MEGABYTE = 1 << 20


class QueryImages:
    """Uploaded images in a folder; those used last are kept.

    Args:
        folder: made at the first image.
        most_mb: of all files together.
        upload_mb, upload_megapixels: largest image that is taken.
    """

    def __init__(self, folder: Path, *, most_mb: float = 64, upload_mb: int, upload_megapixels: float) -> None:
        self._folder = folder
        self._most = most_mb * _MEGABYTE
        self._upload_mb, self._megapixels = upload_mb, upload_megapixels
        self._lock = threading.Lock()

    def add(self, data: bytes) -> str:
        """Keep an image, and return its id. Its dimensions are checked before a pixel is decoded.

        Raises:
            Problem: 413, it has too many bytes or pixels; 415, it is no image.
        """
        if len(data) > self._upload_mb * _MEGABYTE:
            raise Problem(413, "too_large", f"the image is over the limit of {self._upload_mb} MiB")
        limit = f"at most {self._megapixels:g} megapixels are taken"
        try:
            header = read_header(data)
            if header.width * header.height > self._megapixels * 1e6:
                raise Problem(413, "too_many_pixels", f"the image has {header.width} x {header.height} px: {limit}")
            image, _ = load_image(data, max_megapixels=self._megapixels, draft_px=2 * _SIDE_PX)
        except DataError as error:
            if isinstance(error.__cause__, DecompressionBombError):
                raise Problem(413, "too_many_pixels", f"the image has too many pixels: {limit}") from error
            raise Problem(415, "not_an_image", f"the file cannot be read as an image: {error}") from error
        image_id = sha256_hex(data)[:32]
        with self._lock:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_atomic(self._path(image_id), _webp(image))
            self._shrink()
        return image_id

    def file(self, image_id: str) -> Path:
        """Return the file of an image.

        Raises:
            Problem: 404, it is not kept, or no longer.
        """
        if _ID.fullmatch(image_id):
            with suppress(OSError):
                os.utime(self._path(image_id))  # used now
                return self._path(image_id)
        raise Problem(404, "image_not_found", "the query image is not kept any more: upload it again")

    def _path(self, image_id: str) -> Path:
        return self._folder / f"{image_id}.webp"

    def _shrink(self) -> None:
        """Delete the images that were not used for longest, until the others fit."""
        files = sorted(
            ((file.stat().st_mtime_ns, file.stat().st_size, file) for file in self._folder.glob("*.webp")), reverse=True
        )
        total = 0
        for number, (_, size, file) in enumerate(files):
            total += size
            if number and total > self._most:
                file.unlink(missing_ok=True)


def _webp(image: Image.Image) -> bytes:
    image.thumbnail((_SIDE_PX, _SIDE_PX))
    stream = io.BytesIO()
    image.save(stream, "WEBP", quality=_QUALITY)
    return stream.getvalue()
