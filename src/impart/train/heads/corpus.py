"""Training data of mode `heads`: features and sentence embeddings as tensors; draws of images, views and names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from impart.train.heads.class_names import ClassVocabulary, a_or_an, imagenet_vocabulary, name_prompts
from impart.train.heads.settings import HeadsSettings
from impart.train.heads.towers.features import FeatureCache
from impart.train.heads.towers.sentences import SentenceCache, SentenceTower
from impart.train.heads.towers.text_tail import TextRows
from impart.train.prepare.development_data import TrainingImage, read_classes, read_images, read_more
from impart.train.prepare.texts import text_key
from impart.train.settings import TrainConfig

__all__ = [
    "SMALL_VIEW",
    "Corpus",
    "build_corpus",
    "draw_variant",
    "draw_views",
    "sampling_weights",
    "text_rows",
    "training_images",
]

_KINDS_OF_VIEW = ("clean", "crop", "small")
SMALL_VIEW = _KINDS_OF_VIEW.index("small")


@dataclass(frozen=True)
class Corpus:
    """Training data as tensors on one device.

    Attributes:
        views: features (n, F) of every view; the first is the clean one.
        kinds_of_view: one per view: 0 clean, 1 crop, 2 small.
        weights: (n,) probability that an image is drawn; sums to 1.
        texts: (m, D) sentence embeddings of all texts.
        keys: (m,) equal for equal texts.
        spans: (n, 2) first text and number of texts of each image.
        names: (C, V, D) sentence embeddings of V prompts of each class name.
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


def training_images(data: Path, more: Path | None = None) -> list[TrainingImage]:
    """List the images of the development data, of `more`, and of the ImageNet sample under its class names.

    Args:
        data: the development data.
        more: a folder with one folder per source (`read_more`).
    """
    sample = [
        TrainingImage(path=path, source="imagenet_sample", texts=tuple(a_or_an(name) for name in names))
        for (path, _, _), names in zip(read_classes(data), imagenet_vocabulary().names, strict=True)
    ]
    return read_images(data) + (read_more(more) if more else []) + sample


def build_corpus(
    images: Sequence[TrainingImage],
    vocabulary: ClassVocabulary,
    features: FeatureCache,
    sentences: SentenceCache,
    config: TrainConfig,
    device: str,
) -> tuple[Corpus, Tensor]:
    """Read features and sentence embeddings of all images, texts and class names; what is not cached is computed.

    Returns:
        The corpus, and the mean embedding of the prompts of each class name (C, D), L2-normalised.
    """
    paths = [image.path for image in images]
    texts = [text for image in images for text in image.texts]
    numbers: dict[str, int] = {}
    keys = [numbers.setdefault(text_key(text), len(numbers)) for text in texts]
    counts = np.array([len(image.texts) for image in images])
    names = _prompted(vocabulary.names, sentences)  # C arrays (V, D)
    width = max(len(rows) for rows in names)
    kinds = _prompted([(kind,) for kind in vocabulary.kinds], sentences)
    views = config.backbone.views
    corpus = Corpus(
        views=[torch.from_numpy(features.features(paths, view)).half().to(device) for view in views],
        kinds_of_view=[_KINDS_OF_VIEW.index(view.rstrip("0123456789")) for view in views],
        weights=sampling_weights(images, config.heads),
        texts=torch.from_numpy(sentences.embed(texts)).to(device),
        keys=torch.tensor(keys, device=device),
        spans=np.stack([np.cumsum(counts) - counts, counts], axis=1),
        names=torch.from_numpy(np.stack([np.resize(rows, (width, rows.shape[1])) for rows in names])).to(device),
        kinds=torch.from_numpy(np.stack(kinds)).to(device),
        membership=torch.from_numpy(vocabulary.membership).to(device),
    )
    means = torch.from_numpy(np.stack([rows.mean(0) for rows in names])).to(device)
    return corpus, F.normalize(means, dim=-1)


def _prompted(names: Sequence[Sequence[str]], sentences: SentenceCache) -> list[npt.NDArray[np.float32]]:
    """Embed all prompts of all names of each class: C arrays (V, D)."""
    texts = [[text for name in own for text in name_prompts(name)] for own in names]
    rows = sentences.embed([text for own in texts for text in own])
    return np.split(rows, np.cumsum([len(own) for own in texts])[:-1])


def text_rows(
    images: Sequence[TrainingImage],
    vocabulary: ClassVocabulary,
    cache: Path,
    tower: SentenceTower,
    *,
    layers: int,
    validation: Sequence[str] = (),
) -> TextRows:
    """Read the token states of all texts of a training, numbered as `build_corpus` numbers its texts."""
    return TextRows.of(
        [text for image in images for text in image.texts],
        [[text for name in own for text in name_prompts(name)] for own in vocabulary.names],
        [name_prompts(kind) for kind in vocabulary.kinds],
        validation,
        cache=cache,
        tower=tower,
        layers=layers,
    )


def sampling_weights(images: Sequence[TrainingImage], settings: HeadsSettings) -> npt.NDArray[np.float64]:
    """Compute the probability of each image: captions and names in fixed shares, sources balanced within them.

    The share of a source depends on its number of different texts as well as of images: one photo of each of a thousand
    nouns teaches more names than a thousand photos of ten.
    """
    counts = Counter(image.source for image in images)
    texts: dict[str, set[str]] = {source: set() for source in counts}
    for image in images:
        texts[image.source].update(text_key(text) for text in image.texts)
    share = {
        source: len(texts[source]) ** settings.breadth * count**settings.balance for source, count in counts.items()
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
    """Draw a view of each image: its features (B, F), and the number of the view (B,)."""
    counts = Counter(corpus.kinds_of_view)
    shares = np.array([settings.view_shares[kind] / counts[kind] for kind in corpus.kinds_of_view])
    choice = torch.as_tensor(rng.choice(len(shares), len(rows), p=shares / shares.sum()), device=rows.device)
    features = corpus.views[0][rows].float()
    for number, view in enumerate(corpus.views[1:], 1):
        taken = choice == number
        features[taken] = view[rows[taken]].float()
    return features, choice


def draw_variant(variants: Tensor, rng: np.random.Generator) -> Tensor:
    """Draw one of V variants of each row: (C, V, D) to (C, D)."""
    choice = torch.as_tensor(rng.integers(variants.shape[1], size=len(variants)), device=variants.device)
    return variants[torch.arange(len(variants), device=variants.device), choice]
