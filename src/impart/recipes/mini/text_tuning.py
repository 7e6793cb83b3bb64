"""The last stage of `mini`: upper layers of the sentence tower learn together with the joined heads.

The heads of several seeds are joined. Sentence towers of several seeds cannot be joined in this way. So the tower is
tuned from its published weights, with the joined heads, which learn at a lower rate.
"""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from impart.errors import ConfigError
from impart.train.events import StepDone
from impart.train.heads.corpus import Corpus
from impart.train.heads.heads import Heads, ImageHead
from impart.train.heads.task import HeadsTask
from impart.train.heads.towers.sentences import SentenceTower
from impart.train.heads.towers.text_tail import TextRows, TextTail
from impart.train.loop import fit
from impart.train.settings import TrainConfig

__all__ = ["TuningSettings", "tune_text"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TuningSettings:
    """Settings of the tuning that differ from those of the heads' training.

    Attributes:
        steps: optimiser steps of each run; () = the tower stays as published. All runs start from the same weights, and
            their final weights are averaged (model soup, Wortsman et al., ICML 2022).
        learning_rate: peak, of the tower's layers.
        heads_rate: factor on it for the heads and the temperature.
        ema: decay of the averaged weights of a run.

    Raises:
        ConfigError: `steps` is no list, or a run has less than one step.
    """

    steps: tuple[int, ...] = ()
    learning_rate: float = 1e-4
    heads_rate: float = 3.0
    ema: float = 0.99

    def __post_init__(self) -> None:
        if not isinstance(self.steps, tuple):
            raise ConfigError(f"tuning.steps is {self.steps}: a list, the steps of each run")
        if any(steps < 1 for steps in self.steps):
            raise ConfigError(f"tuning.steps is {list(self.steps)}: each run needs at least 1")

    def config(self, train: TrainConfig, *, steps: int) -> TrainConfig:
        """Return the config of one run, from that of the heads' training."""
        rates = dict.fromkeys(("image", "text", "cells", "temperature"), self.heads_rate)
        return dataclasses.replace(
            train,
            heads=dataclasses.replace(train.heads, ema=self.ema),
            optimiser=dataclasses.replace(train.optimiser, learning_rate=self.learning_rate, rates=rates),
            loop=dataclasses.replace(train.loop, steps=steps),
        )


def tune_text(
    corpus: Corpus,
    image: ImageHead,
    heads: Heads,
    *,
    tower: SentenceTower,
    rows: TextRows,
    train: TrainConfig,
    settings: TuningSettings,
) -> Heads:
    """Tune the upper layers of the sentence tower and the heads, several times from the same weights.

    Args:
        corpus: features and sentences; the sentences are those of the published tower.
        image: contains the frozen base.
        heads: joined heads to start from.
        tower: `train.heads.text_layers` upper layers get the mean weights of all runs, in place.
        rows: token states of the corpus' texts.
        train: config of the heads' training.
        settings: of this stage.

    Returns:
        The mean heads of all runs, in evaluation mode.
    """
    if not settings.steps:
        return heads
    published = _weights(tower)
    ends: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []
    for number, steps in enumerate(settings.steps, 1):
        tower.load_state_dict(published)
        config = settings.config(train, steps=steps)
        tail = TextTail(tower, rows, layers=config.heads.text_layers, dropout=config.heads.tower_dropout)
        task = HeadsTask(corpus, image, config, tail=tail, start=heads)
        for event in fit(task, config):
            if isinstance(event, StepDone) and (event.step % 25 == 0 or event.step == event.steps):
                where = f"run {number} of {len(settings.steps)}, step {event.step} of {event.steps}"
                _log.info("text tower, %s: loss %.3f", where, event.loss)
        tuned = task.finished().heads
        ends.append((_weights(tuned), _weights(tower)))
    tuned.load_state_dict(_mean([own for own, _ in ends]))
    tower.load_state_dict(_mean([own for _, own in ends]))
    return tuned.requires_grad_(False)


def _weights(module: nn.Module) -> dict[str, Tensor]:
    """Copy all weights."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def _mean(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([part[name] for part in parts]).mean(0) for name in parts[0]}
