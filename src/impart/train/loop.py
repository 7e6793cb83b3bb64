"""The training loop of `mini`: cached features and sentences in, corrections of both towers out."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from impart.train.data import Picture
from impart.train.heads import Correction, ImageHead, TextHead
from impart.train.loss import contrastive_loss, distillation_loss

__all__ = ["Corpus", "HeadSettings", "sampling_weights", "text_key", "train_heads"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class HeadSettings:
    """How one pair of corrections is trained.

    Attributes:
        epochs: each as many draws as there are pictures.
        batch: pairs in a step.
        learning_rate: peak of a one-cycle schedule with warm-up.
        weight_decay: of AdamW.
        image_hidden: width of the image correction.
        text_hidden: width of the text correction.
        dropout_in: share of standardised features dropped.
        dropout_mid: likewise between the layers.
        text_dropout: between the layers of the text correction.
        top: class names averaged into the base image embedding.
        temperature: of their softmax.
        class_weight: of the loss that keeps the 1,000 class names.
        kind_weight: of the loss over kinds (`dog`, `vehicle`).
        text_weight: of the loss that keeps distances between sentences.
        class_scale: inverse temperature of both.
        teacher_temperature: softens the backbone's classifier as a teacher.
        init_scale: start of the contrastive inverse temperature.
        max_scale: its clamp.
        smoothing: of the contrastive target.
        near_text: texts with a higher cosine, though not equal, are no negatives.
        view_shares: how often a clean, cropped or shrunk view is drawn.
        caption_share: share of draws from `caption_sources`.
        caption_sources: folders with sentences; the others hold names.
        balance: within both groups a source of n pictures is drawn like n ** balance.
        ema: decay of the averaged weights that are returned.
    """

    epochs: int = 12
    batch: int = 512
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    image_hidden: int = 512
    text_hidden: int = 512
    dropout_in: float = 0.3
    dropout_mid: float = 0.5
    text_dropout: float = 0.3
    top: int = 10
    temperature: float = 2.0
    class_weight: float = 1.0
    kind_weight: float = 0.0
    text_weight: float = 0.0
    class_scale: float = 20.0
    teacher_temperature: float = 1.0
    init_scale: float = 14.0
    max_scale: float = 50.0
    smoothing: float = 0.0
    near_text: float = 0.9
    view_shares: tuple[float, float, float] = (0.4, 0.25, 0.35)
    caption_share: float = 0.5
    caption_sources: tuple[str, ...] = ("flickr8k", "openstax", "openstax2", "philschatz_biology", "sites")
    balance: float = 0.7
    ema: float = 0.995


@dataclass(frozen=True)
class Corpus:
    """Everything the loop reads, as tensors on one device.

    Attributes:
        views: features (n, F) of every view; the first is the clean one.
        kinds_of_view: 0 clean, 1 crop, 2 small; one a view.
        weights: (n,) how often a picture is drawn.
        texts: (m, D) sentence embeddings of all texts.
        keys: (m,) equal for equal texts.
        spans: (n, 2) first text and number of texts of each picture.
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


def text_key(text: str) -> str:
    """What two texts must share to count as equal: no `a photo of`, articles, case or final stop.

    >>> text_key("A photo of an Airplane."), text_key("an airplane")
    ('airplane', 'airplane')
    """
    text = re.sub(r"^a (?:photo|picture) of ", "", text.lower().strip(" ."))
    return re.sub(r"^(?:an?|the) ", "", text)


def sampling_weights(pictures: Sequence[Picture], settings: HeadSettings) -> npt.NDArray[np.float64]:
    """Probability of each picture: captions and names in fixed shares, sources within them balanced."""
    counts = Counter(picture.source for picture in pictures)
    share = {source: float(count) ** settings.balance for source, count in counts.items()}
    groups = {source: source in settings.caption_sources for source in counts}
    totals = {group: sum(share[source] for source in counts if groups[source] is group) for group in (True, False)}
    portion = {True: settings.caption_share, False: 1 - settings.caption_share}
    weights: npt.NDArray[np.float64] = np.array(
        [portion[groups[p.source]] * share[p.source] / totals[groups[p.source]] / counts[p.source] for p in pictures]
    )
    weights /= weights.sum()
    return weights


def train_heads(
    corpus: Corpus, image: ImageHead, settings: HeadSettings, *, seed: int
) -> tuple[Correction, Correction]:
    """Train one pair of corrections.

    Args:
        corpus: features and sentences.
        image: carries the frozen base; its correction is replaced, not changed.
        settings: of this training.
        seed: of initial weights, draws and dropout.

    Returns:
        The averaged corrections for images and texts, in evaluation mode.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    device = corpus.texts.device
    width = corpus.texts.shape[1]
    for_image = Correction(
        corpus.views[0].shape[1],
        settings.image_hidden,
        width,
        dropout=(settings.dropout_in, settings.dropout_mid),
    ).to(device)
    for_text = Correction(width, settings.text_hidden, width, dropout=(0.0, settings.text_dropout)).to(device)
    text = TextHead(for_text)
    log_scale = nn.Parameter(torch.tensor(float(np.log(settings.init_scale)), device=device))
    parameters = [*for_image.parameters(), *for_text.parameters(), log_scale]
    optimiser = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    steps = max(1, settings.epochs * len(corpus.spans) // settings.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, settings.learning_rate, total_steps=steps, pct_start=0.1)
    averaged = [parameter.detach().clone() for parameter in parameters]
    for step in range(steps):
        rows = rng.choice(len(corpus.spans), settings.batch, p=corpus.weights)
        features, clean = _draw_views(corpus, rows, settings, rng)
        picked = torch.as_tensor(corpus.spans[rows, 0] + rng.integers(corpus.spans[rows, 1]), device=device)
        u = F.normalize(image.base(features) + for_image(image.standardise(features)), dim=-1)  # (B, D)
        sentences = corpus.texts[picked]  # (B, D)
        t = F.normalize(text(sentences), dim=-1)
        keys = corpus.keys[picked]
        near = sentences @ sentences.T > settings.near_text
        scale = log_scale.exp().clamp(max=settings.max_scale)
        loss = contrastive_loss(scale * u @ t.T, keys, ignore=near, smoothing=settings.smoothing)
        teacher = F.linear(clean, image.weight, image.bias) / settings.teacher_temperature
        teacher = teacher.softmax(dim=1)  # (B, C)
        if settings.class_weight:
            names = F.normalize(text(_draw_variant(corpus.names, rng)), dim=-1)  # (C, D)
            loss = loss + settings.class_weight * distillation_loss(settings.class_scale * u @ names.T, teacher)
        if settings.kind_weight:
            kinds = F.normalize(text(_draw_variant(corpus.kinds, rng)), dim=-1)  # (K, D)
            loss = loss + settings.kind_weight * _kind_loss(settings.class_scale * u @ kinds.T, teacher, corpus)
        if settings.text_weight:
            loss = loss + settings.text_weight * (t @ t.T - sentences @ sentences.T).square().mean() * 100
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            decay = min(settings.ema, (1 + step) / (10 + step))
            for mean, parameter in zip(averaged, parameters, strict=True):
                mean.lerp_(parameter, 1 - decay)
        if step % 100 == 99 or step == steps - 1:
            _log.info("seed %d, step %d of %d: loss %.3f, scale %.1f", seed, step + 1, steps, loss.item(), scale.item())
    with torch.no_grad():
        for mean, parameter in zip(averaged, parameters, strict=True):
            parameter.copy_(mean)
    return for_image.eval(), for_text.eval()


def _draw_views(
    corpus: Corpus, rows: npt.NDArray[np.int64], settings: HeadSettings, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Features of a random view of each picture, and of its clean one: two (B, F)."""
    device = corpus.texts.device
    index = torch.as_tensor(rows, device=device)
    clean = corpus.views[0][index].float()
    counts = Counter(corpus.kinds_of_view)
    shares = np.array([settings.view_shares[kind] / counts[kind] for kind in corpus.kinds_of_view])
    choice = torch.as_tensor(rng.choice(len(shares), len(rows), p=shares / shares.sum()), device=device)
    features = clean.clone()
    for number, view in enumerate(corpus.views[1:], 1):
        taken = choice == number
        features[taken] = view[index[taken]].float()
    return features, clean


def _draw_variant(variants: Tensor, rng: np.random.Generator) -> Tensor:
    """One of V variants for each row: (C, V, D) to (C, D)."""
    choice = torch.as_tensor(rng.integers(variants.shape[1], size=len(variants)), device=variants.device)
    return variants[torch.arange(len(variants), device=variants.device), choice]


def _kind_loss(logits: Tensor, teacher: Tensor, corpus: Corpus) -> Tensor:
    """Distillation over kinds, each picture weighted by how much of its distribution has a kind."""
    mass = teacher @ corpus.membership  # (B, K)
    total = mass.sum(1, keepdim=True)
    known = (total > 0.2).squeeze(1)
    if not known.any():
        return logits.new_zeros(())
    return distillation_loss(logits[known], mass[known] / total[known])
