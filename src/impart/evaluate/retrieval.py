"""Retrieval among captioned pictures: a text's picture, a picture's texts; scores are formed in parts.

Items that are near to everything (hubs) can be held back in two ways, each an outcome of its own. `(hub correction)`
is what `impart search` does: by captions that come with the model (`impart.augment.hubness`), measured wherever the
model has them. `(query bank)` is an option, and sees all queries.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from impart.augment.hubness import CaptionBank, bundled_bank
from impart.encoders.base import Encoder, Float32
from impart.errors import DataError
from impart.evaluate.cache import EmbeddingCache
from impart.evaluate.embed import Progress, embed_pictures, embed_texts
from impart.evaluate.metrics import bootstrap, ranking
from impart.evaluate.metrics.querybank import BETA, dynamic_inverted_softmax
from impart.evaluate.outcome import Outcome
from impart.evaluate.sets import CaptionSet

__all__ = ["Side", "answer", "both_ways", "retrieval"]

Ints = npt.NDArray[np.int64]

_CELLS = 50_000_000  # of one part of the scores, 200 MB


@dataclasses.dataclass(frozen=True, kw_only=True)
class Side:
    """Queries, or what is searched.

    Attributes:
        vectors: (q, D) L2-normalised.
        owners: (q,) the thing (picture, video) that each belongs to: what answers what.
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
) -> tuple[Outcome, ...]:
    """Text-to-image and image-to-text retrieval over one set of captioned pictures.

    Text to image: one query a caption, its picture is relevant. Image to text: one query a picture with captions, all
    of them are relevant. Pictures without a caption are searched and not asked for.

    Args:
        encoder: plain or augmented.
        dataset: the pictures and captions.
        query_bank: measure both directions with query-bank normalisation as well.
        cache: where embeddings are kept; None = nowhere.
        label: what the report calls the encoder; None = its id.
        batch: pictures in one forward pass.
        on_progress: told after each part of the pictures.

    Returns:
        Text to image, image to text; then both with the query bank, where asked for; then text to image with the hub
        correction, where the model has one.

    Raises:
        DataError: no picture could be read, or none that could has a caption.
    """
    embedded = embed_pictures(encoder, dataset.pictures, cache=cache, batch=batch, on_progress=on_progress)
    pictures = Side(
        vectors=embedded.embeddings,
        owners=embedded.kept,
        keys=tuple(dataset.pictures.keys[number] for number in embedded.kept),
    )
    texts = Side(
        vectors=embed_texts(encoder, dataset.captions, cache=cache),
        owners=dataset.owners,
        keys=caption_keys(dataset.pictures.keys, dataset.owners),
        clusters=dataset.owners,
    )
    common = Outcome(
        task="",
        dataset=dataset.name,
        encoder=label or encoder.traits.id,
        figures={},
        counts={"unreadable": len(embedded.unreadable)},
        notes=(*dataset.notes, *(f"left out: {reason}" for reason in embedded.unreadable)),
    )
    bank = bundled_bank(encoder)
    return both_ways(texts, pictures, names=("text", "image"), common=common, query_bank=query_bank, captions=bank)


def caption_keys(keys: tuple[str, ...], owners: Ints) -> tuple[str, ...]:
    """A unique name for each caption: the picture's, and the caption's number among those of the picture.

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
    common: Outcome,
    query_bank: bool = False,
    captions: CaptionBank | None = None,
) -> tuple[Outcome, ...]:
    """Text to thing and thing to text: plain, with the query bank where asked for, with hub correction where given.

    Captions whose thing is not there are left out; things without a caption ask nothing.
    """
    texts = texts.only(np.isin(texts.owners, things.owners))
    if not len(texts):
        raise DataError(f"data set {common.dataset!r} has no caption of {names[1]}s that could be read")
    asking = things.only(np.isin(things.owners, texts.owners))
    there, back = f"{names[0]} to {names[1]}", f"{names[1]} to {names[0]}"
    outcomes = [
        answer(queries, items, task=task, common=common, query_bank=bank)
        for bank in ([False, True] if query_bank else [False])
        for queries, items, task in ((texts, things, there), (asking, texts, back))
    ]
    if captions is not None:
        outcomes.append(answer(texts, things, task=there, common=common, captions=captions))
    return tuple(outcomes)


def answer(
    queries: Side,
    items: Side,
    *,
    task: str,
    common: Outcome,
    query_bank: bool = False,
    captions: CaptionBank | None = None,
) -> Outcome:
    """Rank all items for each query by cosine; an item of the same owner is relevant.

    Args:
        queries: each has at least one relevant item.
        items: what is searched.
        task: name of the outcome.
        common: dataset, encoder, counts, settings and notes of the outcome.
        query_bank: normalise the scores with these queries as the bank (dynamic inverted softmax).
        captions: take off what each item gets from any caption.
    """
    ranks, gains = [], []
    hubness = np.float32(0) if captions is None else captions.hubness(items.vectors)[None]  # (1, n)
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
    if captions is not None:
        task = f"{task} (hub correction)"
        settings["hub correction"] = f"CSLS with {len(captions)} captions of the model"
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
