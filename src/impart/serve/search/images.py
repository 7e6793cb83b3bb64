"""Query images: uploaded images on disk, so that further pages and a reload find them again.

A search reads the bytes that were uploaded, so that it has the scores of a search with the file itself; the page shows
a small WebP copy.
"""

from __future__ import annotations

import io
import os
import re
import threading
from contextlib import suppress
from pathlib import Path

from PIL import Image

from impart.errors import DataError
from impart.files import sha256_hex, write_atomic
from impart.images import load_image
from impart.serve.problems import Problem

__all__ = ["QueryImages"]

_SIDE_PX = 768
_QUALITY = 85
_ID = re.compile("[0-9a-f]{32}")
_MEGABYTE = 1 << 20


class QueryImages:
    """Uploaded images in a folder; those used last are kept.

    Args:
        folder: made at the first image.
        most_mb: of all files together.
        megapixels: of the largest image.
    """

    def __init__(self, folder: Path, *, most_mb: float = 256, megapixels: float) -> None:
        self._folder = folder
        self._most = most_mb * _MEGABYTE
        self._megapixels = megapixels
        self._lock = threading.Lock()

    def add(self, data: bytes) -> str:
        """Keep an image that `impart.serve.safety.uploads.check_image` has passed, and return its id.

        Raises:
            Problem: 415, it is damaged.
        """
        try:
            image, _ = load_image(data, max_megapixels=self._megapixels, draft_px=2 * _SIDE_PX)
        except DataError as error:
            raise Problem(415, "not_an_image", f"the file cannot be read as an image: {error}") from error
        image_id = sha256_hex(data)[:32]
        with self._lock:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_atomic(self._folder / f"{image_id}.webp", _webp(image))
            write_atomic(self._folder / image_id, data)
            self._shrink()
        return image_id

    def file(self, image_id: str) -> Path:
        """Return the file of an image, as it was uploaded.

        Raises:
            Problem: 404, it is not kept, or no longer.
        """
        return self._known(image_id)

    def shown(self, image_id: str) -> Path:
        """Return the small WebP copy of an image.

        Raises:
            Problem: 404, it is not kept, or no longer.
        """
        return self._known(image_id).with_suffix(".webp")

    def _known(self, image_id: str) -> Path:
        path = self._folder / image_id
        if _ID.fullmatch(image_id):
            with suppress(OSError):
                os.utime(path)  # used now
                return path
        raise Problem(404, "image_not_found", "the query image is not kept any more: upload it again")

    def _shrink(self) -> None:
        """Delete the images that were not used for longest, until the others fit."""
        images = [path for path in self._folder.iterdir() if _ID.fullmatch(path.name)]
        kept = sorted(((path.stat().st_mtime_ns, path.stat().st_size, path) for path in images), reverse=True)
        total = 0
        for number, (_, size, path) in enumerate(kept):
            total += size
            if number and total > self._most:
                path.unlink(missing_ok=True)
                path.with_suffix(".webp").unlink(missing_ok=True)


def _webp(image: Image.Image) -> bytes:
    image.thumbnail((_SIDE_PX, _SIDE_PX))
    stream = io.BytesIO()
    image.save(stream, "WEBP", quality=_QUALITY)
    return stream.getvalue()
