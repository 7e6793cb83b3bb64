"""Faces in the images of taught names, read again from their sources in full size."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from impart.encoders.base import Float32
from impart.errors import ImpartError
from impart.images import load_image
from impart.video.faces.detector import find_faces
from impart.video.faces.finding import SHORT_SIDE_PX
from impart.video.names.stills import still_at
from impart.video.names.store import TaughtNames
from impart.video.search.hits import parse_moment

__all__ = ["faces_of_examples"]

_LARGEST_PX = 2 * SHORT_SIDE_PX


def faces_of_examples(taught: TaughtNames, known: Mapping[str, Float32]) -> dict[str, Float32]:
    """Find the faces in the images of all names.

    An image whose source is gone is replaced by its small copy in the index.

    Args:
        known: faces found before, by the hash of the image; images that no name has any more are left out.

    Returns:
        By the hash of the image, (f, 128) descriptors, largest face first; f may be 0.
    """
    result: dict[str, Float32] = {}
    for name in taught.names:
        for source, digest in zip(taught.column(name, "path"), taught.column(name, "hash"), strict=True):
            if digest not in result:
                result[digest] = known[digest] if digest in known else _faces(source, taught.thumbnail(digest))
    return result


def _faces(source: str, thumbnail: Path | None) -> Float32:
    image = _image(source)
    if image is None and thumbnail is not None:
        image = _image(str(thumbnail))
    faces = find_faces(image) if image is not None else []
    faces.sort(key=lambda face: float(face.box[0] - face.box[2]))
    return np.array([face.descriptor for face in faces], np.float32).reshape(-1, 128)


def _image(source: str) -> npt.NDArray[np.uint8] | None:
    """Read a file or a moment; None where it is gone."""
    path = Path(source)
    try:
        if not path.is_file() and "@" in path.name:
            file, at_s = parse_moment(source)
            return still_at(Path(file), at_s, short_side_px=SHORT_SIDE_PX)
        image = load_image(path)[0]
    except (ImpartError, OSError):
        return None
    image.thumbnail((_LARGEST_PX, _LARGEST_PX))
    return np.asarray(image)
