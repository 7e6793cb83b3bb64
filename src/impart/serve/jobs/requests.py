"""Requests: indexing folders, and exporting spans."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from impart.video.export.timelines import SUFFIXES

__all__ = ["EXPORT_FORMS", "MEDIA_FORMS", "ExportForm", "ExportRequest", "IndexRequest", "SpanRequest", "file_suffix"]

ExportForm: TypeAlias = Literal["clips", "reel", "sheet", "edl", "fcp7", "fcpxml", "otio", "csv", "resolve", "chapters"]
EXPORT_FORMS: tuple[str, ...] = get_args(ExportForm)
MEDIA_FORMS = ("clips", "reel")
"""Forms whose cost grows with the length of the spans."""


@dataclass(frozen=True, kw_only=True)
class IndexRequest:
    """A request to index folders.

    Attributes:
        paths: folders, checked and with their links followed; empty = all roots.
        retry_failed: try files again that failed, or were read in part, before.
        prune: remove videos whose files are gone.
    """

    paths: tuple[Path, ...] = ()
    retry_failed: bool = False
    prune: bool = False


@dataclass(frozen=True, kw_only=True)
class SpanRequest:
    """A span to export: a video of the index, seconds from its start, and a text for editors and sheets."""

    video_id: str
    start_s: float
    end_s: float
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """A request to export spans, in their order.

    Attributes:
        form: as of `impart export --to`.
        handles: material on both sides of clips, reels and timelines: `12f` are frames, `0.5s` seconds.
        title: of the sheet or timeline, and name of the file; "" = a usual name.
    """

    form: ExportForm
    spans: tuple[SpanRequest, ...]
    handles: str = "0f"
    title: str = ""


def file_suffix(form: ExportForm) -> str:
    """Return the suffix of one file of a form.

    >>> file_suffix("fcp7"), file_suffix("clips")
    ('.xml', '.mp4')
    """
    return {"clips": ".mp4", "reel": ".mp4", "sheet": ".png"}.get(form) or SUFFIXES[form]
