"""One word for one thing: the words that docs/glossary.md replaces are in no source, page, example or help text."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
GLOSSARY = ROOT / "docs" / "glossary.md"
SOURCES = sorted((ROOT / "src").rglob("*.py"))  # help texts are strings of src/impart/cli
PAGES = sorted({ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*.py")} - {GLOSSARY})

ALLOWED = (
    (r"(?<=[\"'`.])\.?cohort(?:-(?:\*|<digest>)(?:\.npy)?)?(?=[\"'`])|\"cohort-(?=\{)", "key and file of a set"),
    (r"\bindex cohort vanilla\b", "keys of a reference set, listed"),
    (r"(?<=[\"'`.])standing(?=[\"'`])|standing_scale", "input and weight of a RAM checkpoint"),
    (r"\bsmall_pictures\b", "key of the bundled model"),
    (r"\bphotoid, url, outcome, reason\b", "columns of failures.csv"),
    (r"(?<=[\"'`.])(?:regime|lit\w*|phrasings|outcomes?(?:\.npz)?|(?:[a-z_]+_)?pictures)(?=[\"'`])", "retired"),
    (r"\ba\s+(?:\(\?:photo\|)?picture\)?\s+of\b", "prompt for a model"),
    (r"\bimage\|picture\|figure\b", "first words of captions of textbooks, which are removed"),
)
"""What may remain, and why. A name on disk and a retired name are allowed alone in quotes, and as nothing else."""

RETIRED = "src/impart/train/retired.py"  # a table of retired names, which it refuses

DETERMINER = r"(?:an?|the|each|every|both|one|two|per|another|first|second|its|their)"
OPENING = re.compile(r"(?:Who|What|Which|How|Whose|Where)\b")


def banned_words() -> dict[str, str]:
    """Word of the last column -> the word to use."""
    found = {}
    for line in GLOSSARY.read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) == 3 and cells[2] not in ("", "not", "---"):
            found |= {word.strip(): cells[0] for word in cells[2].split(",")}
    return found


def pattern_of(word: str) -> re.Pattern[str]:
    """The word and its plural; words of a phrase may have a line break, a comment sign or a quote between them."""
    noun = word.endswith("*(noun)*")
    word = word.removesuffix("*(noun)*").strip()
    phrase = r"[\s#\"'`]+".join(re.escape(part) for part in word.split()) + "s?"
    if noun:
        phrase = rf"(?:(?<=\x00){phrase}(?!\x00)|\b{DETERMINER}\s+{phrase}(?!-)|\bdef\s+{phrase}(?!\x00))"
    return re.compile(rf"(?<![A-Za-z]){phrase}(?![A-Za-z])", re.IGNORECASE)


BANNED = [(word, instead, pattern_of(word)) for word, instead in banned_words().items()]


def without_allowed(text: str) -> str:
    for pattern, _ in ALLOWED:
        text = re.sub(pattern, lambda match: re.sub(r"[^\n]", ".", match.group()), text)
    return text


def split_names(text: str) -> str:
    """Parts of names as words, with a mark between: `load_picture` and `PictureSet` both contain `picture`."""
    text = re.sub(r"(?<=[A-Za-z0-9])_+(?=[A-Za-z0-9])", "\x00", text)
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "\x00", text)


def words_in(text: str) -> Iterator[tuple[int, str]]:
    """(line, what is wrong) of each word of `text` that the glossary replaces."""
    text = split_names(without_allowed(text))
    for word, instead, pattern in BANNED:
        for match in pattern.finditer(text):
            yield text.count("\n", 0, match.start()) + 1, f"{word!r}: the word is {instead!r}"


def docstrings_in(text: str) -> Iterator[tuple[int, str]]:
    """(line, first line) of each docstring of a module, also those of constants and attributes."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value.strip().partition("\n")[0]


def report(hits: Iterable[tuple[Path, int, str]]) -> str:
    """The hits as `file:line: reason`, below their number per folder."""
    rows = sorted((path.relative_to(ROOT).as_posix(), line, reason) for path, line, reason in hits)
    folders = Counter(Path(place).parent.as_posix() for place, _, _ in rows)
    counts = [f"{count:5} in {folder}" for folder, count in sorted(folders.items())]
    return "\n".join([f"{len(rows)} in all", *counts, *(f"{place}:{line}: {reason}" for place, line, reason in rows)])


def test_words_of_the_glossary_are_used() -> None:
    paths = {*SOURCES, *PAGES} - {ROOT / RETIRED}
    hits = [(path, *hit) for path in paths for hit in words_in(path.read_text("utf-8"))]
    assert not hits, report(hits)


def test_docstrings_start_with_a_verb_or_a_noun() -> None:
    hits = [
        (path, line, f"starts with a question word: {first}")
        for path in SOURCES
        for line, first in docstrings_in(path.read_text("utf-8"))
        if OPENING.match(first)
    ]
    assert not hits, report(hits)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("one\na picture\nPictures", [2, 3]),
        ("load_picture(PictureSet)", [1, 1]),
        ("# a cheat\n# sheet", [1]),
        ("it looks up a name; the look-ahead of frames that look alike", []),
        ("def look(image): ...", [1]),
        ("try_look(image)\nthe looks of an image", [1, 2]),
        ('prompts = ("a picture of {}.",)', []),
        ('{"znorm": "cohort"}, f"cohort-{digest}.npy", "cohort-*", ".cohort-*", `cohort-*.npy`', []),
        ('raise Error("the cohort is missing")', [1]),
        ('mode `full`, mode "full" and mode="full"', [1, 1]),
        ("litre, split and outcomes", [1]),
    ],
)
def test_a_word_is_recognised(text: str, lines: list[int]) -> None:
    assert sorted(line for line, _ in words_in(text)) == lines


def test_the_glossary_is_read() -> None:
    assert {"picture", "cohort", "regime", "cheat sheet"} <= set(banned_words())
    assert list(docstrings_in('x = 1\n"""Which one."""\n')) == [(2, "Which one.")]
