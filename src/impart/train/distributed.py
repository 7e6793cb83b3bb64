"""Several processes: gather rows, sum and average gradients, shard modules (FSDP).

A sharded module (Zhao et al. 2023; torch's `fully_shard`) keeps 1/W of every parameter, its gradient and its optimiser
state per process, and gathers a unit (a layer of a tower) while it computes with it. The losses are those of DDP, and
checkpoints contain whole tensors as with DDP. Scalars (temperature, gates) cannot be split: every process has all of
them, and `average_scalars` averages their gradients.

Letters: B rows on one process, W processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

__all__ = ["average_scalars", "gather_rows", "like", "own_rows", "shard", "sum_over_processes", "whole"]


def gather_rows(rows: Tensor) -> Tensor:
    """Gather rows (B, ...) of all processes in their order: (W B, ...), detached.

    A collective call; every process has the same number of rows.
    """
    if _world() == 1:
        return rows.detach().clone()
    rows = rows.detach().contiguous()
    parts = [torch.empty_like(rows) for _ in range(_world())]
    dist.all_gather(parts, rows)
    return torch.cat(parts)


def own_rows(count: int) -> slice:
    """Return where the `count` rows of this process are among gathered rows."""
    first = count * (dist.get_rank() if _world() > 1 else 0)
    return slice(first, first + count)


def sum_over_processes(values: Tensor) -> Tensor:
    """Sum a tensor over all processes, in place where it is contiguous; a collective call."""
    if _world() > 1:
        values = values.contiguous()
        dist.all_reduce(values)
    return values


def _world() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def shard(root: nn.Module, *, units: Sequence[nn.Module], methods: Sequence[str], device: torch.device) -> None:
    """Shard a module's parameters over all processes, in place; a collective call.

    Args:
        root: has the same weights on every process. Parameters outside `units` are gathered with its forward pass.
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
    """Gather every sharded tensor of nested mappings and lists on the CPU; a collective call where there is one."""
    if isinstance(state, DTensor):
        return state.full_tensor().cpu()
    if isinstance(state, Mapping):
        return {name: whole(value) for name, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(whole(value) for value in state)
    return state


def like(value: Any, target: Tensor) -> Any:
    """Shard a whole tensor like a target of the same shape; anything else is returned unchanged."""
    if isinstance(target, DTensor) and isinstance(value, Tensor) and value.shape == target.shape:
        return distribute_tensor(value.detach().to(target.device), target.device_mesh, target.placements)
    return value


def average_scalars(parameters: Sequence[nn.Parameter]) -> None:
    """Average the gradients of parameters that are not sharded over the processes; a collective call."""
    for parameter in parameters:
        if not isinstance(parameter, DTensor) and parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad /= dist.get_world_size()
