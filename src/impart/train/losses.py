"""Losses of the recipes: pure functions of logits, with equal texts counted as positives.

Letters: B pairs in a batch, D embedding width, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["contrastive_loss", "distillation_loss", "partial_distillation_loss"]


def contrastive_loss(logits: Tensor, keys: Tensor, *, ignore: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
    """Symmetric cross-entropy (Radford et al. 2021) where pairs with equal keys are all positives.

    Half of the twenty thousand training images carry a class name, and two images of `a dog` in one batch are no
    negatives of each other: the target of a row is uniform over its positives.

    Args:
        logits: (B, B), row image, column text, scaled.
        keys: (B,) integers; equal keys mean equal texts.
        ignore: (B, B) bool; pairs that are neither positive nor negative (nearly equal texts). Positives stay.
        smoothing: this share of the target is spread over all pairs that are not ignored.

    Returns:
        Scalar.

    Examples:
        >>> contrastive_loss(torch.zeros(4, 4), torch.tensor([0, 0, 1, 2])).item()  # log 4
        1.3862943649291992
    """
    assert logits.ndim == 2, logits.shape
    assert logits.shape[0] == logits.shape[1] == len(keys), (logits.shape, keys.shape)
    positive = keys[:, None] == keys[None, :]  # (B, B), symmetric
    left_out = torch.zeros_like(positive) if ignore is None else ignore & ~positive
    target = positive / positive.sum(1, keepdim=True)
    total = logits.new_zeros(())
    for scores, out in ((logits, left_out), (logits.T, left_out.T)):
        log_p = F.log_softmax(scores.masked_fill(out, float("-inf")), dim=1).masked_fill(out, 0.0)
        goal = (1 - smoothing) * target + smoothing * (~out) / (~out).sum(1, keepdim=True)
        total = total - (goal * log_p).sum(1).mean()
    return total / 2


def partial_distillation_loss(logits: Tensor, teacher: Tensor, classes: Tensor) -> Tensor:
    """KL divergence from a teacher's distribution over some of its classes; a row counts by its probability of them.

    Args:
        logits: (B, c) of the student, scaled.
        teacher: (B, C) probabilities.
        classes: (c,) which ones the student speaks of.
    """
    teacher = teacher[:, classes]
    mass = teacher.sum(1)  # (B,)
    teacher = teacher / mass.clamp(min=1e-6)[:, None]
    return distillation_loss(logits, teacher, weights=mass / mass.mean().clamp(min=1e-6))


def distillation_loss(logits: Tensor, teacher: Tensor, *, weights: Tensor | None = None) -> Tensor:
    """KL divergence from a teacher's distribution, mean over the batch.

    Args:
        logits: (B, C) of the student, scaled.
        teacher: (B, C) probabilities.
        weights: (B,) how much each row counts, 1 on average; None = all the same.

    Returns:
        Scalar, 0 where the distributions agree.
    """
    assert logits.shape == teacher.shape, (logits.shape, teacher.shape)
    rows = F.kl_div(F.log_softmax(logits, dim=1), teacher, reduction="none").sum(1)  # (B,)
    return rows.mean() if weights is None else (weights * rows).mean()
