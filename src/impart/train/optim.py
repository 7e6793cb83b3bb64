"""AdamW: parameter groups, learning-rate schedule, gradient clipping."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from impart.train.distributed import average_scalars
from impart.train.settings import OptimiserSettings

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["build_optimiser", "clip_gradients", "clip_sharded", "learning_rate", "parameter_groups"]

_SCALES = {"log_sharpness", "z_scale"}  # of scores, a number per head: temperatures, not matrices


def build_optimiser(
    parts: Mapping[str, nn.Module], settings: OptimiserSettings, *, sharded: bool = False
) -> torch.optim.AdamW:
    """Build AdamW over the parameters of `parts` that learn.

    Args:
        parts: modules by the name that `settings.rates` uses.
        settings: rates, decay, betas, eps.
        sharded: whether some parameters are sharded; sharded and whole tensors cannot share one fused call.
    """
    return torch.optim.AdamW(
        parameter_groups(parts, settings),
        lr=settings.learning_rate,
        betas=(settings.betas[0], settings.betas[1]),
        eps=settings.eps,
        foreach=False if sharded else None,
    )


def parameter_groups(modules: Mapping[str, nn.Module], settings: OptimiserSettings) -> list[dict[str, Any]]:
    """Group parameters: weight decay for those with two or more axes, none for biases, norms, gates and temperatures.

    >>> groups = parameter_groups({"a": nn.Linear(2, 3)}, OptimiserSettings(weight_decay=0.1))
    >>> [(group["name"], group["weight_decay"], len(group["params"])) for group in groups]
    [('a', 0.1, 1), ('a, no decay', 0.0, 1)]
    """
    groups: list[dict[str, Any]] = []
    taken: set[int] = set()
    for part, module in modules.items():
        decayed: list[nn.Parameter] = []
        kept: list[nn.Parameter] = []
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad or id(parameter) in taken:
                continue
            taken.add(id(parameter))
            own = name.rsplit(".", 1)[-1]
            plain = parameter.ndim < 2 or "gate" in own or own in _SCALES
            (kept if plain else decayed).append(parameter)
        rate = settings.learning_rate * settings.rates.get(part, 1.0)
        for title, parameters, decay in ((part, decayed, settings.weight_decay), (f"{part}, no decay", kept, 0.0)):
            if parameters:
                groups.append({"name": title, "params": parameters, "weight_decay": decay, "peak": rate, "lr": rate})
    return groups


def learning_rate(step: int, steps: int, settings: OptimiserSettings) -> float:
    """Return the share of the peak rate in step `step` (from 0) of `steps`: linear warm-up, then a cosine.

    >>> options = OptimiserSettings(warmup=0.2, final=0.1)
    >>> [round(learning_rate(step, 10, options), 3) for step in (0, 1, 2, 6, 9)]
    [0.5, 1.0, 1.0, 0.55, 0.134]
    """
    rising = round(settings.warmup * steps)
    if step < rising:
        return (step + 1) / rising
    done = (step - rising) / max(1, steps - rising)
    return settings.final + (1 - settings.final) * 0.5 * (1 + math.cos(math.pi * done))


def clip_gradients(
    parameters: Sequence[nn.Parameter], max_norm: float, *, accelerator: Accelerator, sharded: bool
) -> float:
    """Scale all gradients so that their common 2-norm is at most `max_norm`; return the norm before.

    Args:
        parameters: all that learn.
        max_norm: infinity = no limit.
        accelerator: of the run.
        sharded: whether some parameters are sharded; the scalars' gradients are then averaged here.
    """
    if not sharded:
        return float(accelerator.clip_grad_norm_(parameters, max_norm))
    average_scalars(parameters)
    return clip_sharded(parameters, max_norm)


def clip_sharded(parameters: Sequence[nn.Parameter], max_norm: float) -> float:
    """Do the same for sharded and whole parameters together; a collective call."""
    norms = []
    kinds = [[each for each in parameters if isinstance(each, DTensor) is sharded] for sharded in (True, False)]
    for kind in kinds:
        norm = get_total_norm([each.grad for each in kind if each.grad is not None])
        norms.append(float(norm.full_tensor() if isinstance(norm, DTensor) else norm))
    total = math.hypot(*norms)
    if math.isfinite(max_norm):
        for kind in kinds:
            clip_grads_with_norm_(kind, max_norm, torch.tensor(total))
    return total
