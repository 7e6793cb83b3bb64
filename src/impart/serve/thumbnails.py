"""Small images as WebP, for the page."""

from __future__ import annotations

import io
from pathlib import Path

from fastapi import Request
from fastapi.responses import Response
from PIL import Image

from impart.errors import DataError
from impart.images import DRAFT_SIDES, load_image
from impart.serve.problems import Problem

__all__ = ["as_webp", "webp_answer"]

_SIDE_PX = 256
_QUALITY = 80


def webp_answer(request: Request, file: Path, *, tag: str) -> Response:
    """Answer with a small copy of an image file whose content never changes under its address.

    Args:
        tag: digest of the content.

    Raises:
        Problem: 404, the file cannot be read.
    """
    headers = {"ETag": f'"{tag}"', "Cache-Control": "private, max-age=86400, immutable"}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    try:
        image = load_image(file, draft_px=DRAFT_SIDES * _SIDE_PX)[0]
    except DataError as error:
        raise Problem(404, "image_gone", f"the image cannot be read any more: {error}") from error
    return Response(as_webp(image), media_type="image/webp", headers=headers)


def as_webp(image: Image.Image, *, side_px: int = _SIDE_PX) -> bytes:
    """Encode an image as WebP, reduced to fit a square."""
    small = image.copy()
    small.thumbnail((side_px, side_px))
    stream = io.BytesIO()
    small.save(stream, "WEBP", quality=_QUALITY)
    return stream.getvalue()
