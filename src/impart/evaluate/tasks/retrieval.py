"""Retrieval among captioned images, text to image and image to text; scores are computed in blocks.

Text to image is measured a second time `(as searched)`, with the ranking of `impart search`: captions in several
prompts (`impart.retrieval.prompts`), and a correction for hubs (`impart.retrieval.hubness`) if the model has a caption
bank. `(query bank)` is an option that uses all queries.
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

_CELLS = 50_000_000  # numbers in one block of scores, 200 MB


@dataclasses.dataclass(frozen=True, kw_only=True)
class Side:
    """Queries or items of a retrieval task.

    Attributes:
        vectors: (q, D) L2-normalised.
        owners: (q,) number of the image or video that each belongs to: equal numbers are relevant.
        keys: q names, unique.
        clusters: (q,) numbers, equal for what the bootstrap draws together; or None.
    """

    vectors: Float32
    owners: Ints
    keys: tuple[str, ...]
    clusters: Ints | None = None

    def __len__(self) -> int:
        return len(self.owners)

    def only(self, wanted: npt.NDArray[np.bool_]) -> Side:
        """Select by a mask (q,)."""
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
    """Rank images by text and texts by image, over one set of captioned images.

    Text to image: one query per caption, its image is relevant. Image to text: one query per image with captions, all
    of them are relevant. Images without a caption are items but no queries.

    Args:
        encoder: plain or augmented.
        dataset: the images and captions.
        query_bank: measure both directions with query-bank normalisation as well.
        cache: of embeddings; None = no cache.
        label: the encoder's name in reports; None = its id.
        batch: images per forward pass.
        on_progress: called after each part of the images.

    Returns:
        Text to image, image to text; then both with the query bank, if requested; then text to image with the ranking
        of `impart search`.

    Raises:
        DataError: no image could be read, or no readable image has a caption.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> import impart
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("red", "blue"):
        ...     Image.new("RGB", (64, 64), name).save(folder / f"{name}.png")
        >>> table = "file,caption\\nred.png,a red square\\nblue.png,a blue square\\n"
        >>> _ = (folder / "captions.csv").write_text(table)
        >>> dataset = impart.evaluate.open_set(folder, kind="captions")
        >>> to_image, to_text, *_ = impart.evaluate.retrieval(impart.load_encoder("mini"), dataset)
        >>> to_image.figures["R@1"], to_text.figures["R@1"]
        (1.0, 1.0)
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
    """The ranking of `impart search`: prompt ensemble and hub correction.

    Attributes:
        vectors: (T, D) of the captions in the prompts of a search.
        bank: captions of the hub correction; None if the model has none.
    """

    vectors: Float32
    bank: CaptionBank | None


def as_searched(encoder: Encoder, captions: Sequence[str], *, cache: EmbeddingCache | None = None) -> Searched:
    """Embed captions as the queries of `impart search`."""
    return Searched(
        vectors=query_embeddings(captions, lambda texts: embed_texts(encoder, texts, cache=cache)),
        bank=bundled_bank(base_of(encoder)),
    )


def caption_keys(keys: tuple[str, ...], owners: Ints) -> tuple[str, ...]:
    """Name each caption by its image and its number among the captions of the image.

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
    items: Side,
    *,
    names: tuple[str, str],
    common: Result,
    query_bank: bool = False,
    searched: Searched | None = None,
) -> tuple[Result, ...]:
    """Rank items by text and texts by item: plain, with the query bank if requested, and with the ranking of a search.

    Captions of missing items are left out. Items without a caption are no queries.
    """
    answerable = np.isin(texts.owners, items.owners)
    asked = None if searched is None else dataclasses.replace(texts, vectors=searched.vectors).only(answerable)
    texts = texts.only(answerable)
    if not len(texts):
        raise DataError(f"data set {common.dataset!r} has no caption of a readable {names[1]}")
    captioned = items.only(np.isin(items.owners, texts.owners))
    to_item, to_text = f"{names[0]} to {names[1]}", f"{names[1]} to {names[0]}"
    results = [
        answer(queries, ranked, task=task, common=common, query_bank=bank)
        for bank in ([False, True] if query_bank else [False])
        for queries, ranked, task in ((texts, items, to_item), (captioned, texts, to_text))
    ]
    if searched is not None and asked is not None:
        results.append(answer(asked, items, task=to_item, common=common, searched=searched))
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
    """Rank all items for each query by cosine; items of the same owner are relevant.

    Args:
        queries: each has at least one relevant item.
        items: what is ranked.
        task: name of the result.
        common: dataset, encoder, counts, settings and notes of the result.
        query_bank: normalise the scores with these queries as the bank (dynamic inverted softmax).
        searched: use the ranking of a search; the queries are its vectors.
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
