"""Caltech-101: `101_ObjectCategories` as published, or class folders below train and test.

The release has no split. Papers draw 30 images a class for training and test on the others; here the draw is always
the same. BACKGROUND_Google is no class, and is left out.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from impart.evaluate.datasets.classification.folder import IMAGE_SUFFIXES, open_known_folder
from impart.evaluate.datasets.reader import Published, Reader
from impart.evaluate.datasets.types import ClassSet

__all__ = ["CALTECH101", "READERS", "open_caltech101"]

CALTECH101 = Published(
    name="caltech101",
    title="Caltech-101",
    splits=("test", "train", "all"),
    files=("101_ObjectCategories, with one folder a class", "or class folders below test and train"),
    home="https://data.caltech.edu/records/mzrjq-6wc02",
)
BACKGROUND = "BACKGROUND_Google"
_RELEASE = "101_ObjectCategories"
_TRAIN_PER_CLASS = 30
_SEED = 0


def open_caltech101(path: Path, split: str | None = None) -> ClassSet:
    """Caltech-101.

    Args:
        path: the folder of the release, or one that holds it, or class folders below `test` and `train`.
        split: `train` (30 images a class) and `test` (the others) are drawn where the release is there; `all`.

    Raises:
        DataError: there is nothing of the kind, or a class has no images.
    """
    wanted = CALTECH101.split(split)
    candidates = (path, path / _RELEASE, path / "caltech-101" / _RELEASE)
    release = next((one for one in candidates if one.name == _RELEASE and one.is_dir()), None)
    if release is None and (path / BACKGROUND).is_dir():
        release = path
    if release is None:
        found = open_known_folder(CALTECH101, path, split, leave_out={BACKGROUND})
        if found is None:
            raise CALTECH101.missing(f"{path} holds no {_RELEASE}, and no class folders below {wanted}")
        return found
    whole = open_known_folder(CALTECH101, release, None, leave_out={BACKGROUND})
    if whole is None:
        raise CALTECH101.missing(f"{release} holds none of the class folders")
    rows, notes = np.arange(len(whole)), list(whole.notes)
    if wanted != "all":
        train = _drawn(whole)
        rows = train if wanted == "train" else np.setdiff1d(rows, train)
        notes.append(f"the release has no split: {_TRAIN_PER_CLASS} images a class drawn (seed {_SEED}) are train")
    background = release / BACKGROUND
    if background.is_dir():
        count = sum(one.suffix.lower() in IMAGE_SUFFIXES for one in background.iterdir())
        notes.append(f"{BACKGROUND} is no class: its {count} images are left out")
    chosen = whole.subset(rows)
    return ClassSet(
        name=f"caltech101/{wanted}",
        images=chosen.images,
        labels=chosen.labels,
        classes=chosen.classes,
        templates=chosen.templates,
        notes=tuple(notes),
    )


def _drawn(whole: ClassSet) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Numbers of the training images, ascending."""
    rng = np.random.default_rng(_SEED)
    parts = [
        rng.permutation(np.flatnonzero(whole.labels == label))[:_TRAIN_PER_CLASS] for label in range(len(whole.classes))
    ]
    return np.sort(np.concatenate(parts))


READERS: tuple[Reader, ...] = (CALTECH101.reader("classes", open_caltech101),)
