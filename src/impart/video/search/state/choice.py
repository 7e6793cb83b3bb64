"""VideoChoice: the videos of a snapshot, each with its place in a shard. A snapshot is composed of it without copies.

Two commits have most videos in common, so their snapshots share most shards, with all that was derived from them.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from impart.blending.base import Blend
from impart.files import blake2b_hex
from impart.video.index.manifest import IndexManifest
from impart.video.index.store import Kind
from impart.video.search.snapshot import Snapshot
from impart.video.search.state.pieces import Runs

if TYPE_CHECKING:
    from impart.video.search.state.shard import VideoShard

__all__ = ["VideoChoice", "VideoColumns", "choice_of", "compose", "part_of"]


@dataclass(frozen=True, kw_only=True)
class VideoColumns:
    """Description of V videos; the attributes are those of `Snapshot`."""

    video_ids: tuple[str, ...]
    paths: tuple[Path, ...]
    revisions: tuple[str, ...]
    kinds: tuple[Kind, ...]
    durations_s: npt.NDArray[np.float64]
    recorded_at: npt.NDArray[np.float64]
    modified_at: npt.NDArray[np.float64]

    @classmethod
    def of(cls, snapshot: Snapshot) -> VideoColumns:
        """Take the columns of a snapshot."""
        return cls(**{field.name: getattr(snapshot, field.name) for field in dataclasses.fields(cls)})

    @classmethod
    def joined(cls, columns: Sequence[VideoColumns]) -> VideoColumns:
        """Join the videos of several, one after the other."""
        found: dict[str, Any] = {}
        for field in dataclasses.fields(cls):
            values = [getattr(one, field.name) for one in columns]
            is_array = field.name.endswith(("_s", "_at"))
            found[field.name] = np.concatenate(values) if is_array else tuple(item for of in values for item in of)
        return cls(**found)

    def take(self, numbers: npt.NDArray[np.int64]) -> VideoColumns:
        """Take the videos of these numbers, in this order."""
        chosen = numbers.tolist()
        found: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            values = getattr(self, field.name)
            if isinstance(values, np.ndarray):
                found[field.name] = values[numbers]
            else:  # an old snapshot may have no revisions
                found[field.name] = tuple(values[number] for number in chosen) if values else ()
        return VideoColumns(**found)

    def order(self) -> npt.NDArray[np.int64]:
        """Sort the videos by path."""
        keys = [os.fsencode(path) for path in self.paths]
        return np.array(sorted(range(len(keys)), key=keys.__getitem__), np.int64)


@dataclass(frozen=True, eq=False)
class VideoChoice:
    """The places of V videos.

    Attributes:
        shards: that have them.
        shard_of: (V,) number of the shard of each video.
        number: (V,) number of each video in its shard.
    """

    shards: tuple[VideoShard, ...]
    shard_of: npt.NDArray[np.int64]
    number: npt.NDArray[np.int64]

    @classmethod
    def whole(cls, shard: VideoShard) -> VideoChoice:
        """Choose all videos of one shard."""
        count = len(shard.snapshot.video_ids)
        return cls((shard,), np.zeros(count, np.int64), np.arange(count))

    @property
    def single(self) -> VideoShard | None:
        """The shard of which these are all videos in order; None where there is no such shard."""
        if not len(self.number):
            return None
        shard = self.shards[int(self.shard_of[0])]
        count = len(shard.snapshot.video_ids)
        same = len(self.number) == count and (self.shard_of == self.shard_of[0]).all()
        return shard if same and np.array_equal(self.number, np.arange(count)) else None

    def take(self, videos: npt.NDArray[np.int64]) -> VideoChoice:
        """Take some of the videos, in this order; shards that have none of them are left out."""
        used, shard_of = np.unique(self.shard_of[videos], return_inverse=True)
        return VideoChoice(tuple(self.shards[one] for one in used.tolist()), shard_of.reshape(-1), self.number[videos])

    def runs(self, offsets: Sequence[npt.NDArray[np.int64]]) -> Runs:
        """Find the rows of the videos.

        Args:
            offsets: of each shard, (V' + 1,) the first row of each of its videos.
        """
        if not len(self.number):
            return Runs.of(self.shard_of, self.number, self.number)
        joined = np.concatenate(offsets)
        first = np.cumsum([0, *(len(one) for one in offsets[:-1])])
        at = first[self.shard_of] + self.number
        return Runs.of(self.shard_of, joined[at], joined[at + 1])

    @cached_property
    def segments(self) -> Runs:
        """Find the segments of the videos."""
        return self.runs([shard.snapshot.offsets for shard in self.shards])


def choice_of(snapshot: Snapshot) -> VideoChoice:
    """Return the places of the videos of a snapshot; of one from the tables, they are in a shard of their own."""
    if snapshot.origin is not None:
        return snapshot.origin
    from impart.video.search.state.shard import VideoShard

    return VideoChoice.whole(VideoShard(snapshot))


def part_of(snapshot: Snapshot, choice: VideoChoice, videos: npt.NDArray[np.int64]) -> Snapshot:
    """Take some of the videos of a snapshot; large arrays are not copied.

    Args:
        choice: the places of all its videos.
        videos: numbers of those that are taken, in ascending order.
    """
    return compose(
        choice.take(videos),
        VideoColumns.of(snapshot).take(videos),
        state=f"{snapshot.state}/{blake2b_hex(videos.tobytes(), size_bytes=8)}",
        manifest=snapshot.manifest,
        left_out=snapshot.left_out,
        unblended=snapshot.unblended,
    )


def compose(
    choice: VideoChoice,
    columns: VideoColumns,
    *,
    state: str,
    manifest: IndexManifest,
    left_out: tuple[Path, ...] = (),
    unblended: tuple[Path, ...] = (),
) -> Snapshot:
    """Compose a snapshot of the videos of a choice.

    Args:
        columns: what describes the videos, in the order of the choice.
        state: `Store.state` of the commit.
    """
    sources = [shard.snapshot for shard in choice.shards]
    if not len(choice.number):
        sources = [_empty(manifest)]
    segments = choice.segments
    scenes = choice.runs([np.searchsorted(one.scenes, one.offsets) for one in sources])
    firsts = scenes.join([one.scenes - one.offsets[one.video_of[one.scenes]] for one in sources])
    owner = np.repeat(np.arange(len(choice.number)), np.diff(scenes.offsets))
    return Snapshot(
        state=state,
        manifest=manifest,
        **vars(columns),
        offsets=segments.offsets,
        scenes=firsts + segments.offsets[owner],
        start_s=segments.join([one.start_s for one in sources]),
        end_s=segments.join([one.end_s for one in sources]),
        weight=segments.join([one.weight for one in sources]),
        vectors=segments.choose([one.vectors for one in sources]),
        scene_start_s=scenes.join([one.scene_start_s for one in sources]),
        scene_end_s=scenes.join([one.scene_end_s for one in sources]),
        blend=_blend(segments, sources),
        read_retrieval=lambda: segments.choose([one.retrieval for one in sources]),
        left_out=left_out,
        unblended=unblended,
        origin=choice,
    )


def _blend(segments: Runs, sources: Sequence[Snapshot]) -> Blend | None:
    """Choose the blends of the segments; None without a reference set."""
    blends = [one.blend for one in sources if one.blend is not None]
    if len(blends) < len(sources):
        return None
    added = [one.added for one in blends if one.added is not None]
    return Blend(
        ids=segments.choose([one.ids for one in blends]),
        img=segments.choose([one.img for one in blends]),
        txt=segments.choose([one.txt for one in blends]),
        norm=segments.join([one.norm for one in blends]),
        added=segments.choose(added) if len(added) == len(blends) else None,
    )


def _empty(manifest: IndexManifest) -> Snapshot:
    """Make a snapshot without videos, from which arrays without rows get their shapes."""
    number = np.float16 if manifest.index.precision == "float16" else np.float32
    times, augmentation = np.zeros(0), manifest.augmentation
    blend = None
    if augmentation is not None:
        pairs = np.zeros((0, augmentation.settings.k), np.float32)
        added = np.zeros((0, manifest.dim), number) if augmentation.dense else None
        blend = Blend(ids=pairs.astype(np.int32), img=pairs, txt=pairs, norm=times.astype(np.float32), added=added)
    return Snapshot(
        state="",
        manifest=manifest,
        video_ids=(),
        paths=(),
        revisions=(),
        kinds=(),
        offsets=np.zeros(1, np.int64),
        scenes=np.zeros(0, np.int64),
        start_s=times,
        end_s=times,
        weight=np.zeros(0, np.int32),
        vectors=np.zeros((0, manifest.dim), number),
        blend=blend,
        scene_start_s=times,
        scene_end_s=times,
        durations_s=times,
        recorded_at=times,
        modified_at=times,
        read_retrieval=lambda: np.zeros((0, manifest.retrieval_dim), number),
    )
