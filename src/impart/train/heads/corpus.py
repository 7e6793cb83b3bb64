"""What mode `heads` reads: cached features and sentences as tensors, and how images, views and names are drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from impart.train.prepare.development_data import TrainingImage
from impart.train.prepare.texts import text_key
from impart.train.settings import HeadsSettings

__all__ = ["Corpus", "draw_variant", "draw_views", "sampling_weights"]


@dataclass(frozen=True)
class Corpus:
    """Everything the loop reads, as tensors on one device.

    Attributes:
        views: features (n, F) of every view; the first is the clean one.
        kinds_of_view: 0 clean, 1 crop, 2 small; one a view.
        weights: (n,) how often an image is drawn; sums to 1.
        texts: (m, D) sentence embeddings of all texts.
        keys: (m,) equal for equal texts.
        spans: (n, 2) first text and number of texts of each image.
        names: (C, V, D) sentence embeddings of V ways to say each class.
        kinds: (K, V, D) likewise for the kinds.
        membership: (C, K).
    """

    views: list[Tensor]
    kinds_of_view: list[int]
    weights: npt.NDArray[np.float64]
    texts: Tensor
    keys: Tensor
    spans: npt.NDArray[np.int64]
    names: Tensor
    kinds: Tensor
    membership: Tensor


def sampling_weights(images: Sequence[TrainingImage], settings: HeadsSettings) -> npt.NDArray[np.float64]:
    """Probability of each image: captions and names in fixed shares, sources within them balanced.

    A source counts by what it says as well as by its images: one photo of each of a thousand nouns teaches more names
    than a thousand photos of ten.
    """
    counts = Counter(image.source for image in images)
    said: dict[str, set[str]] = {source: set() for source in counts}
    for image in images:
        said[image.source].update(text_key(text) for text in image.texts)
    share = {
        source: len(said[source]) ** settings.breadth * count**settings.balance for source, count in counts.items()
    }
    groups = {source: source in settings.caption_sources for source in counts}
    totals = {group: sum(share[source] for source in counts if groups[source] is group) for group in (True, False)}
    portion = {True: settings.caption_share, False: 1 - settings.caption_share}
    weights: npt.NDArray[np.float64] = np.array(
        [portion[groups[p.source]] * share[p.source] / totals[groups[p.source]] / counts[p.source] for p in images]
    )
    weights /= weights.sum()
    return weights


def draw_views(
    corpus: Corpus, rows: Tensor, settings: HeadsSettings, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """A random view of each image: its features (B, F), and which view it is (B,)."""
    counts = Counter(corpus.kinds_of_view)
    shares = np.array([settings.view_shares[kind] / counts[kind] for kind in corpus.kinds_of_view])
    choice = torch.as_tensor(rng.choice(len(shares), len(rows), p=shares / shares.sum()), device=rows.device)
    features = corpus.views[0][rows].float()
    for number, view in enumerate(corpus.views[1:], 1):
        taken = choice == number
        features[taken] = view[rows[taken]].float()
    return features, choice


def draw_variant(variants: Tensor, rng: np.random.Generator) -> Tensor:
    """One of V variants for each row: (C, V, D) to (C, D)."""
    choice = torch.as_tensor(rng.integers(variants.shape[1], size=len(variants)), device=variants.device)
    return variants[torch.arange(len(variants), device=variants.device), choice]
