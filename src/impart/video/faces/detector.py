"""Detection of faces and their descriptors, with dlib (extra `faces`).

The detector is dlib's histogram of oriented gradients. Faces are aligned by five landmarks, and a residual network
computes 128 numbers (King 2009; King 2017, dlib_face_recognition_resnet_model_v1). Two images show the same person
where the Euclidean distance of their descriptors is below about 0.6. The descriptors are not unit vectors.

Missed, with dlib 20.0.1: faces below about 40 pixels, in profile, or turned by more than about 15 degrees.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from impart.encoders.base import Float32
from impart.errors import MissingExtraError

__all__ = ["Face", "find_faces"]

_UPSAMPLED = 1  # times that the image is doubled first: the smallest face is 80 pixels without it
_LOWEST_SCORE = 0.0  # of the detector


@dataclass(frozen=True, kw_only=True)
class Face:
    """A face in an image.

    Attributes:
        box: (4,) x0, y0, x1, y1 as fractions of width and height.
        descriptor: (128,) float32; compared by Euclidean distance.
    """

    box: Float32
    descriptor: Float32


def find_faces(image: npt.NDArray[np.uint8]) -> list[Face]:
    """Find the faces of an image.

    Args:
        image: (h, w, 3) RGB.

    Raises:
        MissingExtraError: dlib or its models are not installed.
    """
    detector, landmarks, network = _models()
    pixels = np.ascontiguousarray(image)  # dlib takes no other arrays
    height, width = pixels.shape[:2]
    boxes, _, _ = detector.run(pixels, _UPSAMPLED, _LOWEST_SCORE)
    faces = []
    for box in boxes:
        descriptor = np.array(network.compute_face_descriptor(pixels, landmarks(pixels, box)), np.float32)
        fractions = np.array(
            [box.left() / width, box.top() / height, (box.right() + 1) / width, (box.bottom() + 1) / height], np.float32
        )
        faces.append(Face(box=fractions.clip(0, 1), descriptor=descriptor))
    return faces


@cache
def _models() -> tuple[Any, Any, Any]:
    """Load detector, landmarks and network; about 0.3 s."""
    try:
        import dlib
    except ImportError as error:
        raise MissingExtraError("dlib-bin", extra="faces", purpose="finding faces") from error
    # The package itself imports `pkg_resources`, which newer setuptools no longer have: only its files are used.
    found = importlib.util.find_spec("face_recognition_models")
    if found is None or found.origin is None:
        raise MissingExtraError("face_recognition_models", extra="faces", purpose="finding faces")
    folder = Path(found.origin).parent / "models"
    return (
        dlib.get_frontal_face_detector(),
        dlib.shape_predictor(str(folder / "shape_predictor_5_face_landmarks.dat")),
        dlib.face_recognition_model_v1(str(folder / "dlib_face_recognition_resnet_model_v1.dat")),
    )
