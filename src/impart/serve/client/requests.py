"""Requests of a client: queries, filters and images of the library as JSON and files."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from impart.encoders.base import ImageInput
from impart.errors import DataError, QueryError
from impart.images import load_image
from impart.video.search.dates import length_s
from impart.video.search.query import WITHIN_S, Query

__all__ = ["image_file", "search_request"]

_FIELDS = {
    "group": "group",
    "by": "by",
    "kind": "kind",
    "min_score": "min_score",
    "names": "names",
    "why": "why",
}
"""Keywords of the library that the API has as they are."""
_DEFAULTS: dict[str, Any] = {
    "augment": True,
    "path_glob": None,
    "exact": False,
    "fold_copies": True,
    "spans": True,
    "offset": 0,
}
"""Keywords that the API does not have, with the only value that it fits."""


def search_request(query: Query | None, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Make the JSON of a search, without its image and its limit.

    Args:
        query: None = none, as for `similar`.
        keywords: see `SearchKeywords`; None = the setting.

    Raises:
        QueryError: the API has no such query or keyword.

    >>> search_request(Query(text="a cat", not_text=["a dog"]), {"min_length": "1m", "top": 3})
    {'text': 'a cat', 'not_text': ['a dog'], 'min_length_s': 60.0}
    """
    request: dict[str, Any] = {} if query is None else _of_query(query)
    for name, value in keywords.items():
        if name in _DEFAULTS:
            if value is not None and value != _DEFAULTS[name]:
                raise QueryError(f"a server takes no {name}: leave it out, or search the index itself with VideoIndex")
        elif value is None or name == "top":
            continue
        elif name in _FIELDS:
            request[_FIELDS[name]] = value
        elif name == "folder":
            request["folder"] = os.fspath(value)
        elif name in ("since", "until"):
            request[name] = _date(value)
        elif name in ("min_length", "max_length"):
            request[f"{name}_s"] = length_s(value)
        else:
            raise QueryError(f"there is no keyword {name!r}")
    return request


def image_file(image: str | os.PathLike[str] | ImageInput) -> tuple[str, bytes]:
    """Return the name and the content of an image to upload: a file as it is, an image in memory as PNG.

    Raises:
        DataError: the file cannot be read.
    """
    if isinstance(image, str | os.PathLike):
        path = Path(image).expanduser()
        try:
            return path.name, path.read_bytes()
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    pixels: Image.Image | npt.NDArray[np.uint8] = image
    stream = io.BytesIO()
    load_image(pixels)[0].save(stream, "PNG")
    return "image.png", stream.getvalue()


def _of_query(query: Query) -> dict[str, Any]:
    then = query.then
    if query.terms or query.also is not None or query.keep != "all":
        raise QueryError("a server takes a text, an image, not_text and then: no terms, `also` or `keep`")
    if then is not None and then != Query(text=then.text, within_s=then.within_s):
        raise QueryError("a server takes one text as `then`")
    request: dict[str, Any] = {"text": query.text} if query.text is not None else {}
    if query.not_text:
        request["not_text"] = list(query.not_text)
    if then is not None:
        request["then"] = then.text
        if query.within_s != WITHIN_S:
            request["within_s"] = query.within_s
    return request


def _date(date: str | float | datetime) -> str:
    """Write a date as a text; a Unix time and a datetime are on the clock of this machine."""
    if isinstance(date, str):
        return date
    moment = date if isinstance(date, datetime) else datetime.fromtimestamp(date)
    return moment.astimezone().isoformat()
