"""Read Caltech-101: `101_ObjectCategories` as published, or class folders in `train` and `test`.

The release has no split. Papers draw 30 images per class for training and test on the others; here the draw is fixed.
BACKGROUND_Google is not a class and is left out.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from impart.errors import DataError
from impart.evaluate.datasets.classification.folder import open_known_folder
from impart.evaluate.datasets.reader import DataSetInfo, Reader
from impart.evaluate.datasets.types import ClassSet

__all__ = ["CALTECH101", "READERS", "open_caltech101"]

CALTECH101 = DataSetInfo(
    name="caltech101",
    title="Caltech-101",
    splits=("test", "train", "all"),
    files=("101_ObjectCategories, with one folder per class", "or class folders below test and train"),
    home="https://data.caltech.edu/records/mzrjq-6wc02",
)
BACKGROUND = "BACKGROUND_Google"
_RELEASE = "101_ObjectCategories"
_TRAIN_PER_CLASS = 30
_SEED = 0


def open_caltech101(path: Path, split: str | None = None) -> ClassSet:
    """Open Caltech-101.

    Args:
        path: the folder of the release, the folder above it, or a folder with class folders in `test` and `train`.
        split: `test` (the default), `train` or `all`. In the release, 30 drawn images per class are `train`.

    Raises:
        DataError: no such folder exists, a class has no images, or none is left for `test`.
    """
    wanted = CALTECH101.split(split)
    candidates = (path, path / _RELEASE, path / "caltech-101" / _RELEASE)
    release = next((one for one in candidates if one.name == _RELEASE and one.is_dir()), None)
    if release is None and (path / BACKGROUND).is_dir():
        release = path
    if release is None:
        lacking = f"{_RELEASE}, and no class folders below {wanted}"
        return open_known_folder(CALTECH101, path, split, lacking=lacking, leave_out={BACKGROUND})
    whole = open_known_folder(CALTECH101, release, None, lacking="class folders", leave_out={BACKGROUND})
    rows, notes = np.arange(len(whole)), list(whole.notes)
    if wanted != "all":
        train = _drawn(whole)
        rows = train if wanted == "train" else np.setdiff1d(rows, train)
        if not len(rows):
            raise DataError(
                f"{release} has at most {_TRAIN_PER_CLASS} images per class, which are all train: ask for --split all"
            )
        notes.append(f"the release has no split: train is {_TRAIN_PER_CLASS} images per class, drawn (seed {_SEED})")
    return replace(whole.subset(rows), name=f"caltech101/{wanted}", notes=tuple(notes))


def _drawn(whole: ClassSet) -> npt.NDArray[np.int64]:
    """Draw the numbers of the training images, ascending."""
    rng = np.random.default_rng(_SEED)
    parts = [
        rng.permutation(np.flatnonzero(whole.labels == label))[:_TRAIN_PER_CLASS] for label in range(len(whole.classes))
    ]
    return np.sort(np.concatenate(parts))


READERS: tuple[Reader, ...] = (CALTECH101.reader("classes", open_caltech101),)
