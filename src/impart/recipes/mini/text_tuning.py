"""The last stage of `mini`: the upper layers of the sentence tower learn too, together with the heads at hand.

The heads come from `train_heads`, one pair a seed, joined. A sentence tower cannot be averaged over seeds as they are,
so it is tuned once, from its published weights, with the joined heads learning on at a low rate.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from impart.errors import ConfigError
from impart.train.events import StepDone
from impart.train.heads.corpus import Corpus, draw_views
from impart.train.heads.corrections import Correction, ImageHead
from impart.train.heads.towers.sentences import SentenceTower
from impart.train.heads.towers.text_tail import TextRows, TextTail
from impart.train.loop import fit
from impart.train.losses import contrastive_loss, partial_distillation_loss
from impart.train.settings import LoopSettings, OptimiserSettings, TrainConfig
from impart.train.task import Average, Temperature, TrainingTask

if TYPE_CHECKING:
    from accelerate import Accelerator

    from impart.recipes.mini.train_heads import HeadSettings

__all__ = ["TextTuningTask", "TuningSettings", "tune_text"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TuningSettings:
    """How the upper layers of the sentence tower are tuned.

    Attributes:
        steps: optimiser steps of each run; () = the tower stays as published. All runs start from the same weights, and
            the mean of what they end with is kept (model soup, Wortsman et al., ICML 2022).
        layers: tuned, counted from the top.
        batch: pairs in a step.
        classes: class names drawn a step for the loss that keeps them.
        learning_rate: peak, of the layers.
        heads_rate: peak of the heads and the temperature, as a factor on it.
        dropout: on the states that enter the first tuned layer.
        ema: decay of the averaged weights that are returned.
    """

    steps: tuple[int, ...] = ()
    layers: int = 2
    batch: int = 512
    classes: int = 400
    learning_rate: float = 1e-4
    heads_rate: float = 3.0
    dropout: float = 0.05
    ema: float = 0.99

    def __post_init__(self) -> None:
        if not isinstance(self.steps, tuple):
            raise ConfigError(f"tuning.steps is {self.steps}: a list, the steps of each run")
        if any(steps < 1 for steps in self.steps) or self.layers < 1:
            raise ConfigError(f"tuning.steps is {list(self.steps)}, layers {self.layers}: none may be less than 1")


class TextTuningTask(TrainingTask):
    """Upper layers of the sentence tower, and the heads.

    Args:
        corpus: features and sentences; its sentences are those of the tower as published.
        image: joined head; learns in place.
        text: joined correction; learns in place.
        tower: its upper layers learn in place.
        rows: token states of the corpus' texts.
        head: how the heads were trained: dropout, views, losses.
        settings: of this stage.
        steps: of this run.
        config: of the engine.
    """

    def __init__(
        self,
        corpus: Corpus,
        image: ImageHead,
        text: Correction,
        *,
        tower: SentenceTower,
        rows: TextRows,
        head: HeadSettings,
        settings: TuningSettings,
        steps: int,
        config: TrainConfig,
    ):
        self._corpus, self._head, self._settings, self.config = corpus, head, settings, config
        self._image, self._text = image, text
        self._tail = TextTail(tower, rows, layers=settings.layers, dropout=settings.dropout).to(corpus.texts.device)
        _drop(image.correction, head.dropout_in, head.dropout_mid)
        _drop(text, 0.0, head.text_dropout)
        self._temperature = Temperature(head.init_scale, head.max_scale).to(corpus.texts.device)
        for module in self.modules().values():
            module.requires_grad_(True)
        self._average = Average(self.modules(), settings.ema)
        self.pairs_per_step = settings.batch
        self.steps_per_epoch = steps

    def modules(self) -> dict[str, nn.Module]:
        learned: dict[str, nn.Module] = {"tower": self._tail, "image": self._image.correction, "text": self._text}
        if self._image.attention is not None:
            learned["cells"] = self._image.attention
        return learned | {"temperature": self._temperature}

    def prepare(self, accelerator: Accelerator, modules: dict[str, nn.Module]) -> None:  # noqa: ARG002
        self._image.train()
        self._text.train()
        self._tail.train()

    def batches(self, *, seed: int, epoch: int, position: int) -> Iterator[tuple[npt.NDArray[np.int64], int]]:
        """(rows of the corpus, seed of the draws), drawn by weight."""
        for number in range(position, self.steps_per_epoch):
            rng = np.random.default_rng(np.random.SeedSequence((seed, epoch, number)))
            rows = rng.choice(len(self._corpus.spans), self._settings.batch, p=self._corpus.weights)
            yield np.sort(rows), int(rng.integers(2**62))

    def training_step(self, batch: tuple[npt.NDArray[np.int64], int], accelerator: Accelerator) -> dict[str, Tensor]:
        rows, seed = batch
        rng = np.random.default_rng(seed)
        corpus, head = self._corpus, self._head
        index = torch.as_tensor(rows, device=corpus.texts.device)
        features, _ = draw_views(corpus, index, head, rng)
        picked = corpus.spans[rows, 0] + rng.integers(corpus.spans[rows, 1])
        published = corpus.texts[torch.as_tensor(picked, device=index.device)]  # (B, D)
        keys = corpus.keys[torch.as_tensor(picked, device=index.device)]
        u = F.normalize(self._image(features), dim=-1)
        t = self._said(self._tail.sentences(self._tail.rows.texts[picked]))
        loss = contrastive_loss(
            self._temperature() * u @ t.T,
            keys,
            ignore=published @ published.T > head.near_text,
            smoothing=head.smoothing,
        )
        figures = {"contrastive": loss.detach()}
        if head.class_weight:
            kept = self._keep_names(u, index, rng)
            figures["classes"] = kept.detach()
            loss = loss + head.class_weight * kept
        accelerator.backward(loss)
        return figures | {"loss": loss.detach(), "scale": self._temperature().detach()}

    def _keep_names(self, u: Tensor, index: Tensor, rng: np.random.Generator) -> Tensor:
        """The teacher's distribution over some of the class names."""
        head, names = self._head, self._tail.rows.names
        classes = np.sort(rng.permutation(len(names))[: self._settings.classes])
        t = self._said(self._tail.drawn(names, rng, chosen=classes))
        with torch.no_grad():
            clean = self._corpus.views[0][index].float()
            teacher = (self._image.logits(clean) / head.teacher_temperature).softmax(dim=1)
        return partial_distillation_loss(head.class_scale * u @ t.T, teacher, torch.as_tensor(classes, device=u.device))

    def _said(self, sentences: Tensor) -> Tensor:
        """t (T, D) of sentence embeddings."""
        return F.normalize(sentences + self._text(sentences), dim=-1)

    def after_step(self, step: int) -> None:
        self._average.update(step)

    def finish(self) -> None:
        """Put the averaged weights in place, in evaluation mode. To be called once, after the last step."""
        self._average.swap()
        for module in (self._image, self._text, self._tail):
            module.eval()
            module.requires_grad_(False)


def tune_text(
    corpus: Corpus,
    image: ImageHead,
    text: Correction,
    *,
    tower: SentenceTower,
    rows: TextRows,
    head: HeadSettings,
    settings: TuningSettings,
    seed: int = 0,
) -> None:
    """Tune the tower's upper layers and the heads, in place (see `TextTuningTask`): the mean of all runs."""
    base = head.as_config(seed=seed, device=corpus.texts.device.type)
    rates = dict.fromkeys(("image", "text", "cells", "temperature"), settings.heads_rate)
    optimiser = OptimiserSettings(
        learning_rate=settings.learning_rate,
        rates=rates,
        weight_decay=head.weight_decay,
        betas=(0.9, 0.999),
        eps=1e-8,
        warmup=0.1,
        clip=0.0,
    )
    everything = nn.ModuleList((image, text, tower))
    start = _weights(everything)
    ends = []
    for number, steps in enumerate(settings.steps, 1):
        _set_weights(everything, start)
        config = dataclasses.replace(
            base,
            optimiser=optimiser,
            loop=LoopSettings(steps=steps, batch=settings.batch, device=base.loop.device),
        )
        task = TextTuningTask(
            corpus, image, text, tower=tower, rows=rows, head=head, settings=settings, steps=steps, config=config
        )
        for event in fit(task, config):
            if isinstance(event, StepDone) and (event.step % 25 == 0 or event.step == event.steps):
                where = f"run {number} of {len(settings.steps)}, step {event.step} of {event.steps}"
                _log.info("text tower, %s: loss %.3f", where, event.loss)
        task.finish()
        ends.append(_weights(everything))
    _set_weights(
        everything, {name: torch.stack([end[name] for end in ends]).mean(0) for name in start} if ends else start
    )


def _weights(module: nn.Module) -> dict[str, Tensor]:
    """A copy of all parameters."""
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


@torch.no_grad()
def _set_weights(module: nn.Module, weights: dict[str, Tensor]) -> None:
    for name, parameter in module.named_parameters():
        parameter.copy_(weights[name])


def _drop(correction: Correction, first: float, middle: float) -> None:
    """Give a joined correction its dropout back."""
    correction.drop_in.p, correction.drop_mid.p = first, middle
