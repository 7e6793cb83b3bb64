"""Conditional and range requests of HTTP (RFC 9110, sections 13 and 14), as pure functions of header texts.

Only GET has ranges; a HEAD answers as the whole file. A `Range` that is malformed, in another unit, or of several
ranges that do not join into one, is ignored, as the standard allows: the whole file is the answer. A list with many
ranges is not even parsed, so it costs what a plain request costs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from typing import Literal

__all__ = ["ByteSpan", "Decision", "decide", "http_date"]

MOST_RANGES = 16
MOST_DIGITS = 18  # of a position: enough for an exabyte
_TAG = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
_SPEC = re.compile(r"([0-9]*)[ \t]*-[ \t]*([0-9]*)")


@dataclass(frozen=True)
class ByteSpan:
    """Bytes `first` to `last` of a file, both included."""

    first: int
    last: int

    @property
    def length(self) -> int:
        """Number of bytes."""
        return self.last - self.first + 1


@dataclass(frozen=True)
class Decision:
    """The status to answer with, and the bytes of a 206."""

    status: Literal[200, 206, 304, 412, 416]
    span: ByteSpan | None = None


def http_date(time_s: float) -> str:
    """Format a Unix time as a date of HTTP.

    >>> http_date(0)
    'Thu, 01 Jan 1970 00:00:00 GMT'
    """
    return format_datetime(datetime.fromtimestamp(int(time_s), UTC), usegmt=True)


def decide(method: str, headers: Mapping[str, str], *, etag: str, modified_s: float, size: int) -> Decision:
    """Decide how to answer a request for a file.

    Args:
        headers: of the request, by names in lower case.
        etag: strong tag of the present content, with its quotes.
        modified_s: Unix time of the last change.
        size: of the file in bytes.

    Returns:
        The status; with 206 also the bytes.

    Example:
        >>> decide("GET", {"range": "bytes=-2"}, etag='"a"', modified_s=0, size=10)
        Decision(status=206, span=ByteSpan(first=8, last=9))
    """
    if not _still_matches(headers, etag=etag, modified_s=modified_s):
        return Decision(412)
    if _is_known(headers, etag=etag, modified_s=modified_s):
        return Decision(304)
    wanted = headers.get("range")
    if method != "GET" or wanted is None or not _may_continue(headers, etag=etag, modified_s=modified_s):
        return Decision(200)
    spans = _parsed(wanted, size=size)
    if spans is None:
        return Decision(200)
    if not spans:
        return Decision(416)
    joined = _joined(spans)
    return Decision(206, joined[0]) if len(joined) == 1 else Decision(200)


def _still_matches(headers: Mapping[str, str], *, etag: str, modified_s: float) -> bool:
    """Test `If-Match` (strong comparison) or, without it, `If-Unmodified-Since`."""
    tags = headers.get("if-match")
    if tags is not None:
        return tags.strip() == "*" or any(not weak and tag == etag for weak, tag in _tags(tags))
    since_s = _seconds(headers.get("if-unmodified-since"))
    return since_s is None or int(modified_s) <= since_s


def _is_known(headers: Mapping[str, str], *, etag: str, modified_s: float) -> bool:
    """Test `If-None-Match` (weak comparison) or, without it, `If-Modified-Since`."""
    tags = headers.get("if-none-match")
    if tags is not None:
        return tags.strip() == "*" or any(tag == etag for _, tag in _tags(tags))
    since_s = _seconds(headers.get("if-modified-since"))
    return since_s is not None and int(modified_s) <= since_s


def _may_continue(headers: Mapping[str, str], *, etag: str, modified_s: float) -> bool:
    """Test `If-Range`: a strong tag, or the exact date of the last change."""
    value = headers.get("if-range")
    if value is None:
        return True
    tags = _tags(value)
    if tags:
        return tags == [(False, etag)]
    return _seconds(value) == int(modified_s)


def _tags(text: str) -> list[tuple[bool, str]]:
    """List the entity tags of a header: whether each is weak, and the tag with its quotes."""
    return [(bool(found[1]), f'"{found[2]}"') for found in _TAG.finditer(text)]


def _seconds(text: str | None) -> int | None:
    """Read a date of HTTP as Unix time; None where there is none, or it is malformed and therefore ignored."""
    if text is None:
        return None
    try:
        return int(parsedate_to_datetime(text).timestamp())
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _parsed(text: str, *, size: int) -> list[ByteSpan] | None:
    """Parse a `Range`: the satisfiable spans in the order asked for; None where it is to be ignored."""
    unit, equals, rest = text.partition("=")
    if not equals or unit.strip().lower() != "bytes" or rest.count(",") >= MOST_RANGES:
        return None
    spans = []
    for part in rest.split(","):
        if not part.strip():
            continue
        found = _SPEC.fullmatch(part.strip())
        if found is None or found[0].strip() == "-" or max(len(found[1]), len(found[2])) > MOST_DIGITS:
            return None
        first, last = found[1], found[2]
        if not first:
            length = min(int(last), size)
            if length:
                spans.append(ByteSpan(size - length, size - 1))
            continue
        if last and int(last) < int(first):
            return None
        if int(first) < size:
            spans.append(ByteSpan(int(first), min(int(last), size - 1) if last else size - 1))
    return spans if spans or rest.strip(" \t,") else None


def _joined(spans: list[ByteSpan]) -> list[ByteSpan]:
    """Join spans that overlap or follow each other, in order of position."""
    ordered = sorted(spans, key=lambda span: span.first)
    joined = ordered[:1]
    for span in ordered[1:]:
        if span.first <= joined[-1].last + 1:
            joined[-1] = ByteSpan(joined[-1].first, max(joined[-1].last, span.last))
        else:
            joined.append(span)
    return joined
