"""Hits of the last search as spans, without those whose file is gone or has changed since it was indexed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from impart.errors import QueryError
from impart.video.export.source.changes import change_of
from impart.video.export.spans import ExportSpan, SpanFailure
from impart.video.index.store import Store
from impart.video.search.last_search import load_last_search

__all__ = ["spans_of_last_search"]


def spans_of_last_search(folder: Path, numbers: Sequence[int] = ()) -> tuple[list[ExportSpan], list[SpanFailure]]:
    """Read the hits of the last search.

    Args:
        folder: of the index.
        numbers: as printed; none = all.

    Returns:
        Spans in the order of the numbers, and hits whose file is gone or has changed.

    Raises:
        QueryError: nothing was searched yet, nothing was found, or there is no hit of a number; names the remedy.
        VideoIndexError: there is no index.
    """
    search = load_last_search(folder)
    hits = search.take(numbers)
    if not hits:
        raise QueryError(f"the last search ({search.query!r}) found nothing: search again, then export")
    records = {record.path: record for record in Store(folder).videos()}
    reasons = {path: change_of(path, records.get(path)) for path in {hit.path for hit in hits}}
    spans: list[ExportSpan] = []
    failures: list[SpanFailure] = []
    for hit in hits:
        span = ExportSpan(
            path=hit.path,
            start_s=hit.start_s,
            end_s=hit.end_s,
            label=hit.label,
            number=hit.number,
            score=hit.score,
            shown_s=hit.best_s,
            kind=hit.kind,
        )
        reason = reasons[hit.path]
        if reason is None:
            spans.append(span)
        else:
            failures.append(SpanFailure(span=span, reason=reason))
    return spans, failures
