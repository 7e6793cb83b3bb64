"""Small images as WebP, for the page."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from PIL import Image

from impart.errors import DataError
from impart.images import DRAFT_SIDES, load_image
from impart.serve.problems import Problem

__all__ = ["WEBP", "webp_file", "webp_image"]

WEBP: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/webp": {}}},
    304: {"description": "The client has this image."},
}
"""Answers of routes that return a small image, for the OpenAPI document."""
_SIDE_PX = 256
_QUALITY = 80


def webp_file(request: Request, file: Path, *, tag: str) -> Response:
    """Answer with a small copy of an image file whose content never changes under its address.

    Args:
        tag: digest of the content.

    Raises:
        Problem: 404, the file cannot be read.
    """
    if request.headers.get("if-none-match") == f'"{tag}"':
        return Response(status_code=304, headers=_headers(tag))
    try:
        image = load_image(file, draft_px=DRAFT_SIDES * _SIDE_PX)[0]
    except DataError as error:
        raise Problem(404, "no_image", f"the image cannot be read any more: {error}") from error
    return webp_image(request, image, tag=tag)


def webp_image(request: Request, image: Image.Image, *, tag: str) -> Response:
    """Answer with a small copy of an image.

    Args:
        tag: digest of its content.
    """
    if request.headers.get("if-none-match") == f'"{tag}"':
        return Response(status_code=304, headers=_headers(tag))
    small = image.copy()
    small.thumbnail((_SIDE_PX, _SIDE_PX))
    stream = io.BytesIO()
    small.save(stream, "WEBP", quality=_QUALITY)
    return Response(stream.getvalue(), media_type="image/webp", headers=_headers(tag))


def _headers(tag: str) -> dict[str, str]:
    return {"ETag": f'"{tag}"', "Cache-Control": "private, max-age=3600"}
