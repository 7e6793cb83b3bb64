"""Find the videos and annotation files of a data set, and make sets of them.

Published videos disappear over the years. Missing videos are therefore left out and counted; a set without any video is
an error.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from impart.errors import DataError
from impart.evaluate.datasets.reader import DataSetInfo
from impart.evaluate.datasets.types import MomentSet, VideoSet

__all__ = ["CaptionRow", "MomentRow", "VideoFolder", "moment_set", "open_annotation", "video_set"]

_SUFFIXES = "3g2 3gp avi flv gif m4v mkv mov mp4 mpeg mpg mts ogv ts webm wmv"
_VIDEO_SUFFIXES = frozenset(f".{name}" for name in _SUFFIXES.split())
_NAMED = 3  # missing videos named in a note


class CaptionRow(NamedTuple):
    """A caption of a video, as in the annotation file."""

    video: str
    caption: str
    span: tuple[float, float] | None = None


class MomentRow(NamedTuple):
    """A sentence and the moments of a video that it describes; `duration_s` is NaN if it is unknown."""

    video: str
    query: str
    query_id: str
    spans: tuple[tuple[float, float], ...]
    duration_s: float
    saliency: npt.NDArray[np.float64] | None = None


class VideoFolder:
    """Folder of videos and annotation files, at any depth; its files are listed once.

    Args:
        path: the folder, or an annotation file in it.
        info: the files needed, for messages.

    Raises:
        DataError: the folder does not exist.
    """

    def __init__(self, path: Path, info: DataSetInfo) -> None:
        self.root = path.parent if path.is_file() else path
        self.info = info
        if not self.root.is_dir():
            raise info.missing(f"{self.root} is not a folder")
        self._by_name: dict[str, Path] = {}
        self._by_lower: dict[str, Path] = {}
        self._by_stem: dict[str, Path] = {}
        for file in _walk(self.root):
            self._by_name.setdefault(file.name, file)
            self._by_lower.setdefault(file.name.lower(), file)
            if file.suffix.lower() in _VIDEO_SUFFIXES:
                self._by_stem.setdefault(file.stem, file)

    def annotation(self, *names: str) -> Path:
        """Find the annotation file of the first of these names that exists, with the shortest path.

        Raises:
            DataError: none exists; the message has the files needed and where they are published.
        """
        found = next((file for name in names if (file := self.optional(name)) is not None), None)
        if found is None:
            raise self.info.missing(f"{self.root} has no {' or '.join(names)}")
        return found

    def optional(self, name: str) -> Path | None:
        """Find the annotation file of this name, in this case or another; None if it does not exist."""
        return self._by_name.get(name) or self._by_lower.get(name.lower())

    def video(self, name: str, *others: str) -> Path | None:
        """Find the video of one of these names, with or without a suffix; None if it does not exist."""
        for candidate in (name, *others):
            bare = Path(candidate)
            stem = bare.stem if bare.suffix.lower() in _VIDEO_SUFFIXES else candidate.rstrip(".")
            found = self._by_name.get(bare.name) or self._by_stem.get(bare.name) or self._by_stem.get(Path(stem).name)
            if found is not None:
                return found
        return None

    def no_videos(self, names: Sequence[str]) -> DataError:
        """Make the error for a folder without any of the videos in the annotations."""
        return self.info.missing(
            f"{self.root} has none of the {len(names)} videos that its annotations name (first {names[0]})"
        )


def open_annotation(
    info: DataSetInfo, path: Path, asked: str | None, files: Mapping[str, tuple[str, ...]]
) -> tuple[str, VideoFolder, Path]:
    """Find the annotation file of a split.

    Args:
        info: the data set.
        path: the folder, or an annotation file in it, which selects its split.
        asked: a split; None = the default.
        files: split -> the names of its annotation file, the preferred one first.

    Returns:
        The split, the folder of the videos, and the annotation file.

    Raises:
        DataError: the data set has no such split, `path` is not its annotation file, or there is no such file.
    """
    split = _chosen_split(info, path, asked, files)
    folder = VideoFolder(path, info)
    return split, folder, path if path.is_file() else folder.annotation(*files[split])


def _chosen_split(info: DataSetInfo, path: Path, asked: str | None, files: Mapping[str, tuple[str, ...]]) -> str:
    if not path.is_file():
        return info.split(asked)
    there = [split for split in info.splits if path.name.lower() in (name.lower() for name in files[split])]
    if asked is not None and info.split(asked) in there:
        return asked
    if asked is not None or not there:
        named = files[asked] if asked is not None else [name for names in files.values() for name in names]
        wanted = " or ".join(dict.fromkeys(named))
        raise info.missing(f"{path} is another file: give the folder, or {wanted}")
    return there[0]


def _walk(root: Path) -> Iterator[Path]:
    """Yield the files below a folder by depth, then by name; links are followed, each real folder is listed once."""
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


_Key: TypeAlias = tuple[str, tuple[float, float] | None]  # name of a video, and its span; None = all of it


def _find_videos(
    folder: VideoFolder, keys: Iterable[_Key], aliases: Mapping[str, str]
) -> tuple[dict[_Key, int], tuple[Path, ...], tuple[str, ...]]:
    """Number the videos (or parts of videos) that exist; return the numbers, the files and a note on the others."""
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
    """Make a set of caption rows, without missing videos and blank captions.

    Args:
        name: name in reports.
        folder: the folder of the videos.
        rows: captions, in the order of the annotations.
        notes: notes of the reader.
        aliases: video -> another possible name of its file.

    Raises:
        DataError: there is no caption, or no video exists.
    """
    kept = [row for row in rows if row.caption.strip()]
    blank = (f"blank captions left out: {len(rows) - len(kept)}",) if len(kept) < len(rows) else ()
    numbers, files, missing = _find_videos(folder, ((row.video, row.span) for row in kept), aliases or {})
    kept = [row for row in kept if (row.video, row.span) in numbers]
    spans = tuple(span for _, span in numbers)  # in the order of the numbers
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
    """Make a set of moment rows, without missing videos, blank sentences and sentences without a moment.

    Args as in `video_set`.

    Raises:
        DataError: there is no sentence, or no video exists.
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
