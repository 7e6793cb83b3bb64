"""What the readers of annotated images share: finding the annotation file and the images that it names.

Images that are missing are left out and counted; only a set without any of them is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from impart.errors import DataError
from impart.evaluate.datasets.reader import Published
from impart.evaluate.datasets.types import CaptionSet, Images

__all__ = ["ImageFinder", "annotation_file", "caption_set", "optional_annotation"]


@dataclass
class ImageFinder:
    """Finds images by the name in an annotation file, in the first folder that has them.

    Attributes:
        folders: where they may lie, most likely first.
        source: the annotation file, for messages.
        missing: names not found, in order.
    """

    folders: tuple[Path, ...]
    source: Path
    missing: dict[str, None] = field(default_factory=dict)
    _found: dict[str, Path | None] = field(default_factory=dict)
    _last: int = 0

    def find(self, name: str) -> Path | None:
        """The image of this name, or None; asked for once or often, it is counted once."""
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
        """How many images were not there.

        Raises:
            DataError: none of those asked for was.
        """
        if not self.missing:
            return ()
        first = next(iter(self.missing))
        if len(self.missing) == len(self._found):
            looked = ", ".join(str(folder) for folder in self.folders)
            raise DataError(
                f"none of the {len(self.missing)} images that {self.source} names is there, first {first}: "
                f"looked in {looked}"
            )
        return (f"{len(self.missing)} of {len(self._found)} images are missing and left out, first {first}",)


def optional_annotation(path: Path, name: str) -> Path | None:
    """The annotation file of this name in a folder or one folder below; `path` itself where it is that file."""
    if path.is_file():
        return path if path.name == name else None
    if not path.is_dir():
        return None
    candidates = [path / name, path / "annotations" / name]
    candidates += [one / name for one in sorted(path.iterdir()) if one.is_dir()]
    return next((one for one in candidates if one.is_file()), None)


def annotation_file(path: Path, names: Sequence[str], *, published: Published) -> Path:
    """The first of some annotation files that is there.

    Raises:
        DataError: none is; the message says what the set wants and where it is published.
    """
    for name in names:
        found = optional_annotation(path, name)
        if found is not None:
            return found
    raise published.missing(f"{path} holds no {' or '.join(names)}")


def caption_set(
    name: str, rows: Iterable[tuple[str, str]], finder: ImageFinder, *, notes: Sequence[str] = ()
) -> CaptionSet:
    """(image, caption) rows as a set; rows of missing images and empty captions are left out.

    Raises:
        DataError: no row is left, or no image is there.
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
