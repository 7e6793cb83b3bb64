"""Pages of long lists: `limit`, and opaque cursors.

A cursor carries the key of the last entry that was returned, so that a list that grows or shrinks meanwhile neither
repeats an entry nor leaves one out. It fits the request that made it alone: other filters are refused.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Annotated, Any

from fastapi import Query

from impart.files import blake2b_hex
from impart.serve.problems import Problem

__all__ = ["CursorParam", "LimitParam", "make_cursor", "read_cursor"]

LimitParam = Annotated[int, Query(ge=1, le=100, description="Most entries of this page.")]
CursorParam = Annotated[str | None, Query(max_length=4096, description="`next_cursor` of the page before.")]


def make_cursor(request: object, *key: str | float) -> str:
    """Make the cursor of the entries behind a key.

    Args:
        request: what was asked for; its `repr` must be the same for the next page.
        key: of the last entry of this page.

    >>> read_cursor(make_cursor("all", "b.mp4", 3), "all", (str, int))
    ['b.mp4', 3]
    """
    content = json.dumps([_digest(request), *key], ensure_ascii=False, separators=(",", ":"))
    return base64.urlsafe_b64encode(content.encode("utf-8", "surrogatepass")).decode().rstrip("=")


def read_cursor(cursor: str, request: object, kinds: tuple[type, ...]) -> list[Any]:
    """Read the key of a cursor.

    Args:
        request: what is asked for now.
        kinds: types of the key's parts.

    Raises:
        Problem: 400, it is no cursor, or that of another request.
    """
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        content = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True).decode("utf-8", "surrogatepass"))
        digest: object
        key: list[Any]
        digest, *key = content
        if len(key) != len(kinds) or not all(_fits(part, kind) for part, kind in zip(key, kinds, strict=True)):
            raise ValueError("another key")
    except (binascii.Error, ValueError, TypeError, RecursionError) as error:
        raise Problem(400, "bad_cursor", "the cursor is none of this server: give `next_cursor` as it was") from error
    if digest != _digest(request):
        raise Problem(
            400, "bad_cursor", "the cursor belongs to another request: repeat that request, or begin without a cursor"
        )
    return key


def _fits(part: object, kind: type) -> bool:
    return isinstance(part, (int, float) if kind is float else kind) and not isinstance(part, bool)


def _digest(request: object) -> str:
    return blake2b_hex(repr(request), size_bytes=6)
