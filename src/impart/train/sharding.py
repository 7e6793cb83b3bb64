"""Weights, gradients and optimiser state spread over the processes (FSDP: Zhao et al. 2023; torch's `fully_shard`).

Each process keeps 1/W of every parameter and gathers a unit (a layer of a tower) while it computes with it. The loss
curve is that of DDP, and checkpoints hold whole tensors as there.

Scalars (temperature, gates) cannot be split: every process keeps them, and their gradients are averaged here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

__all__ = ["average_scalars", "clip_gradients", "like", "shard", "whole"]


def shard(root: nn.Module, *, units: Sequence[nn.Module], methods: Sequence[str], device: torch.device) -> None:
    """Spread a module's parameters over all processes, in place; a collective call.

    Args:
        root: parameters of which no unit holds are gathered with its forward pass. On every process the same weights.
        units: parts that are gathered one at a time.
        methods: of `root` that compute with parameters, beside `forward`.
        device: of this process.
    """
    root.to(device)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for unit in units:
        fully_shard(unit, mesh=mesh)
    fully_shard(root, mesh=mesh, ignored_params={each for each in root.parameters() if each.ndim == 0})
    for method in methods:
        register_fsdp_forward_method(root, method)


def whole(state: Any) -> Any:
    """Nested mappings and lists with every spread tensor in one piece; a collective call where there is one."""
    if isinstance(state, DTensor):
        return state.full_tensor().cpu()
    if isinstance(state, Mapping):
        return {name: whole(value) for name, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(whole(value) for value in state)
    return state


def like(value: Any, target: Tensor) -> Any:
    """A whole tensor in the layout of another one of its shape; anything else as it is."""
    if isinstance(target, DTensor) and isinstance(value, Tensor) and value.shape == target.shape:
        return distribute_tensor(value.detach().to(target.device), target.device_mesh, target.placements)
    return value


def average_scalars(parameters: Sequence[nn.Parameter]) -> None:
    """Average the gradients of what is not spread over the processes; a collective call."""
    for parameter in parameters:
        if not isinstance(parameter, DTensor) and parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad /= dist.get_world_size()


def clip_gradients(parameters: Sequence[nn.Parameter], max_norm: float) -> float:
    """Scale all gradients so that their common 2-norm is at most `max_norm`; returns the norm before."""
    norms = []
    kinds = [[each for each in parameters if isinstance(each, DTensor) is spread] for spread in (True, False)]
    for kind in kinds:
        norm = get_total_norm([each.grad for each in kind if each.grad is not None])
        norms.append(float(norm.full_tensor() if isinstance(norm, DTensor) else norm))
    total = math.hypot(*norms)
    if math.isfinite(max_norm):
        for kind in kinds:
            clip_grads_with_norm_(kind, max_norm, torch.tensor(total))
    return total
