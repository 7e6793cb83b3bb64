"""When two texts say the same."""

from __future__ import annotations

import re

__all__ = ["text_key"]


def text_key(text: str) -> str:
    """What two texts must share to count as equal: no `a photo of`, articles, case or final stop.

    >>> text_key("A photo of an Airplane."), text_key("an airplane")
    ('airplane', 'airplane')
    """
    text = re.sub(r"^a (?:photo|image) of ", "", text.lower().strip(" ."))
    return re.sub(r"^(?:an?|the) ", "", text)
