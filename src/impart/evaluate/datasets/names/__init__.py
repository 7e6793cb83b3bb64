"""Class names and prompt templates of the classification sets that CLIP papers report, written for this project.

One json file a set: its official order, and for every class the key that the published files use (a folder name, a
wnid, a label) beside words that a text encoder understands. Words that mean two things are told apart (`crane bird`,
`construction crane`). The ImageNet names began as the synset words of WordNet (Princeton University); the rest is
common knowledge.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources

from impart.errors import DataError

__all__ = ["NAMED_SETS", "NamedSet", "class_names", "class_names_by_folder", "named_set", "templates"]

NAMED_SETS: tuple[str, ...] = (
    "aircraft",
    "caltech101",
    "cars",
    "cifar10",
    "cifar100",
    "dtd",
    "flowers102",
    "food101",
    "imagenet",
    "pets",
    "stl10",
    "sun397",
)
"""The sets that have names built in."""


@dataclass(frozen=True, kw_only=True)
class NamedSet:
    """What is known by heart of a classification set.

    Attributes:
        title: what people call the set.
        home: where it is published.
        order: what the order of the classes is, in words.
        keys: C keys of the published files, in the official order of class numbers.
        names: C class names, lower case, no two alike.
        templates: prompts with one `{}` for the class name.
    """

    title: str
    home: str
    order: str
    keys: tuple[str, ...]
    names: tuple[str, ...]
    templates: tuple[str, ...]


@cache
def named_set(set_name: str) -> NamedSet:
    """All that is known of one set.

    Raises:
        DataError: the set has no names built in.
    """
    if set_name not in NAMED_SETS:
        raise DataError(f"no class names are built in for {set_name!r}: choose one of {', '.join(NAMED_SETS)}")
    known = json.loads((resources.files(__name__) / f"{set_name}.json").read_text(encoding="utf-8"))
    return NamedSet(
        title=known["title"],
        home=known["home"],
        order=known["order"],
        keys=tuple(key for key, _ in known["classes"]),
        names=tuple(name for _, name in known["classes"]),
        templates=tuple(known["templates"]),
    )


def class_names(set_name: str) -> tuple[str, ...]:
    """The class names of a set, in the official order of class numbers.

    >>> class_names("cifar10")[:3]
    ('airplane', 'automobile', 'bird')
    """
    return named_set(set_name).names


def class_names_by_folder(set_name: str) -> dict[str, str]:
    """Key of the published files (folder name, wnid, label) -> class name.

    >>> class_names_by_folder("imagenet")["n02012849"]
    'crane bird'
    """
    known = named_set(set_name)
    return dict(zip(known.keys, known.names, strict=True))


def templates(set_name: str) -> tuple[str, ...]:
    """The prompts of a set, with `{}` for the class name.

    >>> len(templates("food101")) >= 4
    True
    """
    return named_set(set_name).templates
