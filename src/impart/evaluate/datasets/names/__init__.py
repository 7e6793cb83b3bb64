"""Class names and prompt templates of the classification sets that CLIP papers report, written for this project.

There is one json file per set: the classes in the official order, each with the key in the published files (a folder
name, a wnid, a label) and a name for the text encoder. Ambiguous words have a second word (`crane bird`,
`construction crane`). The ImageNet names are based on the synset words of WordNet (Princeton University); the others
are common knowledge.
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
"""The sets with built-in names."""


@dataclass(frozen=True, kw_only=True)
class NamedSet:
    """Built-in classes and prompts of a classification set.

    Attributes:
        title: the usual name of the set.
        home: where it is published.
        order: description of the order of the classes.
        keys: C keys of the published files, in the official order of class numbers.
        names: C different class names, in lower case.
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
    """Load the built-in classes and prompts of a set.

    Raises:
        DataError: the set has no built-in names.
    """
    if set_name not in NAMED_SETS:
        raise DataError(f"there are no built-in class names for {set_name!r}: choose one of {', '.join(NAMED_SETS)}")
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
    """Return the class names of a set, in the official order of class numbers.

    >>> class_names("cifar10")[:3]
    ('airplane', 'automobile', 'bird')
    """
    return named_set(set_name).names


def class_names_by_folder(set_name: str) -> dict[str, str]:
    """Map the keys of the published files (folder name, wnid, label) to class names.

    >>> class_names_by_folder("imagenet")["n02012849"]
    'crane bird'
    """
    known = named_set(set_name)
    return dict(zip(known.keys, known.names, strict=True))


def templates(set_name: str) -> tuple[str, ...]:
    """Return the prompts of a set, with `{}` for the class name.

    >>> len(templates("food101")) >= 4
    True
    """
    return named_set(set_name).templates
