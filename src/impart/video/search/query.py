"""Queries and options of a search, and the unit vector of a query.

A query is a sum of terms, each a text or an image with a weight. Its vector is the unit vector of

    u - sum_j |w_j| t_j,    u = normalise(sum_i w_i t_i)

over wanted terms i and unwanted terms j (negative weights): weights of wanted terms are relative to each other, weights
of unwanted ones to the wanted part as a whole. `not_text` shares `negative_weight` among its texts (Rocchio).

Queries are also joined in time: `then` (one followed by the other) and `also` (both in one span), see
`impart.video.search.spans.temporal`.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, get_args

import numpy as np

from impart.config import By, Fit, Group, SearchSettings
from impart.encoders.base import Encoder, Float32, ImageInput, l2_normalise
from impart.encoders.preprocess import squashed
from impart.encoders.tokens import tokenizer_of
from impart.errors import DataError, ImpartWarning, QueryError
from impart.images import DRAFT_SIDES, load_image
from impart.retrieval.prompts import fill_sentence
from impart.video.index.store import Kind
from impart.video.search.dates import Date, Length, end_of, length_s, start_of
from impart.video.search.texts import TextVectors

__all__ = [
    "WITHIN_S",
    "Query",
    "SearchKeywords",
    "SearchOptions",
    "Term",
    "combine",
    "parse_expression",
    "query_vectors",
]

WITHIN_S = 20.0
"""Most seconds between the spans of a sequence, by default."""

_SIGN = re.compile(r"\s+[+-](?:\s+|$)")
_TERM = re.compile(
    r"""\s*(?:(?P<weight>\d+(?:\.\d*)?|\.\d+)\s*\*\s*)?(?P<image>image:)?(?:"(?P<quoted>[^"]*)"|(?![+-](?:\s|$))(?P<plain>[^"]*?))(?=\s*$|\s+[+-](?:\s|$))"""
)


@dataclass(frozen=True, kw_only=True)
class Term:
    """A text or an image, with its weight in a query.

    Attributes:
        text, image: one of them; an image is a file, PIL image or RGB array.
        weight: negative = unwanted.

    Raises:
        QueryError: it has both or neither, or a weight of zero.
    """

    text: str | None = None
    image: str | os.PathLike[str] | ImageInput | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        if (self.text is None) == (self.image is None):
            raise QueryError("a term is a text or an image: give one of them")
        if not math.isfinite(self.weight) or self.weight == 0:
            raise QueryError(f"the weight of a term is {self.weight:g}: give a number other than 0")


@dataclass(frozen=True, kw_only=True)
class Query:
    """A sum of terms with weights; and a query that follows it, or that the same span fits, in one video.

    Attributes:
        text, image, not_text: the simple form: a text, an image (a file, PIL image or RGB array) or both, each of
            weight 1; and negative terms.
        terms: further terms.
        also: a query that the same span fits.
        then: a query that fits a later span; it may have a `then` of its own.
        within_s: most seconds from the end of this span to the start of the next.
        keep: the span of a hit: from the first to the last of the sequence, or one of them.

    Example:
        >>> rain = Query(text="people with umbrellas", then=Query(text="a rainbow"), within_s=30)
        >>> red = Query(terms=[Term(text="a red car", weight=2), Term(text="people", weight=-0.5)])
    """

    text: str | None = None
    image: str | os.PathLike[str] | ImageInput | None = None
    not_text: Sequence[str] = ()
    terms: Sequence[Term] = ()
    also: Query | None = None
    then: Query | None = None
    within_s: float = WITHIN_S
    keep: Literal["all", "first", "last"] = "all"

    def __post_init__(self) -> None:
        if isinstance(self.not_text, str) or any(not text.strip() for text in self.not_text):
            raise QueryError("negative terms are a list of texts, none of them empty")
        terms = self.weighted(1.0)
        for text in [term.text for term in terms if term.text is not None]:
            if not text.strip():
                raise QueryError("the query's text is empty: write what to look for")
            if any("\ud800" <= letter <= "\udfff" for letter in text):  # bytes that were no text
                raise QueryError(f"the query {text!r} is not UTF-8 text: write it as UTF-8")
        if not any(term.weight > 0 for term in terms):
            raise QueryError("a query needs a text, an image or both; negative terms alone find nothing")
        if not self.within_s >= 0:
            raise QueryError(f"within {self.within_s:g} s: give 0 seconds or more")
        if self.keep not in ("all", "first", "last"):
            raise QueryError(f"cannot keep {self.keep!r} of a sequence: use all, first or last")
        if self.also is not None and (self.also.then is not None or self.also.also is not None):
            raise QueryError("a query in the same span is one query: give it no sequence of its own")

    def weighted(self, negative_weight: float) -> tuple[Term, ...]:
        """List all terms of the query itself, with weights; `negative_weight` is shared by the texts of `not_text`."""
        simple = [Term(text=self.text)] if self.text is not None else []
        simple += [Term(image=self.image)] if self.image is not None else []
        share = -negative_weight / max(len(self.not_text), 1)
        unwanted = [Term(text=text, weight=share) for text in self.not_text] if share else []
        return (*simple, *self.terms, *unwanted)

    @property
    def has_image(self) -> bool:
        """Whether an image is among the terms of the query itself."""
        return self.image is not None or any(term.image is not None for term in self.terms)

    @property
    def joined(self) -> bool:
        """Whether the query consists of several queries that are joined in time."""
        return self.also is not None or self.then is not None

    def steps(self) -> list[Query]:
        """List the queries of a sequence, in the order of time.

        >>> [step.text for step in Query(text="a", then=Query(text="b", then=Query(text="c"))).steps()]
        ['a', 'b', 'c']
        """
        return [self, *(self.then.steps() if self.then is not None else [])]

    def parts(self) -> list[Query]:
        """List all queries that are joined: the steps, each followed by its `also`."""
        return [part for step in self.steps() for part in (step, step.also) if part is not None]


class SearchKeywords(TypedDict, total=False):
    """Keywords of `VideoIndex.search_many` and `similar`; described in `SearchOptions`."""

    top: int | None
    group: Group | None
    by: By | None
    augment: bool
    path_glob: str | None
    folder: str | os.PathLike[str] | None
    kind: Kind | None
    since: Date | None
    until: Date | None
    min_length: Length | None
    max_length: Length | None
    why: bool
    fold_copies: bool
    spans: bool
    exact: bool
    offset: int
    min_score: float | None
    names: bool


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """Options of a search: what is ranked, how, and what is returned.

    Attributes:
        top: hits returned.
        group: one hit per `video`, `moment`, `scene` or `frame`.
        by: rank a video by its best `moment`, by the `mean` of its frames or by its best `frame`; a scene by the mean
            of its frames, or with `frame` by the best one. Moments and frames have one order.
        augment: score the augmented vectors v'; False scores the base vectors.
        path_glob: only videos whose name matches (whose path, where the pattern contains a slash).
        folder: only videos in this folder, or below it.
        kind: only files of this kind, `video` or `photo`.
        since, until: only what was recorded in this time; both are part of it. A file that does not state when it was
            recorded counts by the time of its last change.
        min_length, max_length: only videos of this length; photos have none and are left out.
        why: add to each hit the reference pairs that were blended in.
        fold_copies: return one hit for files of the same content (`Hit.also_at` names the others), and one of those
            that show the same (`Hit.near_copies`).
        offset: hits that are left out before the first one returned; ranks count them.
        min_score: least score of a hit; None = no bound.
        names: find taught names in the texts; False takes them as ordinary words.
        together: correct the text queries for hubs by each other (`CaptionBank.with_queries`). For lists in which each
            query has a video of its own. False answers each query as if it were alone.
        spans: the hit of a video is a span, and further spans of the video are added. False gives the best segment
            alone, which is faster for long lists.
        exact: compare the query with every vector, also of a large index, where the candidates come from coarse codes;
            and refine bounds at cuts to the exact frame, by decoding the frames around them.

    Raises:
        QueryError: a value is not one of these.
    """

    top: int
    group: Group
    by: By
    augment: bool = True
    path_glob: str | None = None
    folder: str | os.PathLike[str] | None = None
    kind: Kind | None = None
    since: Date | None = None
    until: Date | None = None
    min_length: Length | None = None
    max_length: Length | None = None
    why: bool = False
    together: bool = False
    fold_copies: bool = True
    spans: bool = True
    exact: bool = False
    offset: int = 0
    min_score: float | None = None
    names: bool = True

    def __post_init__(self) -> None:
        if self.top < 1:
            raise QueryError(f"top is {self.top}: ask for at least one hit")
        if self.offset < 0:
            raise QueryError(f"offset is {self.offset}: give the number of hits to leave out, 0 or more")
        if self.min_score is not None and not math.isfinite(self.min_score):
            raise QueryError(f"min_score is {self.min_score}: give a number, such as 0.3")
        if self.group not in get_args(Group):
            raise QueryError(f"cannot group by {self.group!r}: use {', '.join(get_args(Group))}")
        if self.by not in get_args(By):
            raise QueryError(f"cannot rank by {self.by!r}: use {', '.join(get_args(By))}")
        if self.kind is not None and self.kind not in get_args(Kind):
            raise QueryError(f"there is no kind {self.kind!r}: use {' or '.join(get_args(Kind))}")
        since = -np.inf if self.since is None else start_of(self.since)
        if self.until is not None and end_of(self.until) <= since:
            raise QueryError(f"since {self.since} is later than until {self.until}: nothing was recorded then")
        shortest = 0.0 if self.min_length is None else length_s(self.min_length)
        if self.max_length is not None and length_s(self.max_length) < shortest:
            raise QueryError(f"the least length {self.min_length} is above the greatest one, {self.max_length}")

    @classmethod
    def of(
        cls, settings: SearchSettings, *, together: bool = False, **keywords: Unpack[SearchKeywords]
    ) -> SearchOptions:
        """Resolve keywords; a missing one, or None, takes the setting.

        >>> SearchOptions.of(SearchSettings(top=10), group="scene", top=None).top
        10
        """
        given: dict[str, Any] = {name: value for name, value in keywords.items() if value is not None}
        defaults = cls(top=settings.top, group=settings.group, by=settings.by, together=together)
        return dataclasses.replace(defaults, **given)

    @property
    def ranked_by(self) -> By:
        """Return what gives the score of a group: its best moment, the mean of its frames, or its best frame."""
        if self.group == "scene":
            return "frame" if self.by == "frame" else "mean"
        return self.by if self.group == "video" else self.group


def combine(vectors: Float32, weights: Sequence[float]) -> Float32:
    """Combine unit vectors of k terms (k, D) into one unit query vector (D,); negative weights are of unwanted terms.

    >>> combine(np.eye(2, dtype=np.float32), [1, -0.75]).round(1).tolist()
    [0.800000011920929, -0.6000000238418579]
    """
    share = np.asarray(weights, np.float32)
    vector = l2_normalise(np.maximum(share, 0) @ vectors)
    if (share < 0).any():
        vector = l2_normalise(vector + np.minimum(share, 0) @ vectors)
    return vector


def query_vectors(
    queries: Sequence[Query],
    encoder: Encoder,
    settings: SearchSettings,
    *,
    fit: Fit,
    known: TextVectors | None = None,
) -> Float32:
    """Encode queries to unit vectors (T, D); texts in batches, images one by one. What they are joined with is not.

    Args:
        settings: prompts of texts, weight of negative terms.
        fit: how the frames of the index became squares; query images are treated the same.
        known: texts that were encoded before; None encodes all.

    Raises:
        DataError: an image cannot be read.
    """
    terms = [query.weighted(settings.negative_weight) for query in queries]
    texts = list(dict.fromkeys(term.text for of_query in terms for term in of_query if term.text is not None))
    vectors: dict[str, Float32] = {}
    if texts:
        vectors = (known or TextVectors(settings.prompts)).of(texts, encoder)
        _warn_of_unread(texts, encoder, settings.prompts)
    rows = []
    for of_query in terms:
        of_terms = [
            vectors[term.text or ""] if term.image is None else _image_vector(term.image, encoder, fit)
            for term in of_query
        ]
        rows.append(combine(np.stack(of_terms), [term.weight for term in of_query]))
    return np.stack(rows)


def parse_expression(expression: str) -> tuple[Term, ...]:
    """Parse arithmetic with terms: `2*a red car + at night - 0.5*people`.

    Terms are separated by ` + ` and ` - ` with spaces around; `number*` is a weight; `image:FILE` is an image. A
    text in double quotes may contain anything else.

    Raises:
        QueryError: shows the form.

    >>> [(term.text, term.weight) for term in parse_expression('2*a red car + at night - 0.5*"pros - cons"')]
    [('a red car', 2.0), ('at night', 1.0), ('pros - cons', -0.5)]
    """
    terms, place, sign = [], 0, 1
    if found := _SIGN.match(f" {expression}"):  # a leading sign needs no space before it
        place, sign = found.end() - 1, -1 if "-" in found[0] else 1
    while True:
        found = _TERM.match(expression, place)
        text = (found["quoted"] if found["quoted"] is not None else found["plain"]).strip() if found else ""
        if found is None or not text:
            raise QueryError(
                f"cannot read the expression {expression!r} at {expression[place:].strip()[:20]!r}: write terms with "
                "weights, such as 2*a red car + at night - 0.5*people + image:photo.jpg"
            )
        weight = sign * float(found["weight"] or 1)
        terms.append(Term(image=text, weight=weight) if found["image"] else Term(text=text, weight=weight))
        place = found.end()
        if not expression[place:].strip():
            return tuple(terms)
        between = _SIGN.match(expression, place)
        assert between is not None, expression
        place, sign = between.end(), -1 if "-" in between[0] else 1


def _warn_of_unread(texts: Sequence[str], encoder: Encoder, prompts: Sequence[str]) -> None:
    """Warn of texts that the model reads in part, or not at all."""
    tokenizer = tokenizer_of(encoder)
    if tokenizer is None:
        return
    longest = max(prompts, key=len)
    for text in texts:
        remark = tokenizer.remark(text) or tokenizer.remark(fill_sentence(longest, text))
        if remark:
            shown = text if len(text) <= 60 else f"{text[:57]}..."
            warnings.warn(f"the query {shown!r} {remark}", ImpartWarning, stacklevel=2)


def _image_vector(image: str | os.PathLike[str] | ImageInput, encoder: Encoder, fit: Fit) -> Float32:
    """Encode a query image to a unit vector (D,), fitted as the frames of the index are."""
    loaded = _image(image, draft_px=DRAFT_SIDES * encoder.traits.image_size_px)
    if fit == "squash":
        loaded = squashed(loaded, side_px=encoder.traits.image_size_px)
    vector: Float32 = encoder.encode_images([loaded]).embeddings[0]
    return vector


def _image(image: str | os.PathLike[str] | ImageInput, *, draft_px: int) -> Any:
    """Read an image file as RGB; images in memory pass unchanged."""
    if not isinstance(image, str | os.PathLike):
        return image
    path = Path(image)
    try:
        return load_image(path, draft_px=draft_px)[0]
    except DataError as error:
        raise DataError(f"cannot use {path} as a query image: {error}; give a JPEG, PNG or the like") from error
