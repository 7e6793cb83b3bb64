"""Names of exported files and reels: unique, readable, valid on every system."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from impart.errors import DataError

__all__ = ["check_free", "clean", "one_line", "reel_names", "safe_stem", "unique_stems"]

_UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*\ud800-\udfff]+')
_NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_MOST_BYTES = 120
_REEL = 8  # letters of a reel name in an EDL (CMX 3600)


def clean(text: str) -> str:
    """Replace characters that XML and UTF-8 cannot hold by `?`."""
    return _NO_XML.sub("?", text)


def one_line(text: str) -> str:
    """Join the lines of a text, and clean it: comments of an EDL have one line."""
    return clean(" ".join(text.split()))


def safe_stem(text: str) -> str:
    """Make a file name, without suffix, of any text: valid on every system, at most 120 bytes.

    >>> safe_stem('a/b: "c"?.')
    'a_b_ _c_'
    """
    text = _UNSAFE.sub("_", text).strip(" .")
    while len(text.encode()) > _MOST_BYTES:
        text = text[:-1]
    return text.strip(" .") or "video"


def unique_stems(paths: Iterable[Path]) -> dict[Path, str]:
    """Give each file a stem of its own, also where names in different folders are equal.

    >>> list(unique_stems([Path("a/film.mp4"), Path("b/film.mp4"), Path("c.mp4")]).values())
    ['film', 'film-2', 'c']
    """
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for path in dict.fromkeys(paths):
        stem = name = safe_stem(path.stem)
        number = 1
        while name.casefold() in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.casefold())
        names[path] = name
    return names


def reel_names(paths: Iterable[Path]) -> dict[Path, str]:
    """Give each file a reel name of its own: at most eight letters A to Z and digits.

    >>> list(reel_names([Path("x/holiday_one.mp4"), Path("holiday_two.mp4"), Path("x/été.mov")]).values())
    ['HOLIDAYO', 'HOLIDAYT', 'T']
    >>> list(reel_names([Path("a/interview.mp4"), Path("b/interview.mp4")]).values())
    ['INTERVIE', 'INTERV02']
    """
    names: dict[Path, str] = {}
    for path in dict.fromkeys(paths):
        letters = re.sub("[^A-Z0-9]", "", path.stem.upper())[:_REEL] or "REEL"
        if letters in ("BL", "AX"):  # black and "no reel" in an EDL
            letters = f"{letters}REEL"
        name, number = letters, 1
        while name in names.values():
            number += 1
            name = f"{letters[: _REEL - max(2, len(str(number)))]}{number:02d}"
        names[path] = name
    return names


def check_free(files: Iterable[Path], *, overwrite: bool, sources: Iterable[Path] = ()) -> None:
    """Refuse to replace files, and in any case to replace a source.

    Raises:
        DataError: a file exists, or its folder does not.
    """
    originals = {path.resolve() for path in sources}
    for file in files:
        if file.resolve() in originals:
            raise DataError(f"{file} is one of the exported videos: choose another -o")
        if not file.parent.is_dir():
            raise DataError(f"the folder {file.parent} does not exist: make it, or choose another -o")
        if file.is_dir():
            raise DataError(f"{file} is a folder: give the name of a file with -o")
        if file.exists() and not overwrite:
            raise DataError(f"{file} exists: choose another -o, or replace it with --overwrite")
