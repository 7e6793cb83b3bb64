"""Uploaded images: their size, and their dimensions before anything is decoded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from PIL.Image import DecompressionBombError
from starlette.datastructures import UploadFile

from impart.errors import DataError
from impart.images import read_header
from impart.serve.problems import Problem

if TYPE_CHECKING:
    from impart.serve.settings import ServeSettings

__all__ = ["check_image", "read_upload", "read_uploads"]

_MEGABYTE: Final = 1 << 20
_FORMATS: Final = "JPEG, PNG, WebP, GIF, BMP, TIFF, HEIC or AVIF"
_KNOWN: Final = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|RIFF....WEBP|GIF8[79]a|BM|II\*\0|MM\0\*|....ftyp(?:hei[cfmsx]|hev[cx]|m[is]f1|avi[fs])",
    re.DOTALL,
)
"""First bytes of the formats. Pillow reads many more, and some of them through other programs, such as EPS."""


async def read_upload(upload: UploadFile, settings: ServeSettings) -> bytes:
    """Read an uploaded image, checked as `check_image` does.

    Raises:
        Problem: 413, it has too many bytes or pixels; 415, it is no image.
    """
    data = await upload.read(settings.upload_mb * _MEGABYTE + 1)
    check_image(data, settings)
    return data


async def read_uploads(uploads: Sequence[UploadFile], settings: ServeSettings) -> list[bytes]:
    """Read uploaded images.

    Raises:
        Problem: 413, there are too many, or one has too many bytes or pixels; 415, one is no image.
    """
    if len(uploads) > settings.upload_images:
        detail = f"{len(uploads)} images were sent: at most {settings.upload_images} are taken at once"
        raise Problem(413, "too_many_images", detail)
    return [await read_upload(upload, settings) for upload in uploads]


def check_image(data: bytes, settings: ServeSettings) -> None:
    """Check an image by its first bytes and its header; no pixel is decoded.

    Raises:
        Problem: 413, it has too many bytes or pixels; 415, it is no image.
    """
    if len(data) > settings.upload_mb * _MEGABYTE:
        raise Problem(413, "too_large", f"the image is over the limit of {settings.upload_mb} MiB")
    limit = f"at most {settings.upload_megapixels:g} megapixels are taken"
    if not _KNOWN.match(data):
        raise Problem(415, "not_an_image", f"the file is not an image of a format that is taken: {_FORMATS}")
    try:
        header = read_header(data)
    except DataError as error:
        if isinstance(error.__cause__, DecompressionBombError):
            raise Problem(413, "too_many_pixels", f"the image has too many pixels: {limit}") from error
        raise Problem(415, "not_an_image", f"the file cannot be read as an image: {error}") from error
    if header.width * header.height > settings.upload_megapixels * 1e6:
        raise Problem(413, "too_many_pixels", f"the image has {header.width} x {header.height} px: {limit}")
