"""Process of an export job: `python -m impart.serve.jobs.children.export`."""

from __future__ import annotations

import mimetypes
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from impart.errors import DataError
from impart.files import atomic_path
from impart.serve.jobs.children.control import Control, serve_request
from impart.serve.jobs.requests import file_suffix
from impart.video.export.file_names import safe_stem
from impart.video.export.source.changes import change_of
from impart.video.export.spans import ExportSpan, parse_handles
from impart.video.export.timelines import Written

__all__ = ["main"]

_TYPES = {
    ".edl": "text/plain", ".fcpxml": "application/xml", ".xml": "application/xml", ".otio": "application/json",
    ".csv": "text/csv", ".ffmetadata": "text/plain", ".zip": "application/zip",
}  # fmt: skip


@dataclass(frozen=True)
class _File:
    """A file as it was indexed."""

    size_bytes: int
    mtime_ns: int
    content_hash: str


def main() -> None:
    """Serve one request."""
    serve_request(_export)


def _export(request: dict[str, Any], control: Control) -> None:
    form, folder = request["form"], Path(request["folder"])
    spans = _spans(request["spans"], control, photos=form == "sheet")
    stem = safe_stem(request["title"]) if request["title"] else "export"
    done = 0

    def on_span(*_: object) -> None:
        nonlocal done
        done += 1
        control.send({"type": "span", "done": done})
        control.checkpoint()

    written = _write(form, spans, folder / f"{stem}{file_suffix(form)}", request, on_span)
    for failure in written.failures:
        _skip(control, failure.span.number, failure.reason)
    files = list(written.files)
    file = files[0] if len(files) == 1 else _zipped(files, folder / f"{stem}.zip")
    control.send(
        {
            "type": "written",
            "name": file.name,
            "size_bytes": file.stat().st_size,
            "media_type": _TYPES.get(file.suffix) or mimetypes.guess_type(file.name)[0] or "application/octet-stream",
            "files": len(files),
            "spans": written.spans,
            "notes": [_text(note) for note in written.notes],
        }
    )
    control.send({"type": "finished"})


def _spans(given: Sequence[dict[str, Any]], control: Control, *, photos: bool) -> list[ExportSpan]:
    """Make the spans whose files are as they were indexed; report the others.

    Raises:
        DataError: none is left.
    """
    changes: dict[Path, str | None] = {}
    spans, last = [], "there are no spans"
    for one in given:
        file, reason = one["file"], None
        if file is None:
            reason = "the video is no longer in the index: search again"
        else:
            path = Path(file["path"])
            if path not in changes:
                changes[path] = change_of(path, _File(file["size_bytes"], file["mtime_ns"], file["content_hash"]))
            reason = changes[path]
            if reason is None and file["kind"] == "photo" and not photos:
                reason = "it is a photo: only sheets show photos"
            elif reason is None and file["kind"] == "video" and one["end_s"] <= one["start_s"]:
                reason = f"the end {one['end_s']:g} s is not after the start {one['start_s']:g} s"
        if reason is not None:
            last = reason
            _skip(control, one["number"], reason)
            continue
        names = ("number", "start_s", "end_s", "label")
        spans.append(ExportSpan(path=path, kind=file["kind"], **{name: one[name] for name in names}))
    if not spans:
        raise DataError(f"nothing to export: {last}")
    return spans


def _write(
    form: str, spans: Sequence[ExportSpan], file: Path, request: dict[str, Any], on_span: Callable[..., None]
) -> Written:
    handles = parse_handles(request["handles"])
    if form == "clips":
        from impart.video.export.clips import write_clips

        return write_clips(spans, file.parent, handles=handles, on_clip=on_span)
    if form == "reel":
        from impart.video.export.reel import write_reel

        return write_reel(spans, file, handles=handles, on_span=on_span)
    if form == "sheet":
        from impart.video.export.sheet import write_sheet

        return write_sheet(spans, file, title=request["title"])
    from impart.video.export.timelines import write_timeline

    return write_timeline(spans, file, form, handles=handles)  # type: ignore[arg-type]


def _zipped(files: Sequence[Path], target: Path) -> Path:
    """Move files into an archive, without compression: media do not get smaller."""
    with atomic_path(target) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
        for file in files:
            archive.write(file, file.name)
            file.unlink()
    return target


def _skip(control: Control, number: int, reason: str) -> None:
    control.send({"type": "skipped", "number": number, "reason": _text(reason)})


def _text(reason: str) -> str:
    """Make a reason, which may name a file, a text that JSON can carry."""
    return reason.encode("utf-8", "backslashreplace").decode("utf-8")


if __name__ == "__main__":
    main()
