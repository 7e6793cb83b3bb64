"""Matching of faces: tracks within a scene, and the presence of a taught face. Pure functions of arrays.

A face is found in a few frames only. Faces of one person that follow each other in a scene form a track. A track is
present from its first to its last detection. Its distance to a name is the smallest distance of one of its descriptors
to one of the name's. Presence is a logistic function of the distance, one half at `SAME_PERSON`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from impart.encoders.base import Float32

__all__ = ["SAME_PERSON", "combine", "example_faces", "face_presence", "tracks"]

SAME_PERSON = 0.6
"""Distance of the descriptors below which two faces are of one person, as published with the network."""

_SAME_TRACK = 0.5
_GAP_S = 3.0  # between two detections of a track
_WIDTH = 0.03
_PIECE = 65_536  # faces compared at once


def tracks(
    descriptors: npt.NDArray[np.floating], times_s: npt.NDArray[np.float64], scenes: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Join faces of one person that follow each other in a scene.

    Args:
        descriptors: (f, 128).
        times_s: (f,) ascending within a scene.
        scenes: (f,) number of each face's scene, ascending.

    Returns:
        (f,) number of the track of each face.

    >>> one, other = np.zeros(128), np.ones(128)
    >>> tracks(np.array([one, other, one, one]), np.array([0.0, 0.0, 1.0, 9.0]), np.zeros(4, np.int64)).tolist()
    [0, 1, 0, 2]
    """
    result = np.zeros(len(times_s), np.int64)
    open_tracks: list[tuple[int, int]] = []  # (track, its last face) of this scene
    count = 0
    for face in range(len(times_s)):
        if face and scenes[face] != scenes[face - 1]:
            open_tracks = []
        near = [
            (float(np.linalg.norm(descriptors[face] - descriptors[last])), place)
            for place, (_, last) in enumerate(open_tracks)
            if 0 < times_s[face] - times_s[last] <= _GAP_S
        ]
        distance, place = min(near, default=(np.inf, -1))
        if distance < _SAME_TRACK:
            result[face] = open_tracks[place][0]
            open_tracks[place] = (int(result[face]), face)
        else:
            result[face] = count
            open_tracks.append((count, face))
            count += 1
    return result


def face_presence(descriptors: npt.NDArray[np.floating], examples: npt.NDArray[np.floating]) -> Float32:
    """Compute the presence (f,) of a taught person in faces (f, 128).

    Args:
        examples: (m, 128) faces of the name's images; m = 0 gives zeros.

    >>> faces = np.array([[0.0] * 128, [1.0] * 128])
    >>> face_presence(faces, faces[:1]).round(2).tolist()
    [1.0, 0.0]
    """
    result = np.zeros(len(descriptors), np.float32)
    if not len(examples):
        return result
    taught = np.asarray(examples, np.float32)
    for first in range(0, len(descriptors), _PIECE):
        part = np.asarray(descriptors[first : first + _PIECE], np.float32)
        squares = (part**2).sum(1)[:, None] + (taught**2).sum(1)[None] - 2 * part @ taught.T
        distance = np.sqrt(squares.clip(min=0)).min(axis=1)
        result[first : first + len(part)] = 1 / (1 + np.exp(np.clip((distance - SAME_PERSON) / _WIDTH, -50, 50)))
    return result


def example_faces(per_image: list[npt.NDArray[np.floating]]) -> Float32:
    """Choose the face of the named person in each of its images.

    Args:
        per_image: m arrays (f, 128), largest face first; f may be 0.

    Returns:
        (c, 128): of each image with faces the one that is nearest to a face of another image; the largest, where no
        other image has one within `SAME_PERSON`.
    """
    chosen = []
    for number, faces in enumerate(per_image):
        if not len(faces):
            continue
        others = [other for place, other in enumerate(per_image) if place != number and len(other)]
        best = 0
        if others:
            among = np.linalg.norm(faces[:, None] - np.concatenate(others)[None], axis=2).min(axis=1)
            best = int(among.argmin()) if among.min() < SAME_PERSON else 0
        chosen.append(faces[best])
    return np.array(chosen, np.float32).reshape(-1, 128)


def combine(frames: Float32, faces: Float32) -> Float32:
    """Combine two presences (n,): of a name in whole frames, and of its face. Either one is enough.

    >>> combine(np.array([0.5, 0.0], np.float32), np.array([0.5, 1.0], np.float32)).tolist()
    [0.75, 1.0]
    """
    combined: Float32 = (1 - (1 - frames) * (1 - faces)).astype(np.float32)
    return combined
