"""Mode `heads`: a frozen image backbone, heads and upper layers of the text tower learn, with or without RAM.

Without references it is the training of `mini`. With them, each step embeds the neighbours of its images with the
heads as they are, RAM blends them into the image embeddings, and the losses are taken on v'.
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
from impart.train.heads.corrections import CellAttention, Correction, ImageHead, TextHead
from impart.train.heads.model import EmbeddedReferences, HeadsModel, nearest_rows
from impart.train.heads.towers.text_tail import TextTail
from impart.train.losses import contrastive_loss, distillation_loss, partial_distillation_loss
from impart.train.prepare.retrieved import ZNormTensors, replace_at_random, shows_itself
from impart.train.settings import HeadsSettings, TrainConfig
from impart.train.task import Average, Temperature, TrainingTask, recall

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["HeadsReferences", "HeadsTask", "HeadsValidation"]

_CHUNK = 2048


@dataclass(frozen=True)
class HeadsReferences:
    """N reference pairs and who may not see which.

    Attributes:
        features: (N, F) of the clean view.
        sentences: (N, D) of their texts, by the tower as published.
        texts: (N,) which texts of the corpus these are.
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
    """Images and captions to measure on.

    Attributes:
        features: (B, F).
        sentences: (T, D), by the tower as published.
        owners: (T,) the image of each caption.
        own: (B,) content number of each image, comparable with `LitReferences.groups`.
    """

    features: Tensor
    sentences: Tensor
    owners: Tensor
    own: Tensor


class HeadsTask(TrainingTask):
    """Corrections of both towers, RAM where there are references, the text tower's upper layers where so wanted.

    Args:
        corpus: features and sentences; an image of weight 0 is never drawn.
        image: carries the frozen base; its correction is replaced, not changed.
        config: seed, lit, reference, ram, loss, optimiser and loop are read.
        components: (F, R) principal directions of the standardised features, for retrieval by the backbone.
        references: the held-out pairs; None = plain CLIP.
        validation: None = no validation.
        tail: the layers of the sentence tower that learn; None = none.
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
    ):
        self.config, self._corpus = config, corpus
        self._references, self._validation = references, validation
        heads, width = config.heads, corpus.texts.shape[1]
        torch.manual_seed(config.seed)
        own = copy.deepcopy(image)
        own.correction = Correction(
            own.weight.shape[1], heads.image_hidden, width, dropout=(heads.dropout_in, heads.dropout_mid)
        )
        own.attention = _attention(image, heads, width)
        text = TextHead(Correction(width, heads.text_hidden, width, dropout=(0.0, heads.text_dropout)))
        if config.reference.retrieval == "encoder":
            components = None
        ram = None
        if references is not None:
            retrieval_dim = width if components is None else components.shape[1]
            ram = build_ram(config.ram, dim=width, retrieval_dim=retrieval_dim)
        self._model = HeadsModel(own, text, components=components, ram=ram, k=config.ram.k).to(corpus.texts.device)
        self._temperature = Temperature(config.loss.init_scale, config.loss.max_scale).to(corpus.texts.device)
        self._tail = tail.to(corpus.texts.device) if tail is not None else None
        self._average = Average(self.modules(), heads.ema)
        self._neighbours: list[Tensor] = []  # (n, K) a view
        self._said = references.sentences if references is not None else None  # (N, D) by the tower as it was last
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
        """Find neighbours: once where the backbone retrieves, every few epochs where the encoder does.

        References' sentences follow a tower that learns just as often.
        """
        if self._references is None:
            return
        due = epoch % self.config.reference.refresh == 0
        if self._tail is not None and due:
            self._said = self._sentences(self._references)
        if not self._neighbours or (self._model.components is None and due):
            self._find()

    def _sentences(self, references: HeadsReferences) -> Tensor:
        """(N, D) of the references' texts, by the tower as it is."""
        return (
            references.sentences if self._tail is None else self._tail.embedded(self._tail.rows.texts[references.texts])
        )

    @torch.no_grad()
    def _find(self) -> None:
        references, options = self._references, self.config.reference
        assert references is not None
        assert self._said is not None
        self._model.eval()
        queries = [
            torch.cat([self._model.embed_images(part.float())[1] for part in torch.split(view, _CHUNK)])
            for view in self._corpus.views
        ]
        embedded = self._model.embed_references(references.features, self._said)
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
        """(rows of the corpus, seed of the draws), drawn by weight."""
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
            said = published if self._tail is None else self._tail.sentences(self._tail.rows.texts[numbers])
            t = self._model.embed_texts(said)
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
        """The losses that keep what the towers know, weighted."""
        corpus, heads, image = self._corpus, self.config.heads, self._model.image
        total = u.new_zeros(())
        clean = corpus.views[0][index].float()
        teacher = (image.logits(clean) / heads.teacher_temperature).softmax(dim=1)  # (B, C)
        if heads.class_weight:
            figures["classes"] = self._keep_names(u, teacher, rng)
            total = total + heads.class_weight * figures["classes"]
        if heads.kind_weight:
            tail = self._tail
            said = draw_variant(corpus.kinds, rng) if tail is None else tail.drawn(tail.rows.kinds, rng)
            kinds = self._model.embed_texts(said)  # (K, D)
            figures["kinds"] = _kind_loss((heads.class_scale * u @ kinds.T).float(), teacher, corpus)
            total = total + heads.kind_weight * figures["kinds"]
        if heads.text_weight:
            figures["texts"] = (t @ t.T - published @ published.T).square().mean() * 100
            total = total + heads.text_weight * figures["texts"]
        return total

    def _keep_names(self, u: Tensor, teacher: Tensor, rng: np.random.Generator) -> Tensor:
        """The backbone's distribution over the class names; over some of them, where saying all would cost much."""
        heads, tail = self.config.heads, self._tail
        if tail is None:
            names = self._model.embed_texts(draw_variant(self._corpus.names, rng))  # (C, D)
            return distillation_loss((heads.class_scale * u @ names.T).float(), teacher)
        classes = np.sort(rng.permutation(len(tail.rows.names))[: heads.names])
        names = self._model.embed_texts(tail.drawn(tail.rows.names, rng, chosen=classes))  # (c, D)
        logits = (heads.class_scale * u @ names.T).float()
        return partial_distillation_loss(logits, teacher, torch.as_tensor(classes, device=u.device))

    def _augmented(self, index: Tensor, views: Tensor, v: Tensor, q: Tensor, rng: np.random.Generator) -> Tensor:
        """v' (B, D), or v where there are no references."""
        references, options = self._references, self.config.reference
        if references is None:
            return v
        assert self._znorm is not None
        assert self._said is not None
        ids = self._neighbours[0][index].clone()
        for number, table in enumerate(self._neighbours[1:], 1):
            ids[views == number] = table[index[views == number]]
        found = ids
        ids = replace_at_random(found, len(references.features), options.random, rng)
        needed, places = torch.unique(ids.clamp(min=0), return_inverse=True)  # the heads see each reference once
        self._model.train(options.gradient)  # without a gradient there is no dropout on references either
        with torch.set_grad_enabled(options.gradient):
            image, retrieval = self._model.embed_images(references.features[needed].float())
            text = self._model.embed_texts(self._said[needed])
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
        """Recall of captions and images with the averaged weights; `base_` before augmentation."""
        data = self._validation
        if data is None:
            return {}
        self._average.swap()
        self._train(False)
        said = data.sentences if self._tail is None else self._tail.embedded(self._tail.rows.validation)
        t = self._model.embed_texts(said)
        v = self._model.encode_images(data.features)
        figures = recall(t @ v.T, data.owners)
        if self._references is not None:
            references = self._model.embed_references(self._references.features, self._sentences(self._references))
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
        """The model with its averaged weights, in evaluation mode. To be called once, after the last step.

        A sentence tower that learned has its averaged weights too, in place.
        """
        self._average.swap()
        if self._tail is not None:
            self._tail.eval().requires_grad_(False)
        return self._model.eval()

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = {"average": self._average.state(), "neighbours": self._neighbours}
        if self._tail is not None and self._said is not None:
            state["said"] = self._said
        if self._znorm is not None:
            state["cohort"] = [self._znorm.mean, self._znorm.covariance]
        return state

    def load_state(self, state: Mapping[str, Any]) -> None:
        device = self._corpus.texts.device
        self._average.load_state(state["average"])
        self._neighbours = [table.to(device) for table in state["neighbours"]]
        if "said" in state:
            self._said = state["said"].to(device)
        if "cohort" in state:
            self._znorm = ZNormTensors(*(part.to(device) for part in state["cohort"]))


def _attention(image: ImageHead, heads: HeadsSettings, width: int) -> CellAttention | None:
    """A new attention over cells, standardised as the given head's."""
    given = image.attention
    if given is None or not heads.cell_heads:
        return None
    assert isinstance(given, CellAttention), type(given)
    return CellAttention(
        given.mean,
        1 / given.scale,
        cells=len(given.places),
        heads=heads.cell_heads,
        hidden=heads.cell_hidden,
        outputs=width,
        dropout=(heads.dropout_cells, heads.dropout_in, heads.dropout_mid),
    )


def _kind_loss(logits: Tensor, teacher: Tensor, corpus: Corpus) -> Tensor:
    """Distillation over kinds, for the images of which enough of the distribution has a kind."""
    mass = teacher @ corpus.membership  # (B, K)
    total = mass.sum(1, keepdim=True)
    known = (total > 0.2).squeeze(1)
    if not known.any():
        return logits.new_zeros(())
    return distillation_loss(logits[known], mass[known] / total[known])
