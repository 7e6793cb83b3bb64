"""Mode `heads`: heads on frozen towers, and upper layers of the text tower, learn with or without RAM.

Without references this is the training of `mini`. With references, each step embeds the neighbours of its images with
the current heads, RAM blends them into the image embeddings, and the losses are computed on v'.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from impart.blending.ram import build_ram
from impart.retrieval.near_duplicates import SAME_IMAGE
from impart.train.heads.corpus import Corpus, draw_variant, draw_views
from impart.train.heads.heads import CellAttention, Correction, Heads, ImageHead, TextHead
from impart.train.heads.model import EmbeddedReferences, HeadsModel, nearest_rows
from impart.train.heads.settings import HeadsSettings
from impart.train.heads.towers.text_tail import TextTail
from impart.train.losses import contrastive_loss, distillation_loss, partial_distillation_loss
from impart.train.prepare.retrieved import ZNormTensors, replace_at_random, shows_itself
from impart.train.settings import TrainConfig
from impart.train.task import Average, Temperature, TrainingTask, recall

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["HeadsReferences", "HeadsTask", "HeadsValidation"]

_CHUNK = 2048


@dataclass(frozen=True)
class HeadsReferences:
    """N reference pairs, with the numbers that keep an image from finding itself.

    Attributes:
        features: (N, F) of the clean view.
        sentences: (N, D) of their texts, by the tower as published.
        texts: (N,) numbers of these texts in the corpus.
        groups: (N,) content number of each reference's image.
        own: (n,) content number of each image of the corpus.
    """

    features: Tensor
    sentences: Tensor
    texts: npt.NDArray[np.int64]
    groups: Tensor
    own: Tensor


@dataclass(frozen=True)
class HeadsValidation:
    """Images and captions for validation.

    Attributes:
        features: (B, F).
        sentences: (T, D), by the tower as published.
        owners: (T,) the image of each caption.
        own: (B,) content number of each image, comparable with `HeadsReferences.groups`.
    """

    features: Tensor
    sentences: Tensor
    owners: Tensor
    own: Tensor


class HeadsTask(TrainingTask):
    """Training of the heads of both towers; of RAM, if there are references; of upper layers of the text tower.

    Args:
        corpus: features and sentences; an image of weight 0 is never drawn.
        image: contains the frozen base; a copy of it gets the heads that learn.
        config: seed, heads, reference, ram, loss, optimiser and loop are read.
        components: (F, R) principal directions of the standardised features, for retrieval by the backbone.
        references: the held-out pairs; None = plain CLIP.
        validation: None = no validation.
        tail: the layers of the sentence tower that learn; None = none.
        start: heads of which a copy learns on; None = new heads.
    """

    def __init__(
        self,
        corpus: Corpus,
        image: ImageHead,
        config: TrainConfig,
        *,
        components: Tensor | None = None,
        references: HeadsReferences | None = None,
        validation: HeadsValidation | None = None,
        tail: TextTail | None = None,
        start: Heads | None = None,
    ):
        self.config, self._corpus = config, corpus
        self._references, self._validation = references, validation
        self.validated = f"{len(validation.features)} images" if validation is not None else ""
        width = corpus.texts.shape[1]
        torch.manual_seed(config.seed)
        own = copy.deepcopy(image)
        heads = copy.deepcopy(start).requires_grad_(True) if start else _new_heads(image, config.heads, width)
        own.use(heads)
        if config.reference.retrieval == "encoder":
            components = None
        ram = None
        if references is not None:
            retrieval_dim = width if components is None else components.shape[1]
            ram = build_ram(config.ram, dim=width, retrieval_dim=retrieval_dim)
        self._model = HeadsModel(own, TextHead(heads.text), components=components, ram=ram, k=config.ram.k).to(
            corpus.texts.device
        )
        self._temperature = Temperature(config.loss.init_scale, config.loss.max_scale).to(corpus.texts.device)
        self._tail = tail.to(corpus.texts.device) if tail is not None else None
        self._average = Average(self.modules(), config.heads.ema)
        self._neighbours: list[Tensor] = []  # (n, K) per view
        self._sentences = references.sentences if references is not None else None  # (N, D) as of the last refresh
        self._znorm: ZNormTensors | None = None
        self._batch = config.loop.batch
        self.pairs_per_step = self._batch * config.loop.accumulate
        self.steps_per_epoch = max(1, int((corpus.weights > 0).sum()) // self.pairs_per_step)

    def modules(self) -> dict[str, nn.Module]:
        model = self._model
        learned: dict[str, nn.Module] = {"image": model.image.correction, "text": model.text.correction}
        if model.image.attention is not None:
            learned["cells"] = model.image.attention
        if model.ram is not None:
            learned["ram"] = model.ram
        if self._tail is not None:
            learned["tower"] = self._tail
        return learned | {"temperature": self._temperature}

    def prepare(self, accelerator: Accelerator, modules: dict[str, nn.Module]) -> None:  # noqa: ARG002
        self._train(True)

    def _train(self, mode: bool) -> None:
        self._model.train(mode)
        if self._tail is not None:
            self._tail.train(mode)

    def start_epoch(self, epoch: int) -> None:
        """Find neighbours: once if the backbone retrieves, every few epochs if the encoder does.

        The references' sentences follow a tower that learns equally often.
        """
        if self._references is None:
            return
        due = epoch % self.config.reference.refresh == 0
        if self._tail is not None and due:
            self._sentences = self._embed_sentences(self._references)
        if not self._neighbours or (self._model.components is None and due):
            self._find()

    def _embed_sentences(self, references: HeadsReferences) -> Tensor:
        """Embed the references' texts (N, D) with the current tower."""
        return (
            references.sentences if self._tail is None else self._tail.embedded(self._tail.rows.texts[references.texts])
        )

    @torch.no_grad()
    def _find(self) -> None:
        references, options = self._references, self.config.reference
        assert references is not None
        assert self._sentences is not None
        self._model.eval()
        queries = [
            torch.cat([self._model.embed_images(part.float())[1] for part in torch.split(view, _CHUNK)])
            for view in self._corpus.views
        ]
        embedded = self._model.embed_references(references.features, self._sentences)
        self._neighbours = nearest_rows(
            queries,
            embedded.retrieval,
            self._model.k,
            own=references.own,
            groups=references.groups,
            near_duplicate=options.near_duplicate,
        )
        self._znorm = embedded.znorm
        self._model.train()

    def batches(self, *, seed: int, epoch: int, position: int) -> Iterator[tuple[npt.NDArray[np.int64], int]]:
        """Draw (rows of the corpus, seed of the further draws) by weight."""
        accumulate = self.config.loop.accumulate
        for number in range(position * accumulate, self.steps_per_epoch * accumulate):
            source = np.random.SeedSequence((seed, epoch, number))
            rng = np.random.default_rng(source)
            rows = rng.choice(len(self._corpus.spans), self._batch, p=self._corpus.weights)
            yield rows, int(rng.integers(2**62))

    def training_step(self, batch: tuple[npt.NDArray[np.int64], int], accelerator: Accelerator) -> dict[str, Tensor]:
        rows, seed = batch
        rng = np.random.default_rng(seed)
        corpus, heads, options = self._corpus, self.config.heads, self.config.loss
        device = corpus.texts.device
        index = torch.as_tensor(rows, device=device)
        features, views = draw_views(corpus, index, heads, rng)
        numbers = corpus.spans[rows, 0] + rng.integers(corpus.spans[rows, 1])
        picked = torch.as_tensor(numbers, device=device)
        published = corpus.texts[picked]  # (B, D)
        keys = corpus.keys[picked]
        near = published @ published.T > options.near_text
        figures: dict[str, Tensor] = {}
        with accelerator.autocast():
            v, q = self._model.embed_images(features)
            u = self._augmented(index, views, v, q, rng)
            sentences = published if self._tail is None else self._tail.sentences(self._tail.rows.texts[numbers])
            t = self._model.embed_texts(sentences)
            scale = self._temperature()
            loss = contrastive_loss((scale * u @ t.T).float(), keys, ignore=near, smoothing=options.smoothing)
            figures["contrastive"] = loss
            if self._references is not None and self.config.reference.base_weight:
                base = contrastive_loss((scale * v @ t.T).float(), keys, ignore=near, smoothing=options.smoothing)
                figures["base"] = base
                loss = loss + self.config.reference.base_weight * base
            loss = loss + self._keep(u, t, published, index, rng, figures)
        accelerator.backward(loss)
        figures |= {"loss": loss, "scale": scale}
        return {name: value.detach() for name, value in figures.items()}

    def _keep(
        self,
        u: Tensor,
        t: Tensor,
        published: Tensor,
        index: Tensor,
        rng: np.random.Generator,
        figures: dict[str, Tensor],
    ) -> Tensor:
        """Compute the weighted losses that keep class names, kinds and distances between sentences."""
        corpus, heads, image = self._corpus, self.config.heads, self._model.image
        total = u.new_zeros(())
        clean = corpus.views[0][index].float()
        teacher = (image.logits(clean) / heads.teacher_temperature).softmax(dim=1)  # (B, C)
        if heads.class_weight:
            figures["classes"] = self._keep_names(u, teacher, rng)
            total = total + heads.class_weight * figures["classes"]
        if heads.kind_weight:
            tail = self._tail
            sentences = draw_variant(corpus.kinds, rng) if tail is None else tail.drawn(tail.rows.kinds, rng)
            kinds = self._model.embed_texts(sentences)  # (K, D)
            figures["kinds"] = _kind_loss((heads.class_scale * u @ kinds.T).float(), teacher, corpus)
            total = total + heads.kind_weight * figures["kinds"]
        if heads.text_weight:
            figures["texts"] = (t @ t.T - published @ published.T).square().mean() * 100
            total = total + heads.text_weight * figures["texts"]
        return total

    def _keep_names(self, u: Tensor, teacher: Tensor, rng: np.random.Generator) -> Tensor:
        """Compute the distillation loss over the class names; if the tower learns, over some of them, to save time."""
        heads, tail = self.config.heads, self._tail
        if tail is None:
            names = self._model.embed_texts(draw_variant(self._corpus.names, rng))  # (C, D)
            return distillation_loss((heads.class_scale * u @ names.T).float(), teacher)
        classes = np.sort(rng.permutation(len(tail.rows.names))[: heads.names])
        names = self._model.embed_texts(tail.drawn(tail.rows.names, rng, chosen=classes))  # (c, D)
        logits = (heads.class_scale * u @ names.T).float()
        return partial_distillation_loss(logits, teacher, torch.as_tensor(classes, device=u.device))

    def _augmented(self, index: Tensor, views: Tensor, v: Tensor, q: Tensor, rng: np.random.Generator) -> Tensor:
        """Compute v' (B, D); v without references."""
        references, options = self._references, self.config.reference
        if references is None:
            return v
        assert self._znorm is not None
        assert self._sentences is not None
        ids = self._neighbours[0][index].clone()
        for number, table in enumerate(self._neighbours[1:], 1):
            ids[views == number] = table[index[views == number]]
        found = ids
        ids = replace_at_random(found, len(references.features), options.random, rng)
        needed, places = torch.unique(ids.clamp(min=0), return_inverse=True)  # each reference is embedded once
        self._model.train(options.gradient)  # no gradient: no dropout on references
        with torch.set_grad_enabled(options.gradient):
            image, retrieval = self._model.embed_images(references.features[needed].float())
            text = self._model.embed_texts(self._sentences[needed])
        self._model.train()
        places = places.masked_fill(ids < 0, -1)
        if options.random:
            near = shows_itself(q, retrieval.detach(), places, near_duplicate=min(options.near_duplicate, SAME_IMAGE))
            places = places.masked_fill((ids != found) & near, -1)
        embedded = EmbeddedReferences(image, text, retrieval, self._znorm)
        return self._model.augment(v, q, places, embedded)

    def after_step(self, step: int) -> None:
        self._average.update(step)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Measure recall of captions and images with the averaged weights; `base_` is before augmentation."""
        data = self._validation
        if data is None:
            return {}
        self._average.swap()
        self._train(False)
        sentences = data.sentences if self._tail is None else self._tail.embedded(self._tail.rows.validation)
        t = self._model.embed_texts(sentences)
        v = self._model.encode_images(data.features)
        figures = recall(t @ v.T, data.owners)
        if self._references is not None:
            references = self._model.embed_references(
                self._references.features, self._embed_sentences(self._references)
            )
            augmented = self._model.encode_images(
                data.features,
                references,
                own=data.own,
                groups=self._references.groups,
                near_duplicate=self.config.reference.near_duplicate,
            )
            base = {f"base_{name}": value for name, value in figures.items()}
            figures = recall(t @ augmented.T, data.owners) | base
        self._average.swap()
        self._train(True)
        return figures

    def finished(self) -> HeadsModel:
        """Return the model with its averaged weights, in evaluation mode. To be called once, after the last step.

        The upper layers of the sentence tower get their averaged weights in place.
        """
        self._average.swap()
        if self._tail is not None:
            self._tail.eval().requires_grad_(False)
        return self._model.eval()

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = {"average": self._average.state(), "neighbours": self._neighbours}
        if self._tail is not None and self._sentences is not None:
            state["sentences"] = self._sentences
        if self._znorm is not None:
            state["znorm"] = [self._znorm.mean, self._znorm.covariance]
        return state

    def load_state(self, state: Mapping[str, Any]) -> None:
        device = self._corpus.texts.device
        self._average.load_state(state["average"])
        self._neighbours = [table.to(device) for table in state["neighbours"]]
        if "sentences" in state:
            self._sentences = state["sentences"].to(device)
        if "znorm" in state:
            self._znorm = ZNormTensors(*(part.to(device) for part in state["znorm"]))


def _new_heads(image: ImageHead, settings: HeadsSettings, width: int) -> Heads:
    """Build untrained heads; the attention over cells is standardised like that of the given image head."""
    correction = Correction(
        image.weight.shape[1], settings.image_hidden, width, dropout=(settings.dropout_in, settings.dropout_mid)
    )
    cells = None
    if image.attention is not None and settings.cell_heads:
        assert isinstance(image.attention, CellAttention), type(image.attention)
        cells = CellAttention(
            image.attention.mean,
            1 / image.attention.scale,
            cells=len(image.attention.places),
            heads=settings.cell_heads,
            hidden=settings.cell_hidden,
            outputs=width,
            dropout=(settings.dropout_cells, settings.dropout_in, settings.dropout_mid),
        )
    return Heads(
        correction, Correction(width, settings.text_hidden, width, dropout=(0.0, settings.text_dropout)), cells
    )


def _kind_loss(logits: Tensor, teacher: Tensor, corpus: Corpus) -> Tensor:
    """Compute the distillation loss over kinds, for images with enough probability on classes that have a kind."""
    mass = teacher @ corpus.membership  # (B, K)
    total = mass.sum(1, keepdim=True)
    known = (total > 0.2).squeeze(1)
    if not known.any():
        return logits.new_zeros(())
    return distillation_loss(logits[known], mass[known] / total[known])
