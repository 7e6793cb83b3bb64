"""Contrastive and distillation losses; equal texts count as positives.

The contrastive loss over several processes is a local loss with gathered features: process r compares its own B images
with the texts of all W processes, and its own texts with all images. No process holds more than (B, W B) logits. The
gradients that the other processes' losses give to the embeddings of process r are added by one sum over processes. The
mean of the W losses, and the gradient after the usual averaging over processes, equal those of one process with a batch
of W B.

Letters: B pairs on one process, W processes, D embedding width, C classes, V views.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from impart.train.distributed import gather_rows, own_rows, sum_over_processes
from impart.train.settings import LossSettings

__all__ = [
    "LossGradients",
    "contrastive_loss",
    "distillation_loss",
    "local_contrastive_loss",
    "loss_gradients",
    "partial_distillation_loss",
]


def contrastive_loss(logits: Tensor, keys: Tensor, *, ignore: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
    """Compute the symmetric cross-entropy (Radford et al. 2021) where pairs with equal keys are all positives.

    Many training images have a class name as their text. Two images of `a dog` in one batch are no negatives of each
    other, so the target of a row is uniform over its positives.

    Args:
        logits: (B, B), row image, column text, scaled.
        keys: (B,) integers; equal keys mean equal texts.
        ignore: (B, B) bool; pairs that are neither positive nor negative (nearly equal texts). Positives stay.
        smoothing: this share of the target is spread over all pairs that are not ignored.

    Returns:
        Scalar.

    Example:
        >>> contrastive_loss(torch.zeros(4, 4), torch.tensor([0, 0, 1, 2])).item()  # log 4
        1.3862943649291992
    """
    assert logits.ndim == 2, logits.shape
    assert logits.shape[0] == logits.shape[1] == len(keys), (logits.shape, keys.shape)
    positive = keys[:, None] == keys[None, :]  # (B, B), symmetric
    ignored = torch.zeros_like(positive) if ignore is None else ignore & ~positive
    images = _cross_entropy(logits, positive, ignored, smoothing)
    return (images + _cross_entropy(logits.T, positive, ignored.T, smoothing)) / 2


def local_contrastive_loss(
    logits_image: Tensor,
    logits_text: Tensor,
    keys: Tensor,
    all_keys: Tensor,
    *,
    ignore: Tensor | None = None,
    smoothing: float = 0.0,
) -> Tensor:
    """Compute the part of `contrastive_loss` of one process: B own rows against the columns of W processes.

    Args:
        logits_image: (B, W B), row own image, column any text, scaled.
        logits_text: (B, W B), row own text, column any image.
        keys: (B,) integers; equal keys mean equal texts.
        all_keys: (W B,).
        ignore: (B, W B) bool; pairs that are neither positive nor negative. Positives stay.
        smoothing: this share of the target is spread over all pairs that are not ignored.

    Returns:
        Scalar.
    """
    assert logits_image.shape == logits_text.shape == (len(keys), len(all_keys)), (logits_image.shape, len(all_keys))
    positive = keys[:, None] == all_keys[None, :]  # (B, W B)
    ignored = torch.zeros_like(positive) if ignore is None else ignore & ~positive
    images = _cross_entropy(logits_image, positive, ignored, smoothing)
    return (images + _cross_entropy(logits_text, positive, ignored, smoothing)) / 2


def _cross_entropy(logits: Tensor, positive: Tensor, ignored: Tensor, smoothing: float) -> Tensor:
    """Mean over rows of the cross-entropy with a target that is uniform over the positives; all (B, N)."""
    kept = ~ignored
    target = (1 - smoothing) * (positive / positive.sum(1, keepdim=True))
    target = target + smoothing * kept / kept.sum(1, keepdim=True)
    log_p = F.log_softmax(logits.masked_fill(ignored, float("-inf")), dim=1).masked_fill(ignored, 0.0)
    return -(target * log_p).sum(1).mean()


@dataclass(frozen=True)
class LossGradients:
    """Contrastive loss of one process with its gradients, all detached.

    Attributes:
        loss: scalar, mean over the process's own pairs.
        image: (V, B, D) of the image embeddings, per view; the losses of other processes are included.
        text: (B, D) of the text embeddings, likewise.
        scale: scalar, of the inverse temperature, of this process's loss alone.
    """

    loss: Tensor
    image: Tensor
    text: Tensor
    scale: Tensor


def loss_gradients(
    image: Tensor,
    text: Tensor,
    scale: Tensor,
    keys: Tensor,
    *,
    settings: LossSettings,
    weights: tuple[float, ...] = (1.0,),
) -> LossGradients:
    """Compute the loss of this process and its gradients at the embeddings; a collective call.

    The gradients are not taken through the collectives, so that a cached loss (`pretrain/gradcache.py`) can use them.

    Args:
        image: (V, B, D) unit image embeddings; each of the V views (augmented, base) is compared with the same texts.
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
        own = own_rows(len(text))
        ignore = None
        if settings.near_text < 1:
            ignore = all_text.detach()[own] @ all_text.detach().T > settings.near_text
        total = all_text.new_zeros(())
        for view, weight in zip(all_image, weights, strict=True):
            total = total + weight * local_contrastive_loss(
                factor * view[own] @ all_text.T,
                factor * all_text[own] @ view.T,
                keys,
                all_keys,
                ignore=ignore,
                smoothing=settings.smoothing,
            )
        image_gradient, text_gradient, scale_gradient = torch.autograd.grad(total, (all_image, all_text, factor))
    return LossGradients(
        loss=total.detach(),
        image=sum_over_processes(image_gradient)[:, own],
        text=sum_over_processes(text_gradient)[own],
        scale=scale_gradient,
    )


def distillation_loss(logits: Tensor, teacher: Tensor, *, weights: Tensor | None = None) -> Tensor:
    """Compute the KL divergence from a teacher's distribution, mean over the batch.

    Args:
        logits: (B, C) of the student, scaled.
        teacher: (B, C) probabilities.
        weights: (B,) weight of each row, 1 on average; None = equal weights.

    Returns:
        Scalar, 0 where the distributions agree.
    """
    assert logits.shape == teacher.shape, (logits.shape, teacher.shape)
    rows = F.kl_div(F.log_softmax(logits, dim=1), teacher, reduction="none").sum(1)  # (B,)
    return rows.mean() if weights is None else (weights * rows).mean()


def partial_distillation_loss(logits: Tensor, teacher: Tensor, classes: Tensor) -> Tensor:
    """Compute the KL divergence from a teacher's distribution over some of its classes.

    Each row is weighted by the teacher's probability of these classes.

    Args:
        logits: (B, c) of the student, scaled.
        teacher: (B, C) probabilities.
        classes: (c,) the classes of the student's columns.
    """
    teacher = teacher[:, classes]
    mass = teacher.sum(1)  # (B,)
    teacher = teacher / mass.clamp(min=1e-6)[:, None]
    return distillation_loss(logits, teacher, weights=mass / mass.mean().clamp(min=1e-6))
