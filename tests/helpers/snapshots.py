"""Snapshots of an index from arrays, without a database."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from impart.blending.base import Blend
from impart.config import DecodeSettings, IndexSettings
from impart.video.index.manifest import IndexManifest
from impart.video.index.store import Kind
from impart.video.search.snapshot import Snapshot

__all__ = ["make_snapshot"]


def make_snapshot(
    vectors: npt.NDArray[Any],
    *,
    lengths: Sequence[int] | None = None,
    scenes: Sequence[int] | None = None,
    retrieval: npt.NDArray[Any] | None = None,
    weight: npt.NDArray[np.int32] | None = None,
    blend: Blend | None = None,
    kinds: Sequence[Kind] | None = None,
    recorded_at: Sequence[float] | None = None,
    paths: Sequence[str] | None = None,
) -> Snapshot:
    """Make a snapshot of videos whose segments last a quarter of a second each.

    Args:
        vectors: (n, D).
        lengths: V, segments per video; None = one video.
        scenes: S, first segment of each scene, over all videos; None = one scene per video.
    """
    count = len(vectors)
    lengths = [count] if lengths is None else list(lengths)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    first = np.array(offsets[:-1] if scenes is None else scenes, np.int64)
    video_of = np.repeat(np.arange(len(lengths)), lengths)
    start_s = (np.arange(count) - offsets[video_of]) / 4
    last = np.append(first[1:], count) - 1
    manifest = IndexManifest(
        encoder_id="tiny",
        encoder_fingerprint="tiny",
        dim=vectors.shape[1],
        retrieval_dim=0 if retrieval is None else retrieval.shape[1],
        decode=DecodeSettings(),
        index=IndexSettings(),
        augmentation=None,
        versions={},
        created_at="",
    )
    return Snapshot(
        state="",
        manifest=manifest,
        video_ids=tuple(f"{i}" for i in range(len(lengths))),
        paths=tuple(Path(path) for path in paths or [f"/{i}.mp4" for i in range(len(lengths))]),
        offsets=offsets,
        scenes=first,
        start_s=start_s,
        end_s=start_s + 0.25,
        weight=np.ones(count, np.int32) if weight is None else weight,
        vectors=vectors,
        blend=blend,
        scene_start_s=start_s[first],
        scene_end_s=start_s[last] + 0.25,
        durations_s=np.array(lengths) / 4,
        recorded_at=np.full(len(lengths), np.nan) if recorded_at is None else np.array(recorded_at, np.float64),
        modified_at=np.full(len(lengths), np.nan),
        kinds=("video",) * len(lengths) if kinds is None else tuple(kinds),
        read_retrieval=lambda: np.zeros((count, 0), np.float16) if retrieval is None else retrieval,
    )
