"""For the site: put every doctest into a code block, where Markdown leaves it alone."""

import re
from typing import Any

import griffe

DOCTEST = re.compile(r"^>>> .*(?:\n(?!$).*)*", re.MULTILINE)
SECTION = re.compile(r"^Example:$", re.MULTILINE)


class Doctests(griffe.Extension):
    """Fences doctests outside a section; names the section as Griffe does, which then fences its doctests."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            text = DOCTEST.sub(r"```pycon\n\g<0>\n```", obj.docstring.value)
            obj.docstring.value = SECTION.sub("Examples:", text)
