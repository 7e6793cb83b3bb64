"""What the readers of video data sets share: finding files in a folder, and putting sets together.

Published video sets lose files over the years, so a missing video is left out and counted, and only a folder without
any of them is an error.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from impart.errors import DataError
from impart.evaluate.datasets.reader import Published
from impart.evaluate.datasets.types import MomentSet, VideoSet

__all__ = ["CaptionRow", "MomentRow", "Spans", "VideoFolder", "chosen_split", "moment_set", "video_set"]

_SUFFIXES = "3g2 3gp avi flv gif m4v mkv mov mp4 mpeg mpg mts ogv ts webm wmv"
_VIDEO_SUFFIXES = frozenset(f".{name}" for name in _SUFFIXES.split())
_NAMED = 3  # missing videos that a note names


class CaptionRow(NamedTuple):
    """A caption of a video, both as the annotation file has them."""

    video: str
    caption: str
    span: tuple[float, float] | None = None


class MomentRow(NamedTuple):
    """A sentence and the moments of a video that it describes; `duration_s` is NaN where nobody says."""

    video: str
    query: str
    query_id: str
    spans: tuple[tuple[float, float], ...]
    duration_s: float
    saliency: npt.NDArray[np.float64] | None = None


class VideoFolder:
    """A folder of videos and annotation files, in whatever sub-folders, walked once.

    Args:
        path: the folder, or an annotation file in it.
        published: what the set consists of, for messages.

    Raises:
        DataError: there is no such folder.
    """

    def __init__(self, path: Path, published: Published) -> None:
        self.root = path.parent if path.is_file() else path
        self.published = published
        if not self.root.is_dir():
            raise published.missing(f"{self.root} is not a folder")
        self._by_name: dict[str, Path] = {}
        self._by_stem: dict[str, Path] = {}
        for file in _walk(self.root):
            self._by_name.setdefault(file.name, file)
            if file.suffix.lower() in _VIDEO_SUFFIXES:
                self._by_stem.setdefault(file.stem, file)

    def annotation(self, name: str) -> Path:
        """The annotation file of this name, the one nearest to the folder itself.

        Raises:
            DataError: there is none; the message says what the set wants and where it is published.
        """
        found = self.optional(name)
        if found is None:
            raise self.published.missing(f"{self.root} has no {name}")
        return found

    def optional(self, name: str) -> Path | None:
        """The annotation file of this name, or None."""
        return self._by_name.get(name)

    def video(self, name: str, *others: str) -> Path | None:
        """The video of this name, with or without a suffix; other names are tried in turn; None = not there."""
        for candidate in (name, *others):
            bare = Path(candidate)
            stem = bare.stem if bare.suffix.lower() in _VIDEO_SUFFIXES else candidate.rstrip(".")
            found = self._by_name.get(bare.name) or self._by_stem.get(bare.name) or self._by_stem.get(Path(stem).name)
            if found is not None:
                return found
        return None

    def no_videos(self, names: Sequence[str]) -> DataError:
        """The error for a folder that has none of the videos that the annotations name."""
        return self.published.missing(
            f"{self.root} has none of the {len(names)} videos that its annotations name (first {names[0]})"
        )


def chosen_split(published: Published, path: Path, asked: str | None, files: Mapping[str, str]) -> str:
    """The split asked for; where an annotation file was named in place of the folder, the split that it is of.

    Args:
        published: the set.
        path: as the person gave it.
        asked: a split, or None.
        files: split -> its annotation file.

    Raises:
        DataError: there is no such split, or the file named is not of it.
    """
    if not path.is_file():
        return published.split(asked)
    there = [split for split in published.splits if files[split] == path.name]
    if asked is not None and published.split(asked) in there:
        return asked
    if asked is not None or not there:
        wanted = files[asked] if asked is not None else " or ".join(dict.fromkeys(files.values()))
        raise published.missing(f"{path}: name the folder, or {wanted}")
    return there[0]


def _walk(root: Path) -> Iterator[Path]:
    """Files below a folder, nearest first, then by name; links are followed, each real folder is seen once."""
    seen: set[Path] = set()
    level = [root]
    while level:
        below: list[Path] = []
        for folder in level:
            real = folder.resolve()
            if real in seen:
                continue
            seen.add(real)
            try:
                entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            except OSError as error:
                raise DataError(f"cannot list {folder}: {error.strerror}") from error
            below += [Path(entry.path) for entry in entries if entry.is_dir()]
            yield from (Path(entry.path) for entry in entries if entry.is_file())
        level = below


@dataclass
class Spans:
    """Puts moments right: start before end, inside the video; counts what it had to do."""

    mended: int = 0
    empty: int = 0

    def mend(self, start_s: float, end_s: float, duration_s: float) -> tuple[float, float] | None:
        """The moment, or None where nothing of it is inside the video.

        >>> Spans().mend(12.0, 3.0, 10.0)
        (3.0, 10.0)
        """
        low, high = max(0.0, min(start_s, end_s)), max(start_s, end_s)
        if duration_s > 0.0:  # False for NaN
            high = min(high, duration_s)
        if not low < high:
            self.empty += 1
            return None
        self.mended += (low, high) != (start_s, end_s)
        return low, high

    def notes(self) -> tuple[str, ...]:
        """What was done."""
        notes = []
        if self.mended:
            notes.append(f"moments put right that ran backwards or past an end of the video: {self.mended}")
        if self.empty:
            notes.append(f"moments left out that have no length inside the video: {self.empty}")
        return tuple(notes)


_Key: TypeAlias = tuple[str, tuple[float, float] | None]  # a video, and the part of it that is meant


def _find_videos(
    folder: VideoFolder, keys: Iterable[_Key], aliases: Mapping[str, str]
) -> tuple[dict[_Key, int], tuple[Path, ...], tuple[str, ...]]:
    """Number of each video (or part of one) that is there, their files, and a note on those that are not."""
    wanted = list(dict.fromkeys(keys))
    if not wanted:
        raise DataError(f"the annotations in {folder.root} name no video: download them again")
    numbers: dict[_Key, int] = {}
    files: list[Path] = []
    missing: dict[str, None] = {}
    for key in wanted:
        name = key[0]
        found = folder.video(name, *([aliases[name]] if name in aliases else []))
        if found is None:
            missing[name] = None
        else:
            numbers[key] = len(files)
            files.append(found)
    if not files:
        raise folder.no_videos(list(missing))
    if not missing:
        return numbers, tuple(files), ()
    some = ", ".join(list(missing)[:_NAMED]) + (", ..." if len(missing) > _NAMED else "")
    total = len({name for name, _ in wanted})
    return numbers, tuple(files), (f"missing videos left out: {len(missing)} of {total} ({some})",)


def video_set(
    name: str,
    folder: VideoFolder,
    rows: Sequence[CaptionRow],
    *,
    notes: Sequence[str] = (),
    aliases: Mapping[str, str] | None = None,
) -> VideoSet:
    """Captions of the videos that are there, in the order of the annotations.

    Args:
        name: what reports call the set.
        folder: where the videos are.
        rows: captions; those that are blank are left out and counted.
        notes: what was left out so far.
        aliases: video -> another name that its file may have.

    Raises:
        DataError: no caption, or none of the videos.
    """
    kept = [row for row in rows if row.caption.strip()]
    blank = (f"blank captions left out: {len(rows) - len(kept)}",) if len(kept) < len(rows) else ()
    numbers, files, missing = _find_videos(folder, ((row.video, row.span) for row in kept), aliases or {})
    kept = [row for row in kept if (row.video, row.span) in numbers]
    spans = tuple(span for _, span in numbers)  # numbers run in this order
    return VideoSet(
        name=name,
        videos=files,
        captions=tuple(" ".join(row.caption.split()) for row in kept),
        owners=np.array([numbers[row.video, row.span] for row in kept], dtype=np.int64),
        spans=spans if any(spans) else None,
        notes=(*notes, *blank, *missing),
    )


def moment_set(
    name: str,
    folder: VideoFolder,
    rows: Sequence[MomentRow],
    *,
    notes: Sequence[str] = (),
    aliases: Mapping[str, str] | None = None,
) -> MomentSet:
    """Sentences with their moments in the videos that are there, in the order of the annotations.

    Args as in `video_set`; sentences that are blank or have no moment left are left out and counted.

    Raises:
        DataError: no sentence, or none of the videos.
    """
    kept = [row for row in rows if row.query.strip() and row.spans]
    without = (f"sentences left out that are blank or without a moment: {len(rows) - len(kept)}",)
    numbers, files, missing = _find_videos(folder, ((row.video, None) for row in kept), aliases or {})
    out = (*notes, *(without if len(kept) < len(rows) else ()), *missing)
    kept = [row for row in kept if (row.video, None) in numbers]
    durations = np.full(len(files), np.nan)
    for row in kept:
        if not np.isnan(row.duration_s):
            durations[numbers[row.video, None]] = row.duration_s
    saliency = tuple(row.saliency for row in kept)
    return MomentSet(
        name=name,
        videos=files,
        queries=tuple(" ".join(row.query.split()) for row in kept),
        query_ids=tuple(row.query_id for row in kept),
        owners=np.array([numbers[row.video, None] for row in kept], dtype=np.int64),
        spans=tuple(row.spans for row in kept),
        durations_s=durations,
        saliency=saliency if any(scores is not None for scores in saliency) else None,
        notes=out,
    )
