"""Presence of a taught face in the segments of an index: from faces in single frames to spans of segments."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from impart.encoders.base import Float32
from impart.video.faces.matching import combine, example_faces, face_presence, tracks
from impart.video.faces.store import FaceStore, VideoFaces
from impart.video.search.snapshot import Snapshot

__all__ = ["FaceTracks", "KnownFaces"]


class FaceTracks:
    """The faces of an index, joined to tracks and placed among its segments.

    Args:
        faces: of the index; those of videos that changed since are left out.
        snapshot: of the index.
    """

    def __init__(self, faces: VideoFaces, snapshot: Snapshot) -> None:
        self._count = len(snapshot)
        number = {video_id: i for i, video_id in enumerate(snapshot.video_ids)}
        rows, segments = [], []  # f each
        for row, (video_id, revision) in enumerate(faces.keys):
            video = number.get(video_id)
            if video is None or (snapshot.revisions and snapshot.revisions[video] not in (revision, video_id)):
                continue
            first, stop = int(snapshot.offsets[video]), int(snapshot.offsets[video + 1])
            starts = snapshot.start_s[first:stop]
            rows.append(row)
            begin, end = np.searchsorted(starts, [faces.start_s[row] + 1e-6, faces.end_s[row] - 1e-6], side="right") - 1
            segments.append((first + max(0, int(begin)), first + max(0, int(begin), int(end))))
        place = np.array(segments, np.int64).reshape(-1, 2)
        order = np.lexsort((faces.start_s[rows], place[:, 0]))
        self._descriptors = faces.descriptors[rows][order]
        place = place[order]
        scene = snapshot.scene_of[place[:, 0]] if len(place) else np.zeros(0, np.int64)
        self._track = tracks(self._descriptors, faces.start_s[rows][order], scene)
        count = int(self._track.max()) + 1 if len(place) else 0
        self._first = np.full(count, len(snapshot), np.int64)
        self._last = np.zeros(count, np.int64)
        np.minimum.at(self._first, self._track, place[:, 0])
        np.maximum.at(self._last, self._track, place[:, 1])

    def __len__(self) -> int:
        return len(self._first)

    def presence(self, examples: npt.NDArray[np.floating]) -> Float32:
        """Compute the presence (n,) of a person in the segments.

        Args:
            examples: (m, 128) descriptors of the person's faces.
        """
        result = np.zeros(self._count, np.float32)
        best = np.zeros(len(self._first), np.float32)
        np.maximum.at(best, self._track, face_presence(self._descriptors, examples))
        for track in np.flatnonzero(best > 0.01):
            part = slice(int(self._first[track]), int(self._last[track]) + 1)
            np.maximum(result[part], best[track], out=result[part])
        return result


class KnownFaces:
    """The faces of an index and of the images of its names, read once per change of either.

    Attributes:
        state: of the store when they were read.
        snapshot: of the index.
    """

    def __init__(self, store: FaceStore, snapshot: Snapshot) -> None:
        self.state = store.state()
        self.snapshot = snapshot
        self._tracks = FaceTracks(store.videos(), snapshot)
        self._examples = store.examples()

    def combined(self, in_frames: Float32, hashes: Sequence[str]) -> Float32:
        """Combine the presence (n,) of a name in whole frames with that of its face.

        Args:
            hashes: of the name's images.
        """
        examples = example_faces([self._examples[one] for one in hashes if one in self._examples])
        return combine(in_frames, self._tracks.presence(examples)) if len(examples) else in_frames
