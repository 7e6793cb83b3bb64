"""Statistics of an index: counts, sizes, and what is in force."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from impart.config import RamSettings, SolvedSettings, VanillaSettings
from impart.video.crops.store import CropStore, key_of
from impart.video.index.manifest import IndexManifest
from impart.video.index.pause import is_paused
from impart.video.index.remote.mirror import mirror_of
from impart.video.index.store import FailureRecord, VideoRecord
from impart.video.integrity import bytes_below

__all__ = ["IndexStats"]


@dataclass(frozen=True, kw_only=True)
class IndexStats:
    """Statistics of an index.

    Attributes:
        videos, photos, segments, scenes: counts; a photo is no video, but has a segment and a scene.
        partial: videos that could be read only up to a point.
        incomplete: videos that lack rows; searches leave them out, and the next run indexes them again.
        samples: frames sampled.
        failures: files that could not be indexed; no_video: files without a video or photo.
        video_s: seconds of video.
        size_bytes: on disk, or in the bucket.
        with_crops: videos and photos that have crops, see `VideoIndex.add_crops`.
        encoder_id, encoder_fingerprint: of the base encoder.
        references: name of the reference set in force, or None; blending: settings of its blend.
        paused: whether indexing waits, see `impart.video.index.pause`.
    """

    videos: int
    photos: int
    partial: int
    incomplete: int
    segments: int
    samples: int
    scenes: int
    failures: int
    no_video: int
    video_s: float
    size_bytes: int
    with_crops: int
    encoder_id: str
    encoder_fingerprint: str
    references: str | None
    blending: VanillaSettings | SolvedSettings | RamSettings | None
    paused: bool

    @classmethod
    def of(
        cls,
        folder: Path,
        manifest: IndexManifest,
        videos: Sequence[VideoRecord],
        failures: Sequence[FailureRecord],
        *,
        incomplete: int,
    ) -> IndexStats:
        """Count the contents of the index in `folder`."""
        mirror = mirror_of(folder)
        crops, augmentation = CropStore(folder).known(), manifest.augmentation
        return cls(
            videos=sum(video.kind == "video" for video in videos),
            photos=sum(video.kind == "photo" for video in videos),
            partial=sum(video.problem is not None for video in videos),
            incomplete=incomplete,
            segments=sum(video.segments for video in videos),
            samples=sum(video.samples for video in videos),
            scenes=sum(len(video.scene_starts) for video in videos),
            failures=sum(not failure.no_video for failure in failures),
            no_video=sum(failure.no_video for failure in failures),
            video_s=sum(video.duration_s for video in videos),
            size_bytes=bytes_below(folder) if mirror is None else sum(mirror.sizes("").values()),
            with_crops=sum(key_of(video) in crops for video in videos),
            encoder_id=manifest.encoder_id,
            encoder_fingerprint=manifest.encoder_fingerprint,
            references=augmentation.references_name if augmentation else None,
            blending=augmentation.settings if augmentation else None,
            paused=is_paused(folder),
        )
