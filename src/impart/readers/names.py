"""Turn folder names, file names and class names into texts: one rule for reference sets, training and evaluation."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

__all__ = ["equal_names", "file_text", "folder_texts", "is_code", "label_text", "merged_names", "shorten_names"]

_NUMBER = re.compile(r"[+-]?\d+(?:[.,]\d+)*")
_WORDNET_ID = re.compile(r"n\d{8}")
_PREFIX = re.compile(r"(?:\d+\.\s*(?=[^\d\s])|n\d{8}[-_.\s]+(?=\S))")
_PADDED = re.compile(r"(\d{2,})[-_\s]+(?=[^\W\d])")
_COUNTER = re.compile(r"[_\-\s]*(?:[_\-\s]\d+|\(\d+\))$")
_HYPHEN = re.compile(r"(?<=[^\W\d_]{2})-(?=[^\W\d_]{2})")
_FUNCTION_WORDS = frozenset(
    "a an and at by except for from in not of on or other others the to with without".split()  # noqa: SIM905
)


def is_code(text: str) -> bool:
    """Test whether a text is a number or a WordNet id alone, with no word in it.

    >>> is_code("12"), is_code("-1.0"), is_code("n01440764"), is_code("737-200"), is_code("iphone 12")
    (True, True, True, False, False)
    """
    text = text.strip()
    return bool(_NUMBER.fullmatch(text) or _WORDNET_ID.fullmatch(text))


def label_text(label: str) -> str:
    """Write a class name as words: underscores and repeated spaces are one space, all else stays.

    >>> label_text("ceiling_fan"), label_text("Audi A4  2012")
    ('ceiling fan', 'Audi A4 2012')
    """
    return " ".join(label.replace("_", " ").split())


def file_text(stem: str) -> str:
    """Write a file name as words. A number at its end counts images of one thing, and is left out.

    >>> file_text("golden_retriever_03"), file_text("Rosa (2)"), file_text("F-16A 7")
    ('golden retriever', 'Rosa', 'F-16A')
    >>> file_text("737-200"), file_text("0012")
    ('737-200', '0012')
    """
    words = _COUNTER.sub("", stem)
    return _words(words if any(letter.isalpha() for letter in words) else stem)


def folder_texts(names: Sequence[str]) -> dict[str, str]:
    """Write the names of sibling folders as words; numbers are part of a name.

    Underscores become spaces, and so do hyphens between words where hyphens are the only separator. A running number
    with a dot or with leading zeros, or a WordNet id, before every name (`001.Black_footed_Albatross`, `00042_Aves`,
    `n02085620-Chihuahua`) is left out where the names remain different without it.

    >>> folder_texts(["iphone_12", "737-200", "deep-red"])
    {'iphone_12': 'iphone 12', '737-200': '737-200', 'deep-red': 'deep red'}
    >>> folder_texts(["001.Black_footed_Albatross", "002.Laysan_Albatross"])["001.Black_footed_Albatross"]
    'Black footed Albatross'
    >>> folder_texts(["00_cat", "01_dog"])["00_cat"], folder_texts(["1.cent", "2.cent"])["1.cent"]
    ('cat', '1.cent')
    """
    prefix = _PADDED if _are_padded(names) else _PREFIX
    bare = {name: _words(prefix.sub("", name, count=1)) for name in names}
    prefixed = all(prefix.match(name) for name in bare)
    if prefixed and len({text.casefold() for text in bare.values()}) == len(bare):
        return bare
    return {name: _words(name) for name in names}


def _are_padded(names: Sequence[str]) -> bool:
    """Test whether all names begin with a number of one width, no two equal, and zeros fill up the small ones."""
    numbers = [found[1] for name in dict.fromkeys(names) if (found := _PADDED.match(name))]
    return (
        len(numbers) == len(set(numbers)) == len(set(names))
        and len({len(number) for number in numbers}) == 1
        and any(number.startswith("0") for number in numbers)
    )


def _words(name: str) -> str:
    return label_text(name if re.search(r"[_\s]", name) else _HYPHEN.sub(" ", name))


def shorten_names(names: Sequence[str]) -> tuple[str, ...]:
    """Shorten class names that are lists of synonyms, as WordNet has them, to the first synonym.

    The commas of a set have one meaning. They separate no synonyms where a part starts or ends with a word such as
    `of` (`Korea, Republic of`), or where two such names start alike (`cheese, brie` and `cheese, cheddar`): then all
    names stay whole. A name whose first synonym is also another name stays whole.

    >>> shorten_names(["tench, Tinca tinca", "maillot", "maillot, tank suit"])
    ('tench', 'maillot', 'maillot, tank suit')
    >>> shorten_names(["Korea, Republic of", "Iran"])
    ('Korea, Republic of', 'Iran')
    """
    parts = [[part.strip() for part in re.split(r",(?!\d)", name)] for name in names]
    heads = Counter(part[0].casefold() for part in parts)
    lists = Counter(part[0].casefold() for part in parts if len(part) > 1)
    if any(count > 1 for count in lists.values()) or any(_modifies(one) for part in parts for one in part[1:]):
        return tuple(names)
    return tuple(
        part[0] if heads[part[0].casefold()] == 1 and part[0] and not is_code(part[0]) else name
        for name, part in zip(names, parts, strict=True)
    )


def _modifies(part: str) -> bool:
    """Test whether a part after a comma belongs to the words before it, and is no synonym of them."""
    words = part.casefold().split()
    return not words or words[0] in _FUNCTION_WORDS or words[-1] in _FUNCTION_WORDS


def equal_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return a note on classes that have the same name, or no note.

    >>> equal_names(["crane", "dog", "crane"])
    ("2 classes share a name with another, first 'crane' (class numbers 0, 2): they cannot be told apart",)
    """
    numbers: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        numbers.setdefault(name.casefold(), []).append(number)
    shared = [found for found in numbers.values() if len(found) > 1]
    if not shared:
        return ()
    first = ", ".join(str(number) for number in shared[0])
    return (
        f"{sum(map(len, shared))} classes share a name with another, first {names[shared[0][0]]!r} "
        f"(class numbers {first}): they cannot be told apart",
    )


def merged_names(texts: Mapping[str, str], *, what: str) -> tuple[str, ...]:
    """Return a note on sources with different names and one text, upper and lower case alike, or no note.

    Args:
        texts: text by name.
        what: the sources, such as `folders`.

    >>> merged_names({"iphone_12": "iphone 12", "iphone 12": "iphone 12", "pixel": "pixel"}, what="folders")
    ("2 folders share 1 text, first 'iphone_12' and 'iphone 12': 'iphone 12'",)
    """
    names: dict[str, list[str]] = {}
    for name, text in texts.items():
        names.setdefault(text.casefold(), []).append(name)
    shared = [found for found in names.values() if len(found) > 1]
    if not shared:
        return ()
    found = shared[0]
    words = "text" if len(shared) == 1 else "texts"
    return (
        f"{sum(map(len, shared))} {what} share {len(shared)} {words}, "
        f"first {found[0]!r} and {found[1]!r}: {texts[found[0]]!r}",
    )
