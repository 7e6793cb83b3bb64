"""What a mode brings to the engine, and the small parts that all modes share."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from impart.metrics.ranking import caption_ranks, recall_at

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["Average", "Temperature", "TrainingTask", "recall"]


class TrainingTask(Protocol):
    """One mode. Subclass it: the hooks with a body may be left alone.

    The engine owns the optimiser, the schedule, checkpoints, logs and the seeds; before each batch it seeds torch from
    (seed, step, batch, process), so that dropout and other draws repeat after a resume.

    Attributes:
        steps_per_epoch: optimiser steps that see as many pairs as there are.
        pairs_per_step: pairs of one optimiser step, over accumulated batches and processes.
    """

    steps_per_epoch: int
    pairs_per_step: int

    def modules(self) -> dict[str, nn.Module]:
        """What learns, by name: the engine moves it to the device, wraps it, and keeps it in checkpoints."""
        ...

    def parts(self) -> Mapping[str, nn.Module]:
        """What `optimiser.rates` names; modules or parts of them that together hold all that learns."""
        return self.modules()

    def shard(self, accelerator: Accelerator) -> bool:  # noqa: ARG002
        """Spread the modules over the processes (`distributed.shard`) if so wanted; returns whether they are."""
        return False

    def prepare(self, accelerator: Accelerator, modules: dict[str, nn.Module]) -> None:  # noqa: ARG002
        """Take the modules back, on their device and wrapped for several processes, before the first step."""
        return

    def start_epoch(self, epoch: int) -> None:  # noqa: ARG002
        """Called before the first batch of an epoch; after a resume within an epoch `load_state` stands for it."""
        return

    def batches(self, *, seed: int, epoch: int, position: int) -> Iterator[Any]:
        """Batches of an epoch from optimiser step `position` on, a pure function of its arguments.

        With `loop.accumulate = n` each step takes n of them.
        """
        ...

    def training_step(self, batch: Any, accelerator: Accelerator) -> dict[str, Tensor]:
        """Forward and `accelerator.backward`. Returns what is logged, detached scalars; `loss` must be among them."""
        ...

    def after_step(self, step: int) -> None:  # noqa: ARG002
        """Called after the weights changed: clamps, averages."""
        return

    def validate(self) -> dict[str, float]:
        """Figures on the validation pairs."""
        return {}

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold beside weights and optimiser: tensors, numbers and plain containers."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:  # noqa: ARG002
        """Take back what `state` gave."""
        return


class Temperature(nn.Module):
    """The learned inverse temperature, kept as its logarithm (Radford et al. 2021).

    Args:
        start: at step 0.
        maximum: clamp, applied to the parameter after each step, so that it can come back from there.
    """

    def __init__(self, start: float, maximum: float):
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(start)))
        self._highest = math.log(maximum)

    def forward(self) -> Tensor:
        """The scale, a scalar."""
        return self.log_scale.exp()

    @torch.no_grad()
    def clamp(self) -> None:
        """Keep the scale between 1 / maximum and maximum."""
        self.log_scale.clamp_(-self._highest, self._highest)


class Average:
    """Exponential moving average of the learned weights, with a quick start.

    Args:
        modules: whose parameters are averaged.
        decay: in the long run; 0 = no averaging.
    """

    def __init__(self, modules: Mapping[str, nn.Module], decay: float):
        self._decay = decay
        self._own = {f"{part}.{name}": p for part, module in modules.items() for name, p in module.named_parameters()}
        self._mean = {name: parameter.detach().clone() for name, parameter in self._own.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after `step` steps."""
        decay = min(self._decay, step / (9 + step))
        for name, parameter in self._own.items():
            self._mean[name].lerp_(parameter, 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange weights and their means; calling it again restores both."""
        for name, parameter in self._own.items():
            kept = parameter.detach().clone()
            parameter.copy_(self._mean[name])
            self._mean[name].copy_(kept)

    def state(self) -> dict[str, Tensor]:
        """The means by name."""
        return self._mean

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take the means back."""
        for name, mean in self._mean.items():
            mean.copy_(state[name])


def recall(scores: Tensor, owners: Tensor) -> dict[str, float]:
    """Recall at 1, 5 and 10 in percent, both ways.

    Args:
        scores: (T, B), row text, column image.
        owners: (T,) the image that each text belongs to; an image may have several texts.

    Returns:
        `t2i_r1` ... `t2i_r10` over texts, `i2t_r1` ... over images that have a text (any of their texts counts).
        Ties count against.
    """
    ranks = caption_ranks(scores.detach().float().cpu().numpy(), owners.cpu().numpy())
    return {
        f"{way}_r{k}": round(100 * value, 3)
        for way, places in zip(("t2i", "i2t"), ranks, strict=True)
        for k, value in recall_at(places).items()
    }
