"""Clean the titles and descriptions of a photo site, and join them to captions.

Such texts are percent-encoded and contain HTML, links, file names of cameras (`DSC_0123.JPG`) and very long words
(`aaaaaa...`). All of these are removed.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from urllib.parse import unquote_to_bytes

__all__ = ["clean_text", "decode_percent", "join_caption"]

_INLINE_TAG = re.compile(
    r"</?(?:a|b|i|u|s|em|strong|span|font|small|big|sub|sup|tt|code)(?:\s[^<>]*)?/?>", re.IGNORECASE
)
_TAG = re.compile(r"<!--.*?-->|<(script|style)\b[^<>]*>.*?</\1\s*>|</?[a-z][^<>]*>", re.IGNORECASE | re.DOTALL)
_LINK = re.compile(
    r"(?:https?|ftp)://[^\s<>\"]*[^\s<>\".,;:!?)]"
    r"|\bwww\.[^\s<>\"]*[^\s<>\".,;:!?)]"
    r"|\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+"
    r"|\b(?:[a-z0-9-]+\.)+(?:com|org|net|edu|gov|info)\b(?:/[^\s<>\"]*)?"
    r"|\b(?:[a-z0-9-]+\.)+[a-z]{2,3}/[^\s<>\"]*",
    re.IGNORECASE,
)
_FILE = re.compile(
    r"\b[\w()-]+\.(?:jpe?g|png|gif|tiff?|bmp|webp|heic|cr2|nef|dng|arw|orf|raf|raw|psd|mov|avi|mp4)\b", re.IGNORECASE
)
_CAMERA = re.compile(
    r"(?<![\w-])(?:"
    r"_?(?:IMG|DSC|DSCN|DSCF|DSCI|DCP|PICT|PIC|MVI|MOV|SANY|CIMG|HPIM|IMGP|IMAG|GOPR|PXL|WP|SDC|PANO|P)[_-]?\d{3,}[\w-]*"
    r"|(?:IMG|DSC|_MG) ?_?\d{3,}[\w-]*"
    r"|\d{3}[-_]\d{4}[\w-]*"
    r"|\d{8}[-_]\d{4,}[\w-]*"
    r")(?![\w-])",
    re.IGNORECASE,
)
_PERCENT = re.compile(r"(?:%[0-9a-f]{2})+", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\ufeff]")
_EDGES = " \t\"'-_|*~=+/\\,;:()[]{}<>#"
_PUNCTUATION = _EDGES + ".,;:!?…"
_LETTER = re.compile(r"[^\W\d_]")


def decode_percent(text: str, *, plus_is_space: bool) -> str:
    """Decode percent-encoding; bytes that are not UTF-8 stay encoded.

    Args:
        text: as stored.
        plus_is_space: replace `+` by a space, as the official YFCC100M dump requires.

    >>> decode_percent("A+caf%C3%A9+100%25", plus_is_space=True), decode_percent("C++ at 50%de", plus_is_space=False)
    ('A café 100%', 'C++ at 50%de')
    """

    def decoded(match: re.Match[str]) -> str:
        try:
            return unquote_to_bytes(match.group()).decode("utf-8")
        except UnicodeDecodeError:
            return match.group()

    return _PERCENT.sub(decoded, text.replace("+", " ") if plus_is_space else text)


def clean_text(text: str, *, max_word_letters: int = 25) -> str:
    """Remove markup, links, file names and long words; return "" if no letter is left.

    Args:
        text: decoded (see `decode_percent`).
        max_word_letters: longer words are removed.

    >>> clean_text('Our <b>dog</b> &amp; cat<br/>at the sea, see <a href="http://x.org/a">http://x.org/a</a>')
    'Our dog & cat at the sea, see'
    >>> clean_text("DSC_0123.JPG"), clean_text("IMG_2041"), clean_text("2 < 3 dogs")
    ('', '', '2 < 3 dogs')
    """
    for _ in range(2):  # twice, for markup that is itself written in entities
        text = html.unescape(_TAG.sub(" ", _INLINE_TAG.sub("", text)))
    text = _TAG.sub(" ", _INLINE_TAG.sub("", text))
    text = _CONTROL.sub(" ", text)
    for pattern in (_LINK, _FILE, _CAMERA):
        text = pattern.sub(" ", text)
    words = [word for word in text.split() if len(word.strip(_PUNCTUATION)) <= max_word_letters]
    text = re.sub(r"\s+([.,;:!?])", r"\1", " ".join(words))
    text = re.sub(r"\(\s*\)|\[\s*\]", "", text)
    text = " ".join(text.split()).strip(_EDGES).strip()
    return text if _LETTER.search(text) else ""


def join_caption(texts: Sequence[str], *, max_words: int = 0) -> str:
    """Join cleaned texts to one caption; a text that another text begins with is left out.

    Args:
        texts: such as title and description; empty texts are skipped.
        max_words: words kept; 0 = all.

    >>> join_caption(["Golden Gate", "The bridge at dawn."]), join_caption(["A dog!", "a dog! in the snow"])
    ('Golden Gate. The bridge at dawn.', 'a dog! in the snow')
    """
    parts: list[str] = []
    for text in texts:
        if not text or any(part.lower().startswith(text.lower()) for part in parts):
            continue
        parts = [part for part in parts if not text.lower().startswith(part.lower())]
        parts.append(text)
    caption = ""
    for part in parts:
        if caption:
            caption += " " if caption[-1] in ".!?:;,…" else ". "
        caption += part
    words = caption.split()
    return " ".join(words[:max_words]) if max_words else " ".join(words)
