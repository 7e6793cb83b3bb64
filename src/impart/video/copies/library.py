"""Copies in a video index: of a clip, and among its own videos."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, TypedDict, Unpack

import numpy as np

from impart.blending.tune import bundled_background
from impart.config import Settings
from impart.encoders.base import Encoder, Float32, l2_normalise
from impart.errors import ImpartWarning
from impart.video.copies.background import flat_images
from impart.video.copies.duplicates import duplicate_groups
from impart.video.copies.finder import find
from impart.video.copies.frames import FrameRun, IndexedFrames
from impart.video.copies.matching import COPY
from impart.video.copies.spans import AlignedSpan, Copy, DuplicateGroup
from impart.video.index.encoder_in_use import EncoderInUse
from impart.video.index.files.scan import absolute
from impart.video.index.manifest import IndexManifest
from impart.video.search.searcher import Searcher
from impart.video.search.snapshot import Snapshot

if TYPE_CHECKING:
    from impart.video.copies.query_clip import QueryClip

__all__ = ["SHARED_S", "CopyLibrary", "DuplicatesKeywords", "FindKeywords", "indexed_frames", "views_of"]

SHARED_S = 2.0
"""Least seconds that duplicates share."""

_MOST_FPS = 8.0  # of the grid on which videos are aligned


class FindKeywords(TypedDict, total=False):
    """Options of `CopyLibrary.find_copies`."""

    top: int | None
    min_score: float
    on_frames: Callable[[int], None] | None


class DuplicatesKeywords(TypedDict, total=False):
    """Options of `CopyLibrary.duplicates`."""

    min_score: float
    min_length_s: float
    on_progress: Callable[[int, int], None] | None


class CopyLibrary:
    """Finds copies in one index. Blocks of its frames stay in memory until the next commit. Threads may share it.

    `VideoIndex.find_copies` and `VideoIndex.duplicates` call it.

    Args:
        searcher: reads the index.
        encoders: of the index.
        settings: of the search and the encoder.
    """

    def __init__(self, searcher: Searcher, encoders: EncoderInUse, settings: Settings) -> None:
        self._searcher = searcher
        self._encoders = encoders
        self._settings = settings
        self._lock = threading.Lock()
        self._frames: tuple[str, IndexedFrames] | None = None

    def find_copies(self, path: str | os.PathLike[str], **keywords: Unpack[FindKeywords]) -> list[Copy]:
        """Find the indexed videos that contain a clip, or a part of it.

        The clip need not be indexed. It is decoded, and encoded as it is and mirrored.

        Args:
            path: of the clip. Where it is itself in the index, it is left out.
            keywords: `top`, the largest number of videos (None = the setting); `min_score`, the least score of a span;
                `on_frames`, called with the number of frames encoded.

        Returns:
            Copies, the one with the most evidence first. Of videos with the same content only the first one, with the
            others in `also_at`.

        Raises:
            DecodeError: the file is missing, or no video that can be read.
            QueryError: the clip is shorter than a second.
        """
        from impart.video.copies.query_clip import read_clip  # imports the decoder, which `duplicates` does not need

        manifest = self._searcher.manifest()
        base = self._encoders.base(manifest)
        clip = read_clip(
            absolute(path),
            base,
            manifest.decode,
            batch=self._settings.encoder.batch,
            on_frames=keywords.get("on_frames"),
        )
        if clip.problem is not None:
            warnings.warn(f"{clip.path}: {clip.problem}; the rest was looked for", ImpartWarning, stacklevel=3)
        top = keywords.get("top") or self._settings.search.top
        least = keywords.get("min_score", COPY)
        return self._searcher.ask(lambda snapshot: self.find(clip, snapshot, base, top=top, least=least))

    def find(self, clip: QueryClip, snapshot: Snapshot, base: Encoder, *, top: int, least: float) -> list[Copy]:
        """Find the videos of a snapshot that contain an encoded clip."""
        if not len(snapshot):
            return []
        frames = self.frames_of(snapshot, base)
        allowed = np.array([known != clip.path for known in snapshot.paths])
        for same in snapshot.copies.values():
            others = [video for video in same if allowed[video]]
            allowed[others[1:]] = False
        found = find(views_of(clip, frames), frames, fps=_grid_fps(snapshot.manifest), allowed=allowed, least=least)
        ranked = sorted(found.items(), key=lambda item: (-item[1][0].evidence_s, item[0]))[:top]
        return [_copy(rank, video, spans, snapshot, clip) for rank, (video, spans) in enumerate(ranked, 1)]

    def duplicates(self, **keywords: Unpack[DuplicatesKeywords]) -> list[DuplicateGroup]:
        """Find the indexed videos that share content, also of other lengths and sizes. Nothing is decoded or deleted.

        Args:
            keywords: `min_score`, the least score of a span; `min_length_s`, the least seconds that two videos share;
                `on_progress`, called with the numbers of blocks of frames done, and of all.

        Returns:
            Groups of connected videos, exact copies first.
        """
        base = self._encoders.base(self._searcher.manifest())

        def find_all(snapshot: Snapshot) -> list[DuplicateGroup]:
            if not len(snapshot):
                return []
            return duplicate_groups(
                self.frames_of(snapshot, base),
                snapshot.paths,
                copies=snapshot.copies,
                durations_s=snapshot.durations_s,
                fps=_grid_fps(snapshot.manifest),
                least=keywords.get("min_score", COPY),
                min_length_s=keywords.get("min_length_s", SHARED_S),
                on_progress=keywords.get("on_progress"),
            )

        return self._searcher.ask(find_all)

    def frames_of(self, snapshot: Snapshot, base: Encoder) -> IndexedFrames:
        """Return the frames of a snapshot; they are read and grouped at the first call."""
        with self._lock:
            if self._frames is None or self._frames[0] != snapshot.state:
                self._frames = snapshot.state, indexed_frames(snapshot, base)
            return self._frames[1]


def indexed_frames(snapshot: Snapshot, base: Encoder) -> IndexedFrames:
    """Read and group the frames of a snapshot.

    Args:
        base: the base encoder of the index; it encodes a few images of one colour.
    """
    return IndexedFrames(
        snapshot.retrieval,
        starts_s=snapshot.start_s,
        ends_s=snapshot.end_s,
        offsets=snapshot.offsets,
        scenes=snapshot.scenes,
        images=_unrelated(base),
        flat_rows=flat_images(base),
    )


def views_of(clip: QueryClip, frames: IndexedFrames) -> list[FrameRun]:
    """Add the levels to the views of a clip."""
    views = map(l2_normalise, clip.views)
    return [FrameRun(rows, frames.background.levels(rows), clip.starts_s, clip.ends_s) for rows in views]


def _copy(rank: int, video: int, spans: list[AlignedSpan], snapshot: Snapshot, clip: QueryClip) -> Copy:
    same = (snapshot.paths[copy] for copy in snapshot.copies.get(video, ()) if copy != video)
    return Copy(
        rank=rank,
        path=snapshot.paths[video],
        video_id=snapshot.video_ids[video],
        video_s=float(snapshot.durations_s[video]),
        spans=tuple(spans),
        also_at=tuple(path for path in same if path != clip.path),
    )


def _grid_fps(manifest: IndexManifest) -> float:
    return min(float(manifest.decode.fps), _MOST_FPS)


def _unrelated(base: Encoder) -> Float32:
    """Read the retrieval embeddings (M, R) of the background set that comes with an encoder; M = 0 without one."""
    found = bundled_background(base.traits.id, fingerprint=base.fingerprint)
    if found is None:
        return np.zeros((0, base.traits.retrieval_dim), np.float32)
    rows: Float32 = np.asarray(found.retrieval_embeddings, np.float32)
    return rows
