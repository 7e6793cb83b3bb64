"""Presence of a taught name in parts of the frames: the z-scores of the crops of an index.

A frame has five parts, and a part shows more kinds of things than a whole frame: the best of five unrelated parts has a
higher z-score than an unrelated frame. So the parts need a z-score that is higher by a margin.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from impart.encoders.base import Float32
from impart.files import blake2b_hex
from impart.video.crops.store import PARTS, CropStore
from impart.video.names.presence import Background, Detector
from impart.video.search.snapshot import Snapshot
from impart.video.search.state.kept import kept_array

__all__ = ["KnownCrops"]

# Chosen on 264 rendered images of 24 things: with it false alarms are about as rare as without crops (6 of 6,192, not
# 5), and 16 of 72 small things are found, in place of 1.
_MARGIN_Z = 2.0
_MOST_OF_CUT = 0.4  # a narrow embedding reaches no high z-score
_NONE_Z = -1000.0  # of segments without crops: no presence, also where it is averaged
_ROWS = 4096  # segments at once


class KnownCrops:
    """The crops of an index, placed among its segments. Their vectors are read again for each name.

    Attributes:
        state: of the store when this was made.
        snapshot: of the index.
    """

    def __init__(self, store: CropStore, snapshot: Snapshot) -> None:
        self.state = store.state()
        self.snapshot = snapshot
        self._store = store
        self._videos: list[tuple[int, str]] = []  # number and key
        self._lengths: tuple[str, Float32] | None = None  # of the background with this digest
        for key in sorted(store.known()):
            video_id, _, revision = key.rpartition("-")
            number = snapshot.number_of.get(video_id)
            # A video that was read in part has its id in place of a revision.
            revisions = snapshot.revisions
            if number is not None and (not revisions or revisions[number] in (revision, video_id)):
                self._videos.append((number, key))

    def z_scores(self, detector: Detector) -> Float32:
        """Compute the z-scores (n,) of the segments: of the best part, less the margin; very low without crops."""
        result = np.full(len(self.snapshot), _NONE_Z, np.float32)
        lengths = self._lengths_by(detector.background)
        margin = min(_MARGIN_Z, _MOST_OF_CUT * detector.cut_z)
        for segments, rows in self._pieces():
            scores = detector.z_scores(rows.reshape(-1, rows.shape[2]), lengths[segments].reshape(-1))
            result[segments] = scores.reshape(-1, PARTS).max(axis=1) - margin
        return result

    def _lengths_by(self, background: Background) -> Float32:
        """Return the lengths (n, 5) of the whitened crops, see `Background.lengths`; 1 without crops."""
        if self._lengths is None or self._lengths[0] != background.digest:
            name = f"crops-{blake2b_hex(self.state, size_bytes=8)}-{background.digest}"
            shape = (len(self.snapshot), PARTS)
            lengths = kept_array(self._store.index, self.snapshot, name, shape, lambda: self._made(background))
            self._lengths = (background.digest, lengths)
        return self._lengths[1]

    def _made(self, background: Background) -> Float32:
        lengths = np.ones((len(self.snapshot), PARTS), np.float32)
        for segments, rows in self._pieces():
            lengths[segments] = background.lengths(rows.reshape(-1, rows.shape[2])).reshape(-1, PARTS)
        return lengths

    def _pieces(self) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float16]]]:
        """Yield segments (b,) and their crops (b, 5, R), of many videos at once where these are short."""
        offsets, width = self.snapshot.offsets, self.snapshot.manifest.retrieval_dim
        segments: list[npt.NDArray[np.int64]] = []
        pieces: list[npt.NDArray[np.float16]] = []
        for number, key in self._videos:
            own = np.arange(offsets[number], offsets[number + 1])
            rows = self._store.load(key)
            if rows is None or rows.shape != (len(own), PARTS, width):  # removed meanwhile
                continue
            for first in range(0, len(own), _ROWS):
                segments.append(own[first : first + _ROWS])
                pieces.append(np.array(rows[first : first + _ROWS]))
                if sum(map(len, segments)) >= _ROWS:
                    yield np.concatenate(segments), np.concatenate(pieces)
                    segments, pieces = [], []
        if segments:
            yield np.concatenate(segments), np.concatenate(pieces)
