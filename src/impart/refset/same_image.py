"""Find images that a reference set has under two texts.

Captions of one image are listed with one file, and are no mistake. The same bytes in two files with two texts mostly
are: a copy in the folder of another class. Both texts are then blended into every similar image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from impart.refset.refset import ReferenceSet

__all__ = ["SameImage", "same_images"]


@dataclass(frozen=True)
class SameImage:
    """One image in two files with two texts.

    Attributes:
        first: path of the first file.
        first_text: its text.
        second: path of the first other file with another text.
        second_text: its text.
    """

    first: str
    first_text: str
    second: str
    second_text: str


def same_images(references: ReferenceSet) -> list[SameImage]:
    """List the images that are in several files under several texts, each once, in the order of the rows."""
    table = references.table
    columns = (table[name].to_pylist() for name in ("hash", "text", "source", "path"))
    first: dict[str, tuple[str, tuple[str, str]]] = {}
    found: dict[str, SameImage] = {}
    for digest, text, source, path in zip(*columns, strict=True):
        if not digest:
            continue
        first_text, first_file = first.setdefault(digest, (text, (source, path)))
        if text != first_text and (source, path) != first_file and digest not in found:
            found[digest] = SameImage(first_file[1], first_text, path, text)
    return list(found.values())
