"""Snapshot: a video index in memory, as of one commit. NumPy columns, sorted by path and time.

`impart.video.search.state` reads it.
"""

from __future__ import annotations

import dataclasses
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
from impart.files import blake2b_hex
from impart.video.index.files.scan import absolute
from impart.video.index.manifest import IndexManifest
from impart.video.index.store import Kind
from impart.video.search.hits import timecode

if TYPE_CHECKING:
    pass

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
        video_means: (V, D) unit means of the vectors v', where the cache contains them.
        revisions: V; those of videos with the same content are equal. Empty: no two have the same.
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
    video_means: npt.NDArray[np.float32] | None = None
    revisions: tuple[str, ...] = ()

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

    def part(self, videos: npt.NDArray[np.int64]) -> Snapshot:
        """Copy some of the videos.

        Args:
            videos: numbers of the videos, in ascending order.
        """
        segments = _ranges(self.offsets[videos], self.offsets[videos + 1])  # (m,)
        scene_bounds = np.searchsorted(self.scenes, self.offsets)  # (V + 1,) first scene of each video
        scenes = _ranges(scene_bounds[videos], scene_bounds[videos + 1])
        lengths = np.diff(self.offsets)[videos]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        shift = np.repeat(self.offsets[videos] - offsets[:-1], np.diff(scene_bounds)[videos])  # of each scene
        chosen = videos.tolist()
        return dataclasses.replace(
            self,
            state=f"{self.state}/{blake2b_hex(videos.tobytes(), size_bytes=8)}",
            video_ids=tuple(self.video_ids[video] for video in chosen),
            paths=tuple(self.paths[video] for video in chosen),
            revisions=tuple(self.revisions[video] for video in chosen) if self.revisions else (),
            kinds=tuple(self.kinds[video] for video in chosen),
            offsets=offsets,
            scenes=self.scenes[scenes] - shift,
            scene_start_s=self.scene_start_s[scenes],
            scene_end_s=self.scene_end_s[scenes],
            start_s=self.start_s[segments],
            end_s=self.end_s[segments],
            weight=self.weight[segments],
            vectors=self.vectors[segments],
            blend=None if self.blend is None else self.blend[segments],
            durations_s=self.durations_s[videos],
            recorded_at=self.recorded_at[videos],
            modified_at=self.modified_at[videos],
            video_means=None if self.video_means is None else self.video_means[videos],
            read_retrieval=lambda: self.retrieval[segments],
        )

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


def _ranges(starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Join the numbers of ranges [start, stop)."""
    lengths = stops - starts
    firsts = np.cumsum(lengths) - lengths  # place of each range in the result
    joined: npt.NDArray[np.int64] = np.arange(int(lengths.sum())) + np.repeat(starts - firsts, lengths)
    return joined


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
