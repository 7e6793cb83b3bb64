"""Compare texts as prompts of a concept."""

from __future__ import annotations

import re

__all__ = ["text_key"]


def text_key(text: str) -> str:
    """Return what is equal for equivalent texts: the text without `a photo of`, article, case and final stop.

    >>> text_key("A photo of an Airplane."), text_key("an airplane")
    ('airplane', 'airplane')
    """
    text = re.sub(r"^a (?:photo|picture) of ", "", text.lower().strip(" ."))
    return re.sub(r"^(?:an?|the) ", "", text)
