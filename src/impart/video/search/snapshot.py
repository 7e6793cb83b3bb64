"""Snapshot: a video index in memory, as of one commit. NumPy columns, sorted by path and time.

`impart.video.search.state` reads it. Its large arrays (vectors, retrieval embeddings, blends) may be `Pieces` of
memory-mapped files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from impart.blending.base import Blend
from impart.errors import QueryError
from impart.video.index.files.scan import absolute
from impart.video.index.manifest import IndexManifest
from impart.video.index.store import Kind
from impart.video.search.hits import timecode

if TYPE_CHECKING:
    from impart.video.search.state.choice import VideoChoice

__all__ = ["Snapshot", "locate_segment"]


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """V videos of n segments in S scenes, as of one commit.

    Attributes:
        state: `Store.state` at that commit.
        video_ids: V, in the order of `paths`.
        paths: V, sorted.
        offsets: (V + 1,) the segments of video i are [offsets[i], offsets[i + 1]).
        scenes: (S,) first segment of each scene, over all videos.
        start_s, end_s: (n,) seconds.
        weight: (n,) sampled frames per segment.
        vectors: (n, D) base embeddings, float16 or float32.
        scene_start_s, scene_end_s: (S,) bounds of the scenes, seconds.
        durations_s: (V,) seconds; recorded_at: (V,) Unix time, NaN = unknown; kinds: V, `video` or `photo`.
        modified_at: (V,) time of the last change of the file, Unix time; NaN = unknown.
        read_retrieval: reads `retrieval`.
        blend: of all n segments, or None without a reference set.
        left_out: paths of the videos that lack rows; they are not among the V.
        unblended: paths of the videos that lack rows of their blends; they have their base vectors alone.
        revisions: V; those of videos with the same content are equal. Empty: no two have the same.
        origin: the places of the videos in shards; None for a snapshot that owns its arrays.
    """

    state: str
    manifest: IndexManifest
    video_ids: tuple[str, ...]
    paths: tuple[Path, ...]
    offsets: npt.NDArray[np.int64]
    scenes: npt.NDArray[np.int64]
    start_s: npt.NDArray[np.float64]
    end_s: npt.NDArray[np.float64]
    weight: npt.NDArray[np.int32]
    vectors: npt.NDArray[Any]
    blend: Blend | None
    scene_start_s: npt.NDArray[np.float64]
    scene_end_s: npt.NDArray[np.float64]
    durations_s: npt.NDArray[np.float64]
    recorded_at: npt.NDArray[np.float64]
    modified_at: npt.NDArray[np.float64]
    kinds: tuple[Kind, ...]
    read_retrieval: Callable[[], npt.NDArray[Any]]
    left_out: tuple[Path, ...] = ()
    unblended: tuple[Path, ...] = ()
    revisions: tuple[str, ...] = ()
    origin: VideoChoice | None = None

    def __len__(self) -> int:
        return len(self.start_s)

    @cached_property
    def copies(self) -> dict[int, tuple[int, ...]]:
        """Numbers of all videos with the content of a video, in order; only of videos that have copies."""
        numbers: dict[str, list[int]] = {}
        for video, revision in enumerate(self.revisions):
            numbers.setdefault(revision, []).append(video)
        return {video: tuple(same) for same in numbers.values() if len(same) > 1 for video in same}

    @cached_property
    def number_of(self) -> dict[str, int]:
        """Number of the video with an id."""
        return {video_id: number for number, video_id in enumerate(self.video_ids)}

    @cached_property
    def retrieval(self) -> npt.NDArray[Any]:
        """Retrieval embeddings (n, R) in the precision of the index; read when they are first used.

        Raises:
            TableGoneError: a video was replaced meanwhile; take a new snapshot.
        """
        return self.read_retrieval()

    @cached_property
    def scene_of(self) -> npt.NDArray[np.int64]:
        """Number (n,) of the scene of each segment."""
        return np.repeat(np.arange(len(self.scenes)), np.diff(np.append(self.scenes, len(self))))

    @cached_property
    def video_of(self) -> npt.NDArray[np.int64]:
        """Number (n,) of the video of each segment."""
        return np.repeat(np.arange(len(self.paths)), np.diff(self.offsets))

    def warnings(self) -> Iterator[str]:
        """Name what a search lacks, with the remedy."""
        if self.left_out:
            yield (
                f"{_in_words(self.left_out)} left out of the search, since rows are missing (was the index copied "
                "while it was written, or a file of it lost?): impart index PATH... indexes them again"
            )
        if self.unblended:
            yield (
                f"{_in_words(self.unblended)} searched without the reference set, since rows of the neighbours table "
                "are missing: impart index PATH... computes them again, without decoding"
            )


def locate_segment(snapshot: Snapshot, path: str | os.PathLike[str], at_s: float, *, folder: Path) -> int:
    """Find the segment of a video at a time. A bare file name is enough where only one video has it.

    Args:
        folder: of the index, for messages.

    Raises:
        QueryError: the video is not in the index, or is shorter.
    """
    given = absolute(path)
    known = {video: i for i, video in enumerate(snapshot.paths)}
    number = known.get(given, known.get(Path(path)))
    if number is None and Path(path).name == str(path):
        namesakes = [i for i, known_path in enumerate(snapshot.paths) if known_path.name == str(path)]
        if len(namesakes) > 1:
            raise QueryError(f"{len(namesakes)} indexed videos are called {path}: give the path of one of them")
        number = namesakes[0] if namesakes else None
    if number is None:
        raise QueryError(f"{given} is not in the index {folder}: index it first, or check its path")
    first, stop = int(snapshot.offsets[number]), int(snapshot.offsets[number + 1])
    end_s = float(snapshot.end_s[stop - 1])
    if not 0 <= at_s <= end_s:
        raise QueryError(f"{at_s:g} s is outside {snapshot.paths[number]}: it ends at {timecode(end_s)}")
    return first + max(0, int(np.searchsorted(snapshot.start_s[first:stop], at_s, side="right")) - 1)


def _in_words(paths: Sequence[Path]) -> str:
    """Count videos, and name up to three."""
    names = ", ".join(str(path) for path in paths[:3]) + (", ..." if len(paths) > 3 else "")
    return f"{len(paths)} video{'s' if len(paths) > 1 else ''} ({names}) {'are' if len(paths) > 1 else 'is'}"
