"""Contrastive step with a batch larger than memory (GradCache: Gao et al. 2021).

A contrastive loss needs all embeddings of the batch together, but not all activations:

1. embed the batch in chunks without a graph;
2. compute the gradient of the loss at the embeddings;
3. embed each chunk again with a graph, and backpropagate its rows of that gradient.

The result is the gradient of the whole batch, for a second forward pass. Each chunk's second pass starts from the
random state of its first, so that dropout is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from impart.train.losses import LossGradients, loss_gradients
from impart.train.settings import LossSettings

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["ChunkEmbeddings", "contrastive_step"]


class ChunkEmbeddings(NamedTuple):
    """Embeddings of a chunk.

    Attributes:
        image: (V, b, D) unit image embeddings, per view of the loss.
        text: (b, D) unit text embeddings.
        scale: scalar, inverse temperature.
    """

    image: Tensor
    text: Tensor
    scale: Tensor


def contrastive_step(
    model: nn.Module,
    embed: Callable[[Any], ChunkEmbeddings],
    chunks: Sequence[Any],
    keys: Tensor,
    *,
    accelerator: Accelerator,
    settings: LossSettings,
    weights: tuple[float, ...] = (1.0,),
) -> LossGradients:
    """Compute the loss of a batch, and add its gradient to the parameters' `.grad`.

    Args:
        model: called by `embed`, as the accelerator wrapped it.
        embed: embeds a chunk; must draw random numbers from torch alone.
        chunks: the batch in order. One chunk = one forward pass.
        keys: (B,) of all chunks, equal for equal texts.
        accelerator: runs the backward passes; gradients are averaged over processes in the last one.
        settings: of the loss.
        weights: of the views.
    """
    if len(chunks) == 1:
        whole = embed(chunks[0])
        found = loss_gradients(*_detached(whole), keys, settings=settings, weights=weights)
        accelerator.backward(_surrogate(whole, found, slice(None), scale=True))
        return found
    states, parts = [], []
    with torch.no_grad():
        for chunk in chunks:
            states.append(_random_state(keys.device))
            parts.append(embed(chunk))
    together = ChunkEmbeddings(
        torch.cat([part.image for part in parts], dim=1), torch.cat([part.text for part in parts]), parts[0].scale
    )
    after = _random_state(keys.device)
    found = loss_gradients(*_detached(together), keys, settings=settings, weights=weights)
    first = 0
    for number, (chunk, state) in enumerate(zip(chunks, states, strict=True)):
        last = number == len(chunks) - 1
        size = parts[number].text.shape[0]
        _set_random_state(state, keys.device)
        with nullcontext() if last else accelerator.no_sync(model):
            again = embed(chunk)
            accelerator.backward(_surrogate(again, found, slice(first, first + size), scale=last))
        first += size
    _set_random_state(after, keys.device)
    return found


def _detached(made: ChunkEmbeddings) -> ChunkEmbeddings:
    return ChunkEmbeddings(made.image.detach(), made.text.detach(), made.scale.detach())


def _surrogate(made: ChunkEmbeddings, found: LossGradients, rows: slice, *, scale: bool) -> Tensor:
    """Return a scalar with the given gradient at the embeddings; the scale's gradient is added once per batch."""
    total = (made.image.float() * found.image[:, rows]).sum() + (made.text.float() * found.text[rows]).sum()
    return total + made.scale * (found.scale if scale else 0.0)


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _set_random_state(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
