"""Interface between a training mode and the loop, and what the modes share: temperature, weight average, recall."""

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
    """Task of one training mode. Subclass it; methods with a body are optional.

    The loop owns the optimiser, the schedule, checkpoints, logs and the seeds. Before each batch it seeds torch from
    (seed, step, batch, process), so that dropout and other draws repeat after a resume.

    Attributes:
        steps_per_epoch: optimiser steps of one pass over the pairs.
        pairs_per_step: pairs of one optimiser step, over accumulated batches and processes.
        validated: what `validate` measures, such as `500 images`; empty = not counted.
    """

    steps_per_epoch: int
    pairs_per_step: int
    validated: str = ""

    def modules(self) -> dict[str, nn.Module]:
        """Return the modules that learn, by name: the loop moves, wraps and saves them."""
        ...

    def parts(self) -> Mapping[str, nn.Module]:
        """Return the parts that `optimiser.rates` names; together they contain all parameters that learn."""
        return self.modules()

    def shard(self, accelerator: Accelerator) -> bool:  # noqa: ARG002
        """Shard the modules over the processes (`distributed.shard`) if configured; return whether they are."""
        return False

    def prepare(self, accelerator: Accelerator, modules: dict[str, nn.Module]) -> None:  # noqa: ARG002
        """Receive the modules, on their device and wrapped for several processes, before the first step."""
        return

    def start_epoch(self, epoch: int) -> None:  # noqa: ARG002
        """Prepare an epoch; not called after a resume within it, where `load_state` restores the state."""
        return

    def batches(self, *, seed: int, epoch: int, position: int) -> Iterator[Any]:
        """Yield the batches of an epoch from optimiser step `position` on; a pure function of its arguments.

        With `loop.accumulate = n` each step takes n of them.
        """
        ...

    def training_step(self, batch: Any, accelerator: Accelerator) -> dict[str, Tensor]:
        """Compute the loss and call `accelerator.backward`; return detached scalars for the log, `loss` among them."""
        ...

    def after_step(self, step: int) -> None:  # noqa: ARG002
        """Run after each change of the weights: clamps, averages."""
        return

    def validate(self) -> dict[str, float]:
        """Measure the validation pairs; return metrics by name."""
        return {}

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs beside weights and optimiser: tensors, numbers and plain containers."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:  # noqa: ARG002
        """Restore what `state` returned."""
        return


class Temperature(nn.Module):
    """Learned inverse temperature, stored as its logarithm (Radford et al. 2021).

    Args:
        start: at step 0.
        maximum: upper limit. The parameter is clamped after each step, so that its gradient is never cut off.
    """

    def __init__(self, start: float, maximum: float):
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(start)))
        self._highest = math.log(maximum)

    def forward(self) -> Tensor:
        """Return the scale, a scalar."""
        return self.log_scale.exp()

    @torch.no_grad()
    def clamp(self) -> None:
        """Limit the scale to 1 / maximum ... maximum."""
        self.log_scale.clamp_(-self._highest, self._highest)


class Average:
    """Exponential moving average of the learned weights, with a lower decay in the first steps.

    Args:
        modules: their parameters are averaged.
        decay: after the first steps; 0 = no averaging.
    """

    def __init__(self, modules: Mapping[str, nn.Module], decay: float):
        self._decay = decay
        self._own = {f"{part}.{name}": p for part, module in modules.items() for name, p in module.named_parameters()}
        self._mean = {name: parameter.detach().clone() for name, parameter in self._own.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Add the weights after `step` steps."""
        decay = min(self._decay, step / (9 + step))
        for name, parameter in self._own.items():
            self._mean[name].lerp_(parameter, 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange weights and means; a second call restores both."""
        for name, parameter in self._own.items():
            kept = parameter.detach().clone()
            parameter.copy_(self._mean[name])
            self._mean[name].copy_(kept)

    def state(self) -> dict[str, Tensor]:
        """Return the means by name."""
        return self._mean

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore the means."""
        for name, mean in self._mean.items():
            mean.copy_(state[name])


def recall(scores: Tensor, owners: Tensor) -> dict[str, float]:
    """Compute recall at 1, 5 and 10 in percent, in both directions.

    Args:
        scores: (T, B), row text, column image.
        owners: (T,) image of each text; an image may have several texts.

    Returns:
        `t2i_r1` ... `t2i_r10` over texts, `i2t_r1` ... over images that have a text (any of their texts counts).
        Ties count against.
    """
    ranks = caption_ranks(scores.detach().float().cpu().numpy(), owners.cpu().numpy())
    return {
        f"{direction}_r{k}": round(100 * value, 3)
        for direction, own in zip(("t2i", "i2t"), ranks, strict=True)
        for k, value in recall_at(own).items()
    }
