"""Find the captions in a value as data sets store them: a text, a list, an object, a JSON list, lines of a file."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from typing import Any

from impart.errors import DataError

__all__ = ["CAPTION_KEYS", "captions_of", "lines_of", "parsed_json"]

CAPTION_KEYS = ("captions", "caption", "sentences", "sentence", "text", "texts", "raw", "title", "alt", "description")
"""Usual names of a column of captions, or of a field of a json object, the most likely first."""


def captions_of(value: Any) -> tuple[str, ...]:
    """Return the captions of a value, each on one line, without empty ones.

    A list has a caption per entry, also where it is written as a text (`["a dog", "a cat"]`). Of an object, the first
    field of `CAPTION_KEYS` counts.

    >>> captions_of(["a  dog", None, {"raw": "a cat"}]), captions_of('["a dog", "a cat"]'), captions_of("[sic] a dog")
    (('a dog', 'a cat'), ('a dog', 'a cat'), ('[sic] a dog',))
    """
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    if isinstance(value, str):
        listed = _written_list(value)
        return captions_of(listed) if listed is not None else tuple(filter(None, [" ".join(value.split())]))
    if isinstance(value, Mapping):
        key = next((key for key in CAPTION_KEYS if value.get(key)), None)
        return captions_of(value[key]) if key else ()
    if isinstance(value, list | tuple):
        return tuple(caption for one in value for caption in captions_of(one))
    if value is None or value != value:  # a missing value of pandas is NaN
        return ()
    return (str(int(value) if isinstance(value, bool) else value),)


def lines_of(data: bytes, *, name: str = "") -> tuple[str, ...]:
    """Return the captions of a text file: one per line.

    Args:
        data: content of the file.
        name: of the file, for messages.

    Raises:
        DataError: it is not UTF-8.

    >>> lines_of(b"a dog\\n\\na  cat\\n")
    ('a dog', 'a cat')
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{name} is not UTF-8 text: save it as UTF-8") from error
    return tuple(line for line in (" ".join(line.split()) for line in text.splitlines()) if line)


def parsed_json(data: bytes, *, name: str) -> Any:
    """Parse the json of a sample.

    Raises:
        DataError: it is not json.
    """
    try:
        return json.loads(data)
    except ValueError as error:
        raise DataError(f"{name} is not json ({error})") from error


def _written_list(text: str) -> list[Any] | None:
    """Parse a list that is written as a text, in JSON or as Python prints it; None = the text is no list."""
    text = text.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return None
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(value, list) and all(isinstance(one, str | Mapping) for one in value):
            return value
    return None
