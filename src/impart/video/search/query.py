"""Queries and options of a search, and the unit vector of a query.

The vector of a query is the normalised sum of its text embedding and its image embedding. `negative_weight` times the
mean embedding of the negative terms is subtracted (Rocchio), and the result is normalised again.
"""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, Unpack, get_args

import numpy as np

from impart.config import By, Fit, Group, SearchSettings
from impart.encoders.base import Encoder, Float32, ImageInput, l2_normalise
from impart.encoders.preprocess import squashed
from impart.encoders.tokens import tokenizer_of
from impart.errors import DataError, ImpartWarning, QueryError
from impart.images import load_image
from impart.retrieval.prompts import fill_sentence, query_embeddings

__all__ = ["Query", "SearchKeywords", "SearchOptions", "combine", "query_vectors"]


@dataclass(frozen=True, kw_only=True)
class Query:
    """A text, an image (a file, PIL image or RGB array), or both; and negative terms."""

    text: str | None = None
    image: str | os.PathLike[str] | ImageInput | None = None
    not_text: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.text is not None and not self.text.strip():
            raise QueryError("the query's text is empty: write what to look for")
        if self.text is None and self.image is None:
            raise QueryError("a query needs a text, an image or both; negative terms alone find nothing")
        if isinstance(self.not_text, str) or any(not text.strip() for text in self.not_text):
            raise QueryError("negative terms are a list of texts, none of them empty")
        for text in (self.text or "", *self.not_text):
            if any("\ud800" <= letter <= "\udfff" for letter in text):  # bytes that were no text
                raise QueryError(f"the query {text!r} is not UTF-8 text: write it as UTF-8")


class SearchKeywords(TypedDict, total=False):
    """Keywords of `VideoIndex.search_many` and `similar`; described in `SearchOptions`."""

    top: int | None
    group: Group | None
    by: By | None
    augment: bool
    path_glob: str | None
    why: bool
    fold_copies: bool
    spans: bool
    exact: bool


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
        why: add to each hit the reference pairs that were blended in.
        fold_copies: return one hit for files of the same content (`Hit.also_at` names the others).
        together: correct the text queries for hubs by each other (`CaptionBank.with_queries`). For lists in which each
            query has a video of its own. False answers each query as if it were alone.
        spans: the hit of a video is a span, and further spans of the video are added. False gives the best segment
            alone, which is faster for long lists.
        exact: refine bounds at cuts to the exact frame, by decoding the frames around them.

    Raises:
        QueryError: a value is not one of these.
    """

    top: int
    group: Group
    by: By
    augment: bool = True
    path_glob: str | None = None
    why: bool = False
    together: bool = False
    fold_copies: bool = True
    spans: bool = True
    exact: bool = False

    def __post_init__(self) -> None:
        if self.top < 1:
            raise QueryError(f"top is {self.top}: ask for at least one hit")
        if self.group not in get_args(Group):
            raise QueryError(f"cannot group by {self.group!r}: use {', '.join(get_args(Group))}")
        if self.by not in get_args(By):
            raise QueryError(f"cannot rank by {self.by!r}: use {', '.join(get_args(By))}")

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


def combine(wanted: Sequence[Float32], unwanted: Sequence[Float32], *, negative_weight: float) -> Float32:
    """Combine unit vectors of wanted and unwanted terms into one unit query vector (D,).

    >>> combine([np.array([1, 0], np.float32)], [np.array([0, 1], np.float32)], negative_weight=0.75).round(1).tolist()
    [0.800000011920929, -0.6000000238418579]
    """
    vector = l2_normalise(np.sum(wanted, axis=0))
    if len(unwanted):
        vector = l2_normalise(vector - negative_weight * np.mean(unwanted, axis=0))
    return vector


def query_vectors(queries: Sequence[Query], encoder: Encoder, settings: SearchSettings, *, fit: Fit) -> Float32:
    """Encode queries to unit vectors (T, D); texts in batches, images one by one.

    Args:
        settings: prompts of texts, weight of negative terms.
        fit: how the frames of the index became squares; query images are treated the same.

    Raises:
        DataError: an image cannot be read.
    """
    texts = list(dict.fromkeys(text for query in queries for text in (query.text, *query.not_text) if text is not None))
    vectors: dict[str, Float32] = {}
    if texts:
        embedded = query_embeddings(texts, encoder.encode_texts, prompts=settings.prompts)
        _warn_of_unread(texts, encoder, settings.prompts)
        vectors = dict(zip(texts, embedded, strict=True))
    rows = []
    for query in queries:
        wanted = [vectors[query.text]] if query.text is not None else []
        if query.image is not None:
            image = _image(query.image)
            if fit == "squash":
                image = squashed(image, side_px=encoder.traits.image_size_px)
            wanted.append(encoder.encode_images([image]).embeddings[0])
        unwanted = [vectors[text] for text in query.not_text]
        rows.append(combine(wanted, unwanted, negative_weight=settings.negative_weight))
    return np.stack(rows)


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


def _image(image: str | os.PathLike[str] | ImageInput) -> Any:
    """Read an image file as RGB; images in memory pass unchanged."""
    if not isinstance(image, str | os.PathLike):
        return image
    path = Path(image)
    try:
        return load_image(path)[0]
    except DataError as error:
        raise DataError(f"cannot use {path} as a query image: {error}; give a JPEG, PNG or the like") from error
