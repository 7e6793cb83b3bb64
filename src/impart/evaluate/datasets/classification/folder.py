"""Read class folders: one sub-folder of images per class, of any images or of a published data set.

A published set has built-in class names and prompts. For other folders the class names are those of the sub-folders as
words (`impart.readers.names.folder_texts`). If these are codes (`n01443537`) or numbers, `classes.csv` in the folder or
beside it gives the names (first column the code, column `name` the name), or `classnames.txt` (one name per line).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from impart.errors import DataError
from impart.evaluate.datasets.names import class_names_by_folder, templates
from impart.evaluate.datasets.reader import OWN_FILES, DataSetInfo, Reader
from impart.evaluate.datasets.types import ClassSet, Images
from impart.readers.folders import SIDECAR_TABLES, FolderNames, ImageFiles
from impart.readers.names import equal_names, label_text
from impart.readers.sample import IMAGE_SUFFIXES

__all__ = ["READERS", "open_class_folder", "open_known_folder", "split_folder"]

FOLDER = DataSetInfo(
    name="folder",
    title="A class folder",
    splits=(),
    files=("one sub-folder of images per class", "classes.csv beside them if the names of the sub-folders are codes"),
    home=OWN_FILES,
)
_OTHER_NAMES = {"val": ("valid", "validation"), "test": ("testing",), "train": ("training",)}


@dataclass(frozen=True, kw_only=True)
class _Listing:
    """Sub-folders and image files of a class folder."""

    folders: tuple[str, ...]  # C, sorted
    files: list[Path]  # n
    labels: npt.NDArray[np.int64]  # (n,)
    notes: tuple[str, ...]


def open_class_folder(path: Path | str, split: str | None = None, *, name: str | None = None) -> ClassSet:
    """Open a class folder.

    Args:
        path: the folder with one sub-folder per class, or, with a split, the folder above it.
        split: name of the class folder in `path`.
        name: name in reports; defaults to the last two parts of the path.

    Raises:
        DataError: the folder is missing or empty, a class has no images, or `classes.csv` has no name for it.
    """
    folder = split_folder(Path(path), split)
    if split is not None and folder is None:
        raise DataError(f"{path} has no sub-folder {split!r}: give another split, or the class folder itself")
    folder = folder or Path(path)
    listing = _list(folder)
    classes, notes = _class_names(folder, listing.folders)
    return ClassSet(
        name=name or "/".join(folder.resolve().parts[-2:]),
        images=Images.of_files(listing.files),
        labels=listing.labels,
        classes=classes,
        notes=(*listing.notes, *notes),
    )


def open_known_folder(
    info: DataSetInfo, path: Path, split: str | None, *, lacking: str, leave_out: Collection[str] = ()
) -> ClassSet:
    """Open a published set as class folders: `path/<split>/<class>`, or `path/<class>` for no given split.

    Args:
        info: the set; its name selects the built-in class names.
        path: the folder.
        split: None = the default split, if there is a folder of that name.
        lacking: the published files that `path` does not have either, for the message.
        leave_out: sub-folders that are not classes.

    Returns:
        The set, with the classes that have a folder.

    Raises:
        DataError: there are no class folders, or a class has no images.
    """
    folder = split_folder(path, split or info.splits[0])
    known = {_loose(key): name for key, name in class_names_by_folder(info.name).items()}
    if folder is None and path.is_dir() and split in (None, path.name):
        folder = path if any(_loose(one.name) in known for one in path.iterdir() if one.is_dir()) else None
    if folder is None:
        raise info.missing(f"{path} has no {lacking}")
    listing = _list(folder, leave_out=leave_out)
    strange = [one for one in listing.folders if _loose(one) not in known]
    notes = list(listing.notes)
    if strange:
        notes.append(f"{len(strange)} class folders have no built-in name and keep their own, first {strange[0]}")
    if len(listing.folders) < len(known):
        notes.append(f"{len(listing.folders)} of {len(known)} classes have a folder: figures are over these")
    return ClassSet(
        name=f"{info.name}/{path.name if folder == path else split or info.splits[0]}",
        images=Images.of_files(listing.files),
        labels=listing.labels,
        classes=tuple(known.get(_loose(one)) or label_text(one) for one in listing.folders),
        templates=templates(info.name),
        notes=tuple(notes),
    )


def split_folder(path: Path, split: str | None) -> Path | None:
    """Find the sub-folder of a split, under one of its usual names; it must have sub-folders itself."""
    if split is None:
        return None
    candidates = (path / name for name in (split, *_OTHER_NAMES.get(split, ())))
    return next((one for one in candidates if one.is_dir() and any(sub.is_dir() for sub in one.iterdir())), None)


def _list(folder: Path, *, leave_out: Collection[str] = ()) -> _Listing:
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: expected one sub-folder of images a class")
    subfolders = sorted(one for one in folder.iterdir() if one.is_dir() and not one.name.startswith("."))
    unwanted = {_loose(name) for name in leave_out}
    no_classes = [one for one in subfolders if _loose(one.name) in unwanted]
    subfolders = [one for one in subfolders if one not in no_classes]
    if not subfolders:
        raise DataError(f"{folder} has no sub-folders: expected one sub-folder of images a class")
    files: list[Path] = []
    labels: list[int] = []
    deep: list[Path] = []
    others: Counter[str] = Counter()
    tables = [folder / name for name in SIDECAR_TABLES if (folder / name).is_file()]
    for number, subfolder in enumerate(subfolders):
        listing = ImageFiles.below(subfolder)
        found = [one for one in listing.files if one.parent == subfolder]
        deep += [one for one in listing.files if one.parent != subfolder]
        others += listing.others
        tables += listing.tables
        if not found:
            deeper = any(one.is_dir() for one in subfolder.iterdir())
            remedy = f"if {subfolder.name} is a split, ask for it (--split)" if deeper else "remove it or fill it"
            raise DataError(f"class folder {subfolder} has no images: {remedy}")
        files += found
        labels += [number] * len(found)
    loose = [one for one in folder.iterdir() if one.suffix.lower() in IMAGE_SUFFIXES and not one.name.startswith(".")]
    beside = [f"{len(loose)} images beside the class folders are left out"] if loose else []
    notes = [f"{len(deep)} images below the class folders are left out, first {deep[0]}"] if deep else []
    for one in no_classes:
        notes.append(f"{one.name} is not a class: its {len(ImageFiles.below(one).files)} images are left out")
    return _Listing(
        folders=tuple(one.name for one in subfolders),
        files=files,
        labels=np.asarray(labels, dtype=np.int64),
        notes=(*notes, *beside, *ImageFiles([], others, tables).notes()),
    )


def _class_names(folder: Path, folders: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the class names, and notes on them."""
    found = FolderNames.find(folder, folders)
    names = tuple(found.texts[one] for one in folders)
    if not found.codes:
        return names, equal_names(names)
    coded = f"{len(found.codes)} classes are named by a number or code alone, first {found.codes[0]!r}: add classes.csv"
    return names, (*equal_names(names), coded)


def _loose(name: str) -> str:
    """Normalise a key, since archives and file systems spell it differently: `F-16A/B`, `F-16A_B`."""
    return re.sub(r"[^a-z0-9]+", " ", name.lower()).strip()


READERS: tuple[Reader, ...] = (FOLDER.reader("classes", open_class_folder),)
