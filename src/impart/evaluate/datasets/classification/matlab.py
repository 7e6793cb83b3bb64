"""Read classification sets with labels in MATLAB files: Stanford Cars and Oxford Flowers-102."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from impart.errors import DataError, MissingExtraError
from impart.evaluate.datasets.annotations import Malformed
from impart.evaluate.datasets.classification.folder import open_known_folder
from impart.evaluate.datasets.image_files import ImageFinder, class_set, find_root
from impart.evaluate.datasets.names import class_names_by_folder
from impart.evaluate.datasets.reader import DataSetInfo, Reader
from impart.evaluate.datasets.types import ClassSet

__all__ = ["CARS", "FLOWERS", "READERS", "open_cars", "open_flowers"]

CARS = DataSetInfo(
    name="cars",
    title="Stanford Cars",
    splits=("test", "train"),
    files=(
        "cars_test_annos_withlabels.mat, or devkit/cars_train_annos.mat for the split train",
        "cars_test/00001.jpg and cars_train/00001.jpg",
        "or class folders below test and train",
    ),
    home="https://ai.stanford.edu/~jkrause/cars/car_dataset.html",
)
FLOWERS = DataSetInfo(
    name="flowers102",
    title="Oxford Flowers-102",
    splits=("test", "val", "train"),
    files=("imagelabels.mat", "setid.mat", "102flowers.tgz unpacked: jpg/image_00001.jpg", "or class folders"),
    home="https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",
)
_SET_IDS = {"test": "tstid", "val": "valid", "train": "trnid"}


def open_cars(path: Path, split: str | None = None) -> ClassSet:
    """Open Stanford Cars, from the annotations of its development kit or from class folders."""
    wanted = CARS.split(split)
    marker = {"test": "cars_test_annos_withlabels.mat", "train": "cars_train_annos.mat"}[wanted]
    root = find_root(path, ("", "devkit", "stanford_cars", "stanford_cars/devkit"), marker)
    if root is None:
        return open_known_folder(CARS, path, split, lacking=marker)
    file = root / marker
    keys = tuple(class_names_by_folder("cars"))
    rows = _mat(file, "annotations")
    images = f"cars_{wanted}"
    finder = ImageFinder(folders=(root / images, root.parent / images, path / images, root), source=file)

    def listed() -> Iterator[tuple[str, str]]:
        for row in rows:
            try:
                name, number = str(row["fname"]), int(row["class"])
            except (KeyError, IndexError, ValueError, TypeError) as error:
                raise DataError(f"{file}: annotations without fname or class: it is not the labelled file") from error
            yield name, _key(keys, number, file)

    return class_set(CARS, wanted, listed(), finder, Malformed(file, ""))


def open_flowers(path: Path, split: str | None = None) -> ClassSet:
    """Open Flowers-102, from `imagelabels.mat` and the splits of `setid.mat`, or from class folders."""
    wanted = FLOWERS.split(split)
    root = find_root(path, ("", "flowers-102", "102flowers"), "setid.mat")
    if root is None:
        return open_known_folder(FLOWERS, path, split, lacking="setid.mat")
    file = root / "imagelabels.mat"
    if not file.is_file():
        raise FLOWERS.missing(f"{root} has no imagelabels.mat")
    labels = _mat(file, "labels").tolist()
    keys = tuple(class_names_by_folder("flowers102"))
    finder = ImageFinder(folders=(root / "jpg", path / "jpg", root), source=root / "setid.mat")

    def listed() -> Iterator[tuple[str, str]]:
        for number in _mat(root / "setid.mat", _SET_IDS[wanted]).tolist():
            if not 1 <= number <= len(labels):
                raise DataError(f"{root / 'setid.mat'}: image {number} of {len(labels)}: download it again")
            yield f"image_{number:05d}.jpg", _key(keys, labels[number - 1], file)

    return class_set(FLOWERS, wanted, listed(), finder, Malformed(file, ""))


def _key(keys: tuple[str, ...], number: int, file: Path) -> str:
    """Return the key of a class; `number` counts from 1."""
    if not 1 <= number <= len(keys):
        raise DataError(f"{file}: class {number} of {len(keys)}: download it again")
    return keys[number - 1]


def _mat(file: Path, variable: str) -> np.ndarray[Any, Any]:
    """Read one variable of a MATLAB file as a flat array."""
    try:
        import scipy.io
        from scipy.io.matlab import MatReadError
    except ImportError as error:
        raise MissingExtraError("scipy", extra="eval", purpose=f"reading {file.name}") from error
    try:
        content = scipy.io.loadmat(file, squeeze_me=True, variable_names=[variable])
    except (
        MatReadError, OSError, ValueError, TypeError, LookupError, EOFError, NotImplementedError, zlib.error
    ) as error:  # fmt: skip
        raise DataError(f"{file} is damaged or no MATLAB file ({error}): download it again") from error
    if variable not in content:
        raise DataError(f"{file} has no variable {variable!r}: download it again")
    return np.atleast_1d(content[variable]).ravel()


READERS: tuple[Reader, ...] = (CARS.reader("classes", open_cars), FLOWERS.reader("classes", open_flowers))
