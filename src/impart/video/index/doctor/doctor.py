"""`impart doctor --repair` as events: repair the files, index again what is lost, and check the result."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from impart.encoders.base import Encoder
from impart.errors import ImpartError
from impart.video.index.doctor.check import check_index
from impart.video.index.doctor.repair import ASIDE, Restored, repair_files
from impart.video.index.doctor.report import CheckReport
from impart.video.index.index import VideoIndex
from impart.video.integrity import ROWS_MISSING

if TYPE_CHECKING:
    from impart.video.index.events import Event

__all__ = ["FilesRestored", "Repaired", "repair_index"]


@dataclass(frozen=True, kw_only=True)
class FilesRestored:
    """The files are in order; what is lost is indexed next."""

    restored: Restored


@dataclass(frozen=True, kw_only=True)
class Repaired:
    """Result of a repair.

    Attributes:
        restored: what was done about the files.
        after: a further check.
        left: what a person has to do, one line each; nothing = all is as it was before the damage.
        aside: folder with the damaged files; None = it was deleted, since all is whole.
    """

    restored: Restored
    after: CheckReport
    left: tuple[str, ...]
    aside: Path | None


def repair_index(
    folder: Path, encoder: Encoder | None = None, *, index: bool = True
) -> Generator[Event | FilesRestored, None, Repaired]:
    """Repair an index. It may be stopped at any moment; the same call, or `VideoIndex.add`, continues.

    Args:
        folder: of the index.
        encoder: of the index; None loads it.
        index: whether the videos that are lost are indexed again at once, where their files are there.

    Yields:
        `FilesRestored`, and the events of the run that indexes.

    Returns:
        What was done, and what is left.

    Raises:
        IndexLockedError: another process is writing to the index.
        VideoIndexError: there is no index, both of its manifests are lost, or it cannot be written.
    """
    restored = repair_files(folder)
    left = list(restored.left)
    yield FilesRestored(restored=restored)
    if restored.rows:
        try:
            opened = VideoIndex.open(folder, encoder, create=False)
            there = [path for path in restored.wanted if path.is_file()]
            yield from opened.add(there if index else [])
            left += _not_indexed(opened, restored, folder)
        except ImpartError as error:
            left.append(f"the rows cannot be made complete: {error}. Then run impart doctor --repair again")
    after = check_index(folder)
    aside: Path | None = folder / ASIDE
    if after.whole and not left:
        shutil.rmtree(folder / ASIDE, ignore_errors=True)
    if aside is not None and not aside.is_dir():
        aside = None
    return Repaired(restored=restored, after=after, left=tuple(left), aside=aside)


def _not_indexed(opened: VideoIndex, restored: Restored, folder: Path) -> list[str]:
    """Name the videos that are still not in the index."""
    known = {video.path for video in opened.videos()}
    lost = {path for path in restored.wanted if path not in known}
    lost |= {failure.path for failure in opened.failures() if failure.reason == ROWS_MISSING}
    return [
        f"{path} is not indexed again ({'its file is missing' if not path.exists() else 'see above'}): "
        f"impart index PATH... --index {folder}"
        for path in sorted(lost)
    ]
