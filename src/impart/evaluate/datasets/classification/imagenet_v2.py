"""Read ImageNet-V2: folders numbered 0 to 999, in the order of the classes of ImageNet-1k.

The numbers are class numbers. Sorted as texts (0, 1, 10, 100, ...) they give other classes: top-1 is then near zero.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from impart.evaluate.datasets.names import class_names, templates
from impart.evaluate.datasets.reader import DataSetInfo, Reader
from impart.evaluate.datasets.types import ClassSet, Images
from impart.readers.sample import IMAGE_SUFFIXES

__all__ = ["IMAGENET_V2", "READERS", "has_numbered_classes", "open_imagenet_v2"]

IMAGENET_V2 = DataSetInfo(
    name="imagenet-v2",
    title="ImageNet-V2",
    splits=("matched-frequency", "threshold0.7", "top-images"),
    files=(
        "imagenetv2-matched-frequency.tar.gz unpacked: imagenetv2-matched-frequency-format-val/<0 to 999>/*.jpeg",
        "or imagenetv2-threshold0.7-format-val, imagenetv2-top-images-format-val",
    ),
    home="https://github.com/modestyachts/ImageNetV2",
)
_CLASSES = 1000


def has_numbered_classes(path: Path) -> bool:
    """Whether the sub-folders of a folder are all class numbers from 0 to 999."""
    names = [one.name for one in path.iterdir() if one.is_dir() and not one.name.startswith(".")]
    return bool(names) and all(name.isascii() and name.isdigit() and int(name) < _CLASSES for name in names)


def open_imagenet_v2(path: Path, split: str | None = None) -> ClassSet:
    """Open one of the three test sets of ImageNet-V2 (Recht et al. 2019), with the names of ImageNet's classes.

    Args:
        path: the folder with the numbered folders, or the folder above it.
        split: None = the one that `path` is, else `matched-frequency`.

    Raises:
        DataError: there are no numbered folders, or they have no images.
    """
    own = next((one for one in IMAGENET_V2.splits if one in path.name), None)
    wanted = IMAGENET_V2.split(split if split is not None else own)
    names = (f"imagenetv2-{wanted}-format-val", f"imagenetv2-{wanted}", wanted)
    places = [path / name for name in names] + ([path] if split is None or own == split else [])
    folder = next((one for one in places if one.is_dir() and has_numbered_classes(one)), None)
    if folder is None:
        raise IMAGENET_V2.missing(f"{path} has no {names[0]} with folders named 0 to 999")
    files: list[Path] = []
    labels: list[int] = []
    for sub in sorted((one for one in folder.iterdir() if one.name.isdigit()), key=lambda one: int(one.name)):
        found = sorted(one for one in sub.iterdir() if one.suffix.lower() in IMAGE_SUFFIXES)
        files += found
        labels += [int(sub.name)] * len(found)
    if not files:
        raise IMAGENET_V2.missing(f"the folders of {folder} have no images")
    there = len(set(labels))
    notes = (f"{there} of {_CLASSES} classes have images: all names are candidates",) if there < _CLASSES else ()
    return ClassSet(
        name=f"imagenet-v2/{wanted}",
        images=Images.of_files(files),
        labels=np.asarray(labels, dtype=np.int64),
        classes=class_names("imagenet"),
        templates=templates("imagenet"),
        notes=notes,
    )


READERS: tuple[Reader, ...] = (IMAGENET_V2.reader("classes", open_imagenet_v2),)
