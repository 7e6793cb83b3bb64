"""The contrastive loss over all processes, and its gradient with respect to the embeddings.

Local loss with gathered features: process r compares its own B images with the texts of all W processes, and its own
texts with all images, so that no process holds more than (B, W B) logits. What the other processes' losses say about
the embeddings of process r comes back by one sum over processes. The mean of the W losses, and the gradient after the
usual averaging over processes, are those of one process with a batch of W B.

Gradients are taken by hand at the embeddings (not through the collectives), which is also what a cached loss needs.

Letters: B pairs on one process, W processes, D embedding width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from impart.train.settings import LossSettings

__all__ = ["LossGradients", "gather_rows", "local_loss", "loss_gradients"]


@dataclass(frozen=True)
class LossGradients:
    """A loss of one process with its gradients, all detached.

    Attributes:
        loss: scalar, mean over the process's own pairs.
        image: (V, B, D) of the image embeddings, one a view; other processes' losses included.
        text: (B, D) of the text embeddings, likewise.
        scale: scalar, of the inverse temperature, of this process's loss alone.
    """

    loss: Tensor
    image: Tensor
    text: Tensor
    scale: Tensor


def local_loss(
    logits_image: Tensor,
    logits_text: Tensor,
    keys: Tensor,
    all_keys: Tensor,
    *,
    near: Tensor | None = None,
    smoothing: float = 0.0,
) -> Tensor:
    """Symmetric cross-entropy of B rows against W B columns, pairs with equal keys being all positives.

    With one process it is `impart.train.losses.contrastive_loss`.

    Args:
        logits_image: (B, W B), row own image, column any text, scaled.
        logits_text: (B, W B), row own text, column any image.
        keys: (B,) integers; equal keys mean equal texts.
        all_keys: (W B,).
        near: (B, W B) bool; pairs that are neither positive nor negative. Positives stay.
        smoothing: this share of the target is spread over all pairs that are not left out.
    """
    assert logits_image.shape == logits_text.shape == (len(keys), len(all_keys)), (logits_image.shape, len(all_keys))
    positive = keys[:, None] == all_keys[None, :]  # (B, W B)
    target = positive / positive.sum(1, keepdim=True)
    out = torch.zeros_like(positive) if near is None else near & ~positive
    goal = (1 - smoothing) * target + smoothing * (~out) / (~out).sum(1, keepdim=True)
    total = logits_image.new_zeros(())
    for scores in (logits_image, logits_text):
        log_p = F.log_softmax(scores.masked_fill(out, float("-inf")), dim=1).masked_fill(out, 0.0)
        total = total - (goal * log_p).sum(1).mean()
    return total / 2


def loss_gradients(
    image: Tensor,
    text: Tensor,
    scale: Tensor,
    keys: Tensor,
    *,
    settings: LossSettings,
    weights: tuple[float, ...] = (1.0,),
) -> LossGradients:
    """The loss of this process and its gradients; a collective call where there are several processes.

    Args:
        image: (V, B, D) unit image embeddings; each of the V views (augmented, base) meets the same texts.
        text: (B, D) unit text embeddings.
        scale: scalar, inverse temperature.
        keys: (B,) int64, equal for equal texts.
        settings: of the loss.
        weights: V, of the views' losses.
    """
    assert len(weights) == len(image), (len(weights), image.shape)
    with torch.enable_grad():
        all_image = gather_rows(image.detach().float().transpose(0, 1)).transpose(0, 1).requires_grad_()  # (V, W B, D)
        all_text = gather_rows(text.detach().float()).requires_grad_()  # (W B, D)
        all_keys = gather_rows(keys)
        factor = scale.detach().float().requires_grad_()
        first = _rank() * len(text)
        own = slice(first, first + len(text))
        near = None
        if settings.near_text < 1:
            near = all_text.detach()[own] @ all_text.detach().T > settings.near_text
        total = all_text.new_zeros(())
        for view, weight in zip(all_image, weights, strict=True):
            total = total + weight * local_loss(
                factor * view[own] @ all_text.T,
                factor * all_text[own] @ view.T,
                keys,
                all_keys,
                near=near,
                smoothing=settings.smoothing,
            )
        image_gradient, text_gradient, scale_gradient = torch.autograd.grad(total, (all_image, all_text, factor))
    return LossGradients(
        loss=total.detach(),
        image=_summed(image_gradient)[:, own],
        text=_summed(text_gradient)[own],
        scale=scale_gradient,
    )


def gather_rows(rows: Tensor) -> Tensor:
    """Rows (B, ...) of all processes in their order, (W B, ...), without a gradient; every process has as many."""
    if _world() == 1:
        return rows.detach().clone()
    rows = rows.detach().contiguous()
    parts = [torch.empty_like(rows) for _ in range(_world())]
    dist.all_gather(parts, rows)
    return torch.cat(parts)


def _summed(gradient: Tensor) -> Tensor:
    if _world() > 1:
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
    return gradient


def _world() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
