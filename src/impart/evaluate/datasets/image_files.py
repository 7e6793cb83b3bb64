"""Find the annotation file of a data set and the images that it names, and make sets of them.

Missing images are left out and counted; a set without any image is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from impart.errors import DataError
from impart.evaluate.datasets.annotations import Malformed
from impart.evaluate.datasets.names import class_names, class_names_by_folder, templates
from impart.evaluate.datasets.reader import DataSetInfo
from impart.evaluate.datasets.types import CaptionSet, ClassSet, Images
from impart.readers.names import is_code

__all__ = [
    "ImageFinder",
    "annotation_file",
    "caption_set",
    "captions_in_words",
    "class_set",
    "code_notes",
    "find_root",
    "optional_annotation",
    "own_table",
    "split_in_name",
]


@dataclass
class ImageFinder:
    """Finds images by the names in an annotation file, in the first folder that contains them.

    Attributes:
        folders: folders to search, the most likely first.
        source: the annotation file, for messages.
        missing: names not found, in order.
    """

    folders: tuple[Path, ...]
    source: Path
    missing: dict[str, None] = field(default_factory=dict)
    _found: dict[str, Path | None] = field(default_factory=dict)
    _last: int = 0

    @classmethod
    def near(cls, source: Path, *names: str) -> ImageFinder:
        """Search the folders of these names beside the annotation file, then beside its folder."""
        roots = (source.parent, source.parent.parent)
        return cls(folders=tuple(root / name for root in roots for name in names), source=source)

    def find(self, name: str) -> Path | None:
        """Return the image of this name, or None; a missing name is counted once."""
        if name not in self._found:
            order = (self._last, *(number for number in range(len(self.folders)) if number != self._last))
            here = next((number for number in order if (self.folders[number] / name).is_file()), None)
            self._found[name] = None if here is None else self.folders[here] / name
            if here is None:
                self.missing[name] = None
            else:
                self._last = here
        return self._found[name]

    def notes(self) -> tuple[str, ...]:
        """Return a note with the number of missing images, or no note if there is none.

        Raises:
            DataError: all images are missing.
        """
        if not self.missing:
            return ()
        first = next(iter(self.missing))
        if len(self.missing) == len(self._found):
            searched = ", ".join(str(folder) for folder in self.folders)
            raise DataError(
                f"none of the {len(self.missing)} images that {self.source} names is there, first {first}: "
                f"searched {searched}"
            )
        return (f"{len(self.missing)} of {len(self._found)} images are missing and left out, first {first}",)


def optional_annotation(path: Path, name: str) -> Path | None:
    """Find an annotation file in a folder or its sub-folders; `path` may also be the file itself."""
    if path.is_file():
        return path if path.name == name else None
    if not path.is_dir():
        return None
    candidates = [path / name, path / "annotations" / name]
    candidates += [folder / name for folder in sorted(path.iterdir()) if folder.is_dir()]
    return next((file for file in candidates if file.is_file()), None)


def annotation_file(path: Path, names: Sequence[str], *, info: DataSetInfo) -> Path:
    """Find the first existing annotation file of these names.

    Raises:
        DataError: none exists; the message has the files needed and where they are published.
    """
    for name in names:
        found = optional_annotation(path, name)
        if found is not None:
            return found
    raise info.missing(f"{path} has no {' or '.join(names)}")


def own_table(path: Path, name: str, *, info: DataSetInfo) -> Path:
    """Return a user's table: `path` itself, or the table of this name in the folder `path`.

    Raises:
        DataError: it does not exist.
    """
    if path.is_dir():
        return annotation_file(path, (name,), info=info)
    if not path.is_file():
        raise info.missing(f"{path} does not exist")
    return path


def captions_in_words(captions: Sequence[str], codes: list[str]) -> list[str]:
    """Return the captions that have words; the others (class numbers, codes) are added to `codes`."""
    codes += filter(is_code, captions)
    return [caption for caption in captions if not is_code(caption)]


def code_notes(codes: Sequence[str], *, kept: int, source: Path) -> tuple[str, ...]:
    """Return a note on captions that are numbers or codes alone, or no note.

    Raises:
        DataError: no other caption is `kept`.
    """
    if not codes:
        return ()
    if not kept:
        raise DataError(f"{source} has no captions, only numbers or codes, first {codes[0]!r}: give a column of texts")
    return (f"{len(codes)} captions that are a number or a code alone are left out, first {codes[0]!r}",)


def split_in_name(path: Path, split: str | None, *, prefix: str) -> str | None:
    """Return the given split; for None, the split in the name of an annotation file, as in `PREFIXval2017.json`."""
    if split is None and path.is_file() and path.stem.startswith(prefix):
        return path.stem.removeprefix(prefix)
    return split


def find_root(path: Path, roots: Iterable[str], marker: str) -> Path | None:
    """Return the first folder of `roots`, below `path`, that contains the file `marker`."""
    return next((path / root for root in roots if (path / root / marker).is_file()), None)


def class_set(
    info: DataSetInfo, split: str, rows: Iterable[tuple[str, str]], finder: ImageFinder, bad: Malformed
) -> ClassSet:
    """Make a set of (image, key of its class) rows, with all classes in the official order.

    Raises:
        DataError: a key is not a class of the set, several lines are malformed, or no image exists.
    """
    numbers = {key: number for number, key in enumerate(class_names_by_folder(info.name))}
    files: list[Path] = []
    labels: list[int] = []
    for name, key in rows:
        if key not in numbers:
            raise DataError(f"{finder.source}: {name} is of class {key!r}, which {info.title} does not have")
        file = finder.find(name)
        if file is not None:
            files.append(file)
            labels.append(numbers[key])
    notes = (*bad.notes(), *finder.notes())
    if not files:
        raise DataError(f"{finder.source} names no images: download it again")
    return ClassSet(
        name=f"{info.name}/{split}",
        images=Images.of_files(files),
        labels=np.asarray(labels, dtype=np.int64),
        classes=class_names(info.name),
        templates=templates(info.name),
        notes=notes,
    )


def caption_set(
    name: str, rows: Iterable[tuple[str, str]], finder: ImageFinder, *, notes: Sequence[str] = ()
) -> CaptionSet:
    """Make a set of (image, caption) rows, without missing images and empty captions.

    Raises:
        DataError: no row is left, or no image exists.
    """
    numbers: dict[Path, int] = {}
    captions: list[str] = []
    owners: list[int] = []
    empty = 0
    for file, caption in rows:
        image = finder.find(file)
        text = " ".join(caption.split())
        if image is None:
            continue
        if not text:
            empty += 1
            continue
        owners.append(numbers.setdefault(image, len(numbers)))
        captions.append(text)
    missing = finder.notes()
    if not captions:
        raise DataError(f"{finder.source} has no captions for {name}")
    blank = (f"{empty} empty captions are left out",) if empty else ()
    return CaptionSet(
        name=name,
        images=Images.of_files(tuple(numbers)),
        captions=tuple(captions),
        owners=np.asarray(owners, dtype=np.int64),
        notes=(*notes, *missing, *blank),
    )
