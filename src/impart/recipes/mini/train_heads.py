"""How the recipe of `mini` trains one pair of corrections: mode `heads` of the engine, without a reference set."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass

from torch import nn

from impart.train.events import StepDone
from impart.train.heads.corpus import Corpus, sampling_weights
from impart.train.heads.corrections import Correction, ImageHead
from impart.train.heads.task import HeadsTask
from impart.train.loop import fit
from impart.train.prepare.texts import text_key
from impart.train.settings import (
    HeadsSettings,
    LoopSettings,
    LossSettings,
    OptimiserSettings,
    ReferenceSettings,
    TrainConfig,
)

__all__ = ["Corpus", "HeadSettings", "sampling_weights", "TrainedHeads", "text_key", "train_heads"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class HeadSettings(HeadsSettings):
    """How one pair of corrections is trained: the settings of mode `heads` that the recipe chooses.

    Attributes:
        epochs: each as many draws as there are images.
        batch: pairs in a step.
        learning_rate: peak of the schedule, after a tenth of the steps.
        weight_decay: of AdamW.
        init_scale: start of the contrastive inverse temperature.
        max_scale: its clamp.
        smoothing: of the contrastive target.
        near_text: texts with a higher cosine, though not equal, are no negatives.
    """

    epochs: int = 12
    batch: int = 512
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    init_scale: float = 14.0
    max_scale: float = 50.0
    smoothing: float = 0.0
    near_text: float = 0.9

    def as_config(self, *, seed: int, device: str) -> TrainConfig:
        """The same as a config of mode `heads`."""
        own = {item.name: getattr(self, item.name) for item in dataclasses.fields(HeadsSettings)}
        return TrainConfig(
            mode="heads",
            seed=seed,
            reference=ReferenceSettings(augment="none", fraction=0.0),
            heads=HeadsSettings(**own),
            loss=LossSettings(
                init_scale=self.init_scale,
                max_scale=self.max_scale,
                smoothing=self.smoothing,
                near_text=self.near_text,
            ),
            optimiser=OptimiserSettings(
                learning_rate=self.learning_rate,
                weight_decay=self.weight_decay,
                betas=(0.9, 0.999),
                eps=1e-8,
                warmup=0.1,
                clip=0.0,
            ),
            loop=LoopSettings(epochs=self.epochs, batch=self.batch, device="cpu" if device == "cpu" else "auto"),
        )


@dataclass(frozen=True)
class TrainedHeads:
    """What one training learned, in evaluation mode.

    Attributes:
        correction: of the pooled features.
        attention: over the cells; None where they are not read.
        text: of the sentence embeddings.
    """

    correction: Correction
    attention: nn.Module | None
    text: Correction


def train_heads(corpus: Corpus, image: ImageHead, settings: HeadSettings, *, seed: int) -> TrainedHeads:
    """Train one set of corrections.

    Args:
        corpus: features and sentences.
        image: carries the frozen base; its correction is replaced, not changed.
        settings: of this training.
        seed: of initial weights, draws and dropout.

    Returns:
        Their averages over the last steps.
    """
    task = HeadsTask(corpus, image, settings.as_config(seed=seed, device=corpus.texts.device.type))
    for event in fit(task, task.config):
        if isinstance(event, StepDone) and (event.step % 100 == 0 or event.step == event.steps):
            _log.info("seed %d, step %d of %d: loss %.3f", seed, event.step, event.steps, event.loss)
    model = task.finished()
    return TrainedHeads(model.image.correction, model.image.attention, model.text.correction)
