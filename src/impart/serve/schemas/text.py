"""Texts that JSON can carry, of file names that may be no text."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["path_text"]


def path_text(path: Path) -> str:
    r"""Write a path as a text to be shown; bytes that are no UTF-8 are shown as `\xff`. It is no input of any route.

    >>> path_text(Path("films/a.mp4"))
    'films/a.mp4'
    """
    return os.fsencode(path).decode("utf-8", "backslashreplace")
