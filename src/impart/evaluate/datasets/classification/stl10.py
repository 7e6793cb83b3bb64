"""Read STL-10: the binary files as published (96 x 96 px; red, green and blue planes, in column-major order)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from impart.errors import DataError
from impart.evaluate.datasets.classification.folder import open_known_folder
from impart.evaluate.datasets.image_files import find_root
from impart.evaluate.datasets.names import class_names, templates
from impart.evaluate.datasets.reader import DataSetInfo, Reader
from impart.evaluate.datasets.types import ClassSet, Images
from impart.files import digest_of, file_stamp
from impart.images import load_image

__all__ = ["READERS", "STL10", "open_stl10"]

STL10 = DataSetInfo(
    name="stl10",
    title="STL-10",
    splits=("test", "train"),
    files=("stl10_binary.tar.gz unpacked: test_X.bin, test_y.bin, train_X.bin, train_y.bin", "or class folders"),
    home="https://cs.stanford.edu/~acoates/stl10/",
)
_SIDE_PX = 96
_BYTES = 3 * _SIDE_PX**2


def open_stl10(path: Path, split: str | None = None) -> ClassSet:
    """Open one split of STL-10, from its binary files or from class folders.

    Raises:
        DataError: files are missing or have a wrong size, or a label is not a class.
    """
    wanted = STL10.split(split)
    root = find_root(path, ("", "stl10_binary"), f"{wanted}_X.bin")
    if root is None:
        return open_known_folder(STL10, path, split, lacking=f"{wanted}_X.bin")
    pixels_file, labels_file = root / f"{wanted}_X.bin", root / f"{wanted}_y.bin"
    if not labels_file.is_file():
        raise STL10.missing(f"{root} has no {labels_file.name}")
    classes = class_names("stl10")
    try:
        labels = np.fromfile(labels_file, dtype=np.uint8).astype(np.int64) - 1  # the file counts from 1
        if not len(labels) or pixels_file.stat().st_size != len(labels) * _BYTES:
            raise DataError(f"{pixels_file} does not hold the {len(labels)} images of {labels_file.name}: damaged")
        pixels = np.memmap(pixels_file, dtype=np.uint8, mode="r", shape=(len(labels), 3, _SIDE_PX, _SIDE_PX))
    except OSError as error:
        raise DataError(f"cannot read {error.filename or root}: {error.strerror}") from error
    if not 0 <= labels.min() <= labels.max() < len(classes):
        raise DataError(f"{labels_file}: labels from {labels.min() + 1} to {labels.max() + 1}, 1 to 10 expected")
    return ClassSet(
        name=f"stl10/{wanted}",
        images=Images(
            keys=tuple(f"{pixels_file.name}[{number}]" for number in range(len(labels))),
            read=lambda number: load_image(
                np.ascontiguousarray(pixels[number].transpose(2, 1, 0)),  # (3, column, row) -> (row, column, 3)
                max_megapixels=1.0,
            ),
            identity=lambda: digest_of([file_stamp(pixels_file), file_stamp(labels_file)]),
        ),
        labels=labels,
        classes=classes,
        templates=templates("stl10"),
    )


READERS: tuple[Reader, ...] = (STL10.reader("classes", open_stl10),)
