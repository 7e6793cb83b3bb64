"""Names and kinds of the ImageNet-1k classes, from `configs/imagenet_names.txt`.

The image head starts from the names of a classifier's classes, so the names must be unambiguous for a sentence encoder:
`crane` is a bird in one class and a machine in another, `drumstick` is no food. Kinds (`dog`, `bird`, `vehicle`) are
searched for far more often than the 120 breeds.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

import numpy as np
import numpy.typing as npt

from impart.errors import ConfigError
from impart.retrieval.prompts import RECIPE_PROMPTS

__all__ = ["ClassVocabulary", "a_or_an", "class_vocabulary", "imagenet_vocabulary", "name_prompts"]

_LINE = re.compile(r"^(n\d{8})(?:-(n\d{8}))?:\s*(.+)$")


@dataclass(frozen=True, kw_only=True)
class ClassVocabulary:
    """Names of C classes and the K kinds they belong to.

    Attributes:
        names: C tuples, the first name is the one to display.
        kinds: K kinds, sorted.
        membership: (C, K) 1 where a class is of a kind, else 0.
    """

    names: tuple[tuple[str, ...], ...]
    kinds: tuple[str, ...]
    membership: npt.NDArray[np.float32]

    def kinds_of(self, number: int) -> list[str]:
        """Return the kinds of a class."""
        return [self.kinds[kind] for kind in np.flatnonzero(self.membership[number])]


def imagenet_vocabulary() -> ClassVocabulary:
    """Read the 1,000 classes of ImageNet-1k in the order of their WordNet ids, which is the classifier's."""
    table = (resources.files("impart.train") / "configs" / "imagenet_classes.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(table)))
    return class_vocabulary([row["wnid"] for row in rows], [row["label"] for row in rows])


def class_vocabulary(wnids: Sequence[str], labels: Sequence[str], *, text: str | None = None) -> ClassVocabulary:
    """Combine the classes' labels with the names and kinds of the file.

    Args:
        wnids: C WordNet ids in the classifier's order.
        labels: C short labels, used for classes without names in the file.
        text: content of the names file; None = the bundled one.

    Raises:
        ConfigError: a line cannot be read.
    """
    if text is None:
        text = (resources.files("impart.train") / "configs" / "imagenet_names.txt").read_text(encoding="utf-8")
    own: dict[str, tuple[str, ...]] = {}
    ranges: list[tuple[str, str, tuple[str, ...]]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.match(line)
        if match is None:
            raise ConfigError(f"imagenet_names.txt, line {number}: expected `wnid: names` or `first-last: kinds`")
        first, last, words = match.groups()
        values = tuple(word.strip() for word in words.split(","))
        if last:
            ranges.append((first, last, values))
        else:
            own[first] = values
    names = tuple(own.get(wnid, (label,)) for wnid, label in zip(wnids, labels, strict=True))
    kinds_of = [_kinds(wnid, ranges) for wnid in wnids]
    kinds = tuple(sorted({kind for found in kinds_of for kind in found}))
    membership = np.zeros((len(wnids), len(kinds)), np.float32)
    for row, found in enumerate(kinds_of):
        membership[row, [kinds.index(kind) for kind in found]] = 1
    return ClassVocabulary(names=names, kinds=kinds, membership=membership)


def a_or_an(name: str) -> str:
    """Prepend the article to a name.

    >>> a_or_an("otter"), a_or_an("dog"), a_or_an("sunglasses")
    ('an otter', 'a dog', 'sunglasses')
    """
    last = name.split()[-1]
    if last.endswith("s") and not last.endswith(("ss", "us", "is")):
        return name
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def name_prompts(name: str) -> list[str]:
    """Return the texts of a name in training: the name, and the name with its article in each prompt.

    >>> name_prompts("owl")[:3]
    ['owl', 'a photo of an owl', 'an owl']
    """
    return [name, *(prompt.format(a_or_an(name)) for prompt in RECIPE_PROMPTS)]


def _kinds(wnid: str, ranges: Sequence[tuple[str, str, tuple[str, ...]]]) -> list[str]:
    found: Mapping[str, None] = {kind: None for first, last, kinds in ranges if first <= wnid <= last for kind in kinds}
    return list(found)
