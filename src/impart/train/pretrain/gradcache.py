"""A contrastive step whose batch does not fit in memory at once (GradCache: Gao et al. 2021).

A contrastive loss needs all embeddings of the batch together, but not all activations. So: embed the batch in chunks
without a graph; take the gradient of the loss at the embeddings; embed each chunk again, now with a graph, and push
its rows of that gradient through. The result is the gradient of the whole batch, at the price of a second forward pass.

Each chunk's second pass starts from the random state of its first, so that dropout falls on the same places.
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
    """What a model makes of a chunk.

    Attributes:
        image: (V, b, D) unit image embeddings, one a view that the loss reads.
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
    """Loss of a batch, and its gradient added to the parameters' `.grad`.

    Args:
        model: what `embed` calls, as the accelerator wrapped it.
        embed: a chunk to its embeddings; must draw random numbers from torch alone.
        chunks: the batch in order. One chunk = one forward pass, nothing is done twice.
        keys: (B,) of all chunks, equal for equal texts.
        accelerator: runs the backward passes; gradients meet other processes' in the last one.
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
    """A scalar whose gradient at the embeddings is the given one. The scale counts once a batch, its graph always."""
    total = (made.image.float() * found.image[:, rows]).sum() + (made.text.float() * found.text[rows]).sum()
    return total + made.scale * (found.scale if scale else 0.0)


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _set_random_state(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
