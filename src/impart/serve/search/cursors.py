"""Cursors: where the next page of a search begins, as an opaque text that belongs to one search."""

from __future__ import annotations

import base64
import binascii
import struct

from impart.files import blake2b_hex
from impart.serve.problems import Problem

__all__ = ["MOST_HITS", "read_cursor", "write_cursor"]

MOST_HITS = 100_000
"""Hits of one search that can be paged through."""

_FORM = struct.Struct(">I8s")  # hits before the page, digest of the search


def write_cursor(key: str, offset: int) -> str:
    """Write the cursor of a page.

    Args:
        key: names the search: its query and options.
        offset: hits before the page.

    >>> read_cursor("a dog", write_cursor("a dog", 24))
    24
    """
    return base64.urlsafe_b64encode(_FORM.pack(offset, _digest(key))).decode("ascii")


def read_cursor(key: str, cursor: str | None) -> int:
    """Read how many hits are before the page; 0 without a cursor.

    Raises:
        Problem: 400 `bad_cursor`, it is none, or belongs to another search.
    """
    if cursor is None:
        return 0
    try:
        offset, digest = _FORM.unpack(base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True))
    except (binascii.Error, struct.error, UnicodeEncodeError):
        offset, digest = MOST_HITS + 1, b""
    if offset > MOST_HITS:
        raise Problem(400, "bad_cursor", "the cursor cannot be read: pass next_cursor of the page before, unchanged")
    if digest != _digest(key):
        raise Problem(400, "bad_cursor", "the cursor belongs to another search: repeat the same search with it")
    return int(offset)


def _digest(key: str) -> bytes:
    return bytes.fromhex(blake2b_hex(key.encode("utf-8", "backslashreplace"), size_bytes=8))
