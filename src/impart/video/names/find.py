"""Find a name: the spans of the videos in which it is present, by the vectors of the index alone."""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from impart.blending.tune import bundled_background
from impart.encoders.base import Float32
from impart.files import blake2b_hex
from impart.video.crops.presence import KnownCrops
from impart.video.crops.store import CropStore
from impart.video.faces.in_index import KnownFaces
from impart.video.faces.store import FaceStore
from impart.video.names.presence import Background, Detector
from impart.video.names.store import NameStore, TaughtNames
from impart.video.search.filters import allowed_videos
from impart.video.search.hits import Hit
from impart.video.search.query import SearchOptions
from impart.video.search.snapshot import Snapshot
from impart.video.search.state.kept import kept_array

__all__ = [
    "Hits",
    "NamesInForce",
    "Prepared",
    "Span",
    "hits_of",
    "presence_bins",
    "presence_spans",
    "smoothed",
    "windows",
]

Hits: TypeAlias = "list[Hit]"

_GAP_S = 1.0  # shorter absences do not end a span
_PRESENT = 0.5
_AROUND_S = 2.0  # of a window; its mean counts as much as the segment itself (chosen on crops of 320 photos)
_APART_S = 1e7  # more than any video lasts


@dataclass(frozen=True, kw_only=True)
class Span:
    """A run of segments in which a name is present.

    Attributes:
        first, last: segments, both inclusive.
        best: segment with the highest presence.
        score: mean presence over time.
    """

    first: int
    last: int
    best: int
    score: float


class Prepared:
    """The names of an index and a snapshot of it, with what all names share. Made by `NamesInForce.of`.

    Attributes:
        taught: the names.
        snapshot: the index.
        faces: of the index; None where they were not searched for.
        crops: of the index; None where there are none.
    """

    def __init__(
        self,
        taught: TaughtNames,
        snapshot: Snapshot,
        others: Float32 | None,
        *,
        faces: KnownFaces | None = None,
        crops: KnownCrops | None = None,
    ) -> None:
        self.taught = taught
        self.faces = faces
        self.crops = crops
        self.snapshot = snapshot
        self._others = others
        self._detectors: dict[str, Detector] = {}
        self._present: dict[str, Float32] = {}

    @cached_property
    def background(self) -> Background:
        """Statistics of the frames of the index and of the encoder's background set."""
        others = self._others
        if not len(self.snapshot) and others is None:  # an empty index of a model without a background set
            others = np.eye(self.snapshot.manifest.retrieval_dim, dtype=np.float32)
        return Background.of(self.snapshot.retrieval, others)

    @cached_property
    def lengths(self) -> Float32:
        """Lengths (n,) of the whitened frames, see `Background.lengths`.

        They cost more than all else, so they are kept in the cache of the index, which may be deleted at any time.
        """
        index, rows = self.taught.folder.parent, self.snapshot.retrieval
        name = f"lengths-{self.background.digest}"
        return kept_array(index, self.snapshot, name, (len(rows),), lambda: self.background.lengths(rows))

    @cached_property
    def windows(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Windows of the segments, see `windows`."""
        return windows(self.snapshot.start_s, self.snapshot.end_s, self.snapshot.scenes)

    def detector(self, name: str) -> Detector:
        """Return the detector of a taught name."""
        if name not in self._detectors:
            self._detectors[name] = Detector.of(self.taught.retrieval(name), self.background)
        return self._detectors[name]

    def presence(self, name: str) -> Float32:
        """Compute the presence (n,) of a taught name in the segments of the index, smoothed over time.

        That of its images is kept in the cache of the index: of a million segments, it costs more than a second.
        """
        if name not in self._present:
            examples, index = self.taught.retrieval(name), self.taught.folder.parent
            of_crops = "" if self.crops is None else str(self.crops.state)
            digest = blake2b_hex(examples.tobytes() + f"{self.background.digest} {of_crops}".encode(), size_bytes=8)
            shape = (len(self.snapshot),)
            self._present[name] = kept_array(
                index, self.snapshot, f"presence-{digest}", shape, lambda: self._presence(self.detector(name))
            )
        of_images = self._present[name]
        return of_images if self.faces is None else self.faces.combined(of_images, self.taught.column(name, "hash"))

    @property
    def computed(self) -> tuple[str, ...]:
        """Names whose presence was computed, in this order."""
        return tuple(self._present)

    def _presence(self, detector: Detector) -> Float32:
        """Compute the presence (n,) by whole frames and by crops."""
        z_scores = detector.z_scores(self.snapshot.retrieval, self.lengths)
        in_frames = detector.as_presence(smoothed(z_scores, *self.windows))
        if self.crops is None:
            return in_frames
        in_parts = detector.as_presence(smoothed(self.crops.z_scores(detector), *self.windows))
        return np.maximum(in_frames, in_parts)


class NamesInForce:
    """The names of one index, prepared once per commit of the index or of the names. May be shared by threads."""

    def __init__(self, store: NameStore) -> None:
        self.store = store
        self._face_store = FaceStore(store.index)
        self._faces: KnownFaces | None = None
        self._crop_store = CropStore(store.index)
        self._crops: KnownCrops | None = None
        self._lock = threading.Lock()
        self._last: Prepared | None = None

    @property
    def last(self) -> Prepared | None:
        """The result of the last call of `of`; None before the first."""
        return self._last

    def of(self, snapshot: Snapshot) -> Prepared:
        """Return the names as they are now, for a snapshot of the index.

        Raises:
            VideoIndexError: the names are damaged.
            EncoderMismatchError: they were taught with another encoder.
        """
        with self._lock:
            taught, last = self.store.read(snapshot.manifest), self._last
            faces, crops = self._faces_in(snapshot), self._crops_in(snapshot)
            current = last is not None and last.taught.state == taught.state and last.snapshot is snapshot
            if last is None or not current or last.faces is not faces or last.crops is not crops:
                fingerprint = snapshot.manifest.encoder_fingerprint
                background = bundled_background(snapshot.manifest.encoder_id, fingerprint=fingerprint)
                others = background.retrieval_embeddings if background is not None else None
                made = Prepared(taught, snapshot, others, faces=faces, crops=crops)
                if last is not None and last.snapshot is snapshot:  # other names, the same frames
                    made.__dict__.update({key: last.__dict__[key] for key in _SHARED if key in last.__dict__})
                self._last = made
            assert self._last is not None
            return self._last

    def _faces_in(self, snapshot: Snapshot) -> KnownFaces | None:
        """Return the faces of the index; None where they were not searched for."""
        if not self._face_store.on:
            self._faces = None
        elif (
            self._faces is None or self._faces.snapshot is not snapshot or self._faces.state != self._face_store.state()
        ):
            self._faces = KnownFaces(self._face_store, snapshot)
        return self._faces

    def _crops_in(self, snapshot: Snapshot) -> KnownCrops | None:
        """Return the crops of the index; None where there are none."""
        state = self._crop_store.state()
        if not state:
            self._crops = None
        elif self._crops is None or self._crops.snapshot is not snapshot or self._crops.state != state:
            self._crops = KnownCrops(self._crop_store, snapshot)
        return self._crops


_SHARED = ("background", "lengths", "windows")


def windows(
    start_s: npt.NDArray[np.float64], end_s: npt.NDArray[np.float64], scenes: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Compute the segments around each segment: at most `_AROUND_S` away, in the same scene.

    Args:
        start_s, end_s: (n,) of the segments.
        scenes: (S,) first segment of each scene.

    Returns:
        (n,) first segment of each window, and (n,) first segment behind it.
    """
    scene = np.searchsorted(scenes, np.arange(len(start_s)), side="right")
    time_s = scene * _APART_S + (start_s + end_s) / 2  # ascending, and far apart at each cut
    return np.searchsorted(time_s, time_s - _AROUND_S), np.searchsorted(time_s, time_s + _AROUND_S, side="right")


def smoothed(scores: Float32, first: npt.NDArray[np.int64], stop: npt.NDArray[np.int64]) -> Float32:
    """Average scores (n,) with the mean of their windows: one bad frame is no absence.

    Args:
        first, stop: (n,) the window of segment i is [first[i], stop[i]).

    >>> smoothed(np.array([0, 4, 2], np.float32), np.array([0, 0, 2]), np.array([2, 2, 3])).tolist()
    [1.0, 3.0, 2.0]
    """
    total = np.concatenate([[0.0], np.cumsum(scores, dtype=np.float64)])
    mean = (total[stop] - total[first]) / np.maximum(stop - first, 1)
    result: Float32 = ((scores + mean) / 2).astype(np.float32)
    return result


def presence_spans(
    presence: Float32,
    start_s: npt.NDArray[np.float64],
    end_s: npt.NDArray[np.float64],
    offsets: npt.NDArray[np.int64],
    *,
    gap_s: float = _GAP_S,
) -> list[Span]:
    """Join the segments with a presence of at least one half to spans.

    Args:
        presence: (n,).
        start_s, end_s: (n,) of the segments.
        offsets: (V + 1,) the segments of video i are [offsets[i], offsets[i + 1]).
        gap_s: absences up to this long do not end a span.

    Returns:
        Spans in order of video and time.

    >>> times = np.arange(6) / 2
    >>> found = presence_spans(np.array([0, 1, 0, 1, 0, 0.6], np.float32), times, times + 0.5, np.array([0, 5, 6]))
    >>> [(span.first, span.last, span.best) for span in found]
    [(1, 3, 1), (5, 5, 5)]
    """
    present = np.flatnonzero(presence >= _PRESENT)
    if not len(present):
        return []
    video = np.searchsorted(offsets, present, side="right")
    apart = (video[1:] != video[:-1]) | (start_s[present[1:]] - end_s[present[:-1]] > gap_s + 1e-6)
    bounds = np.concatenate([[0], np.flatnonzero(apart) + 1, [len(present)]])
    spans = []
    for begin, end in itertools.pairwise(bounds):
        first, last = int(present[begin]), int(present[end - 1])
        part = slice(first, last + 1)
        shown_s = np.maximum(end_s[part] - start_s[part], 1e-6)
        score = float(np.average(presence[part], weights=shown_s))
        spans.append(Span(first=first, last=last, best=first + int(np.argmax(presence[part])), score=score))
    return spans


def hits_of(name: str, prepared: Prepared, *, top: int | None, path_glob: str | None, by_time: bool) -> Hits:
    """Make a hit of each span in which a name is present.

    Args:
        name: a taught name.
        top: most spans; None = all.
        path_glob: only in videos whose name matches, see `SearchOptions`.
        by_time: in order of path and time, not the best first.
    """
    snapshot = prepared.snapshot
    if not len(snapshot):
        return []
    options = SearchOptions(top=top or 1, group="scene", by="mean", path_glob=path_glob)
    spans = presence_spans(prepared.presence(name), snapshot.start_s, snapshot.end_s, snapshot.offsets)
    allowed = allowed_videos(snapshot, options)
    if allowed is not None:
        spans = [span for span in spans if allowed[snapshot.video_of[span.best]]]
    chosen = sorted(spans, key=lambda span: -round(span.score, 6))[:top]
    if by_time:
        chosen = sorted(chosen, key=lambda span: span.first)
    return [_hit(rank, name, span, snapshot) for rank, span in enumerate(chosen, 1)]


def _hit(rank: int, name: str, span: Span, snapshot: Snapshot) -> Hit:
    number, scene = int(snapshot.video_of[span.best]), int(snapshot.scene_of[span.best])
    return Hit(
        rank=rank,
        path=snapshot.paths[number],
        start_s=float(snapshot.start_s[span.first]),
        end_s=float(snapshot.end_s[span.last]),
        score=round(span.score, 6),
        video_id=snapshot.video_ids[number],
        best_s=float(snapshot.start_s[span.best]),
        scene_start_s=float(snapshot.scene_start_s[scene]),
        scene_end_s=float(snapshot.scene_end_s[scene]),
        video_s=float(snapshot.durations_s[number]),
        kind=snapshot.kinds[number],
        names=(name,),
        also_at=tuple(snapshot.paths[copy] for copy in snapshot.copies.get(number, ()) if copy != number),
    )


def presence_bins(
    presence: Float32, start_s: npt.NDArray[np.float64], end_s: npt.NDArray[np.float64], *, count: int
) -> tuple[Float32, float]:
    """Divide the time of one video into bins of equal length, with the highest presence in each.

    Args:
        presence: (n,) of its segments.
        start_s, end_s: (n,) of the segments, ascending.
        count: number of bins.

    Returns:
        (count,) and the seconds of a bin; time 0 is the start of the first bin.

    >>> times = np.arange(4.0)
    >>> presence_bins(np.array([0, 1, 0.5, 0], np.float32), times, times + 1, count=2)
    (array([1. , 0.5], dtype=float32), 2.0)
    """
    step_s = max(float(end_s[-1]), 1e-6) / count
    bins = np.zeros(count, np.float32)
    first = np.clip((start_s / step_s + 1e-6).astype(np.int64), 0, count - 1)
    last = np.clip(np.ceil(end_s / step_s - 1e-6).astype(np.int64) - 1, first, count - 1)
    np.maximum.at(bins, first, presence)
    np.maximum.at(bins, last, presence)
    for segment in np.flatnonzero(last > first + 1):  # longer than a bin
        part = bins[first[segment] + 1 : last[segment]]
        np.maximum(part, presence[segment], out=part)
    return bins, step_s
