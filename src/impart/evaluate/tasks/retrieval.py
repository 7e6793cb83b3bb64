"""Retrieval among captioned images: a text's image, an image's texts; scores are formed in parts.

Text to image is measured a second time `(as searched)`, as `impart search` ranks: captions in several prompts
(`impart.retrieval.prompts`), and items that are near to everything held back by captions that come with the model
(`impart.retrieval.hubness`), where it has them. `(query bank)` is an option that sees all queries.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from impart.config import SearchSettings
from impart.encoders.base import Encoder, Float32
from impart.errors import DataError
from impart.evaluate.cache import EmbeddingCache
from impart.evaluate.datasets.types import CaptionSet
from impart.evaluate.embed import Progress, base_of, embed_images, embed_texts
from impart.evaluate.result import Result
from impart.metrics import bootstrap, ranking
from impart.retrieval.hubness import BETA, CaptionBank, bundled_bank, dynamic_inverted_softmax
from impart.retrieval.prompts import query_embeddings

__all__ = ["Searched", "Side", "answer", "as_searched", "both_ways", "retrieval"]

Ints = npt.NDArray[np.int64]

_CELLS = 50_000_000  # of one part of the scores, 200 MB


@dataclasses.dataclass(frozen=True, kw_only=True)
class Side:
    """Queries, or what is searched.

    Attributes:
        vectors: (q, D) L2-normalised.
        owners: (q,) the thing (image, video) that each belongs to: what answers what.
        keys: q names, unique.
        clusters: (q,) what is drawn together in the bootstrap, or None.
    """

    vectors: Float32
    owners: Ints
    keys: tuple[str, ...]
    clusters: Ints | None = None

    def __len__(self) -> int:
        return len(self.owners)

    def only(self, wanted: npt.NDArray[np.bool_]) -> Side:
        """Those that are wanted (q,)."""
        return Side(
            vectors=self.vectors[wanted],
            owners=self.owners[wanted],
            keys=tuple(key for key, use in zip(self.keys, wanted, strict=True) if use),
            clusters=None if self.clusters is None else self.clusters[wanted],
        )


def retrieval(
    encoder: Encoder,
    dataset: CaptionSet,
    *,
    query_bank: bool = False,
    cache: EmbeddingCache | None = None,
    label: str | None = None,
    batch: int = 32,
    on_progress: Progress | None = None,
) -> tuple[Result, ...]:
    """Text-to-image and image-to-text retrieval over one set of captioned images.

    Text to image: one query a caption, its image is relevant. Image to text: one query an image with captions, all
    of them are relevant. Images without a caption are searched and not asked for.

    Args:
        encoder: plain or augmented.
        dataset: the images and captions.
        query_bank: measure both directions with query-bank normalisation as well.
        cache: where embeddings are kept; None = nowhere.
        label: what the report calls the encoder; None = its id.
        batch: images in one forward pass.
        on_progress: told after each part of the images.

    Returns:
        Text to image, image to text; then both with the query bank, where asked for; then text to image as
        `impart search` ranks.

    Raises:
        DataError: no image could be read, or none that could has a caption.
    """
    embedded = embed_images(encoder, dataset.images, cache=cache, batch=batch, on_progress=on_progress)
    images = Side(
        vectors=embedded.embeddings,
        owners=embedded.kept,
        keys=tuple(dataset.images.keys[number] for number in embedded.kept),
    )
    texts = Side(
        vectors=embed_texts(encoder, dataset.captions, cache=cache),
        owners=dataset.owners,
        keys=caption_keys(dataset.images.keys, dataset.owners),
        clusters=dataset.owners,
    )
    common = Result(
        task="",
        dataset=dataset.name,
        encoder=label or encoder.traits.id,
        figures={},
        counts={"unreadable": len(embedded.unreadable)},
        notes=(*dataset.notes, *(f"left out: {reason}" for reason in embedded.unreadable)),
    )
    return both_ways(
        texts,
        images,
        names=("text", "image"),
        common=common,
        query_bank=query_bank,
        searched=as_searched(encoder, dataset.captions, cache=cache),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Searched:
    """What `impart search` does beyond the cosine.

    Attributes:
        vectors: (T, D) of the captions in the prompts of a search.
        bank: of the hub correction; None where the model has none.
    """

    vectors: Float32
    bank: CaptionBank | None


def as_searched(encoder: Encoder, captions: Sequence[str], *, cache: EmbeddingCache | None = None) -> Searched:
    """Captions as `impart search` would ask for them."""
    return Searched(
        vectors=query_embeddings(captions, lambda texts: embed_texts(encoder, texts, cache=cache)),
        bank=bundled_bank(base_of(encoder)),
    )


def caption_keys(keys: tuple[str, ...], owners: Ints) -> tuple[str, ...]:
    """A unique name for each caption: the image's, and the caption's number among those of the image.

    >>> caption_keys(("a.jpg", "b.jpg"), np.array([0, 1, 0]))
    ('a.jpg#0', 'b.jpg#0', 'a.jpg#1')
    """
    seen: dict[int, int] = {}
    names = []
    for owner in owners.tolist():
        names.append(f"{keys[owner]}#{seen.setdefault(owner, 0)}")
        seen[owner] += 1
    return tuple(names)


def both_ways(
    texts: Side,
    things: Side,
    *,
    names: tuple[str, str],
    common: Result,
    query_bank: bool = False,
    searched: Searched | None = None,
) -> tuple[Result, ...]:
    """Text to thing and thing to text: plain, with the query bank where asked for; text to thing as a search ranks.

    Captions whose thing is not there are left out; things without a caption ask nothing.
    """
    there_is = np.isin(texts.owners, things.owners)
    asked = None if searched is None else dataclasses.replace(texts, vectors=searched.vectors).only(there_is)
    texts = texts.only(there_is)
    if not len(texts):
        raise DataError(f"data set {common.dataset!r} has no caption of {names[1]}s that could be read")
    asking = things.only(np.isin(things.owners, texts.owners))
    there, back = f"{names[0]} to {names[1]}", f"{names[1]} to {names[0]}"
    results = [
        answer(queries, items, task=task, common=common, query_bank=bank)
        for bank in ([False, True] if query_bank else [False])
        for queries, items, task in ((texts, things, there), (asking, texts, back))
    ]
    if searched is not None and asked is not None:
        results.append(answer(asked, things, task=there, common=common, searched=searched))
    return tuple(results)


def answer(
    queries: Side,
    items: Side,
    *,
    task: str,
    common: Result,
    query_bank: bool = False,
    searched: Searched | None = None,
) -> Result:
    """Rank all items for each query by cosine; an item of the same owner is relevant.

    Args:
        queries: each has at least one relevant item.
        items: what is searched.
        task: name of the result.
        common: dataset, encoder, counts, settings and notes of the result.
        query_bank: normalise the scores with these queries as the bank (dynamic inverted softmax).
        searched: rank as a search does; the queries are its vectors.
    """
    ranks, gains = [], []
    bank = None if searched is None else searched.bank
    hubness = np.float32(0) if bank is None else bank.hubness(items.vectors)[None]  # (1, n)
    step = len(queries) if query_bank else max(1, _CELLS // len(items))
    for first in range(0, len(queries), step):
        part = slice(first, first + step)
        scores: npt.NDArray[Any] = queries.vectors[part] @ items.vectors.T - hubness  # (q, n)
        if query_bank:
            scores = dynamic_inverted_softmax(scores, scores)
        relevant = queries.owners[part, None] == items.owners[None, :]
        ranks.append(ranking.ranks_of(scores, relevant))
        gains.append(ranking.ndcg(scores, relevant, k=10))
    rank = np.concatenate(ranks)
    per_item = ranking.rank_values(rank) | {"nDCG@10": np.concatenate(gains)}
    drawn = bootstrap.draws(len(queries) if queries.clusters is None else queries.clusters)
    settings: dict[str, Any] = {}
    if query_bank:
        task = f"{task} (query bank)"
        settings["query bank"] = f"the queries, dynamic inverted softmax, beta {BETA:g}, k 1"
    if searched is not None:
        task = f"{task} (as searched)"
        settings["prompts"] = list(SearchSettings.prompts)
        settings["hub correction"] = "none" if bank is None else f"soft maximum over {len(bank)} captions of the model"
    return dataclasses.replace(
        common,
        task=task,
        figures=ranking.rank_figures(rank) | {"nDCG@10": float(per_item["nDCG@10"].mean())},
        items=queries.keys,
        per_item=per_item,
        clusters=queries.clusters,
        resampled={"median rank": bootstrap.medians(rank, drawn)},
        lower_is_better=ranking.LOWER_IS_BETTER,
        counts={"queries": len(queries), "items": len(items), **common.counts},
        settings={**common.settings, **settings},
    )
