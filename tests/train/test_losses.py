"""Losses against naive loops."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch", reason="training needs the extra `train`")

from impart.train.losses import contrastive_loss, distillation_loss  # noqa: E402


def _naive(logits, keys, ignore=None, smoothing=0.0):
    """Mean over rows and columns of the cross-entropy with a uniform target over equal keys."""
    n = len(keys)
    total = 0.0
    for by_row in (True, False):
        for i in range(n):
            score = [(logits[i][j] if by_row else logits[j][i]).item() for j in range(n)]
            same = [keys[i] == keys[j] for j in range(n)]
            skip = [
                bool(ignore is not None and (ignore[i][j] if by_row else ignore[j][i])) and not same[j]
                for j in range(n)
            ]
            kept = [j for j in range(n) if not skip[j]]
            log_sum = math.log(sum(math.exp(score[j]) for j in kept))
            for j in kept:
                goal = (1 - smoothing) * same[j] / sum(same) + smoothing / len(kept)
                total -= goal * (score[j] - log_sum)
    return total / n / 2


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("with_ignore", [False, True])
def test_contrastive_loss_equals_naive_loop(smoothing, with_ignore):
    torch.manual_seed(1)
    logits = torch.randn(7, 7) * 3
    keys = torch.tensor([0, 1, 0, 2, 3, 3, 3])
    ignore = torch.rand(7, 7) < 0.3 if with_ignore else None
    found = contrastive_loss(logits, keys, ignore=ignore, smoothing=smoothing).item()
    assert found == pytest.approx(_naive(logits, keys.tolist(), ignore, smoothing), abs=1e-5)


def test_equal_texts_are_no_negatives():
    logits = torch.tensor([[9.0, 9.0, 0.0], [9.0, 9.0, 0.0], [0.0, 0.0, 9.0]])
    as_one = contrastive_loss(logits, torch.tensor([0, 0, 1])).item()
    apart = contrastive_loss(logits, torch.tensor([0, 1, 2])).item()
    assert as_one == pytest.approx(2 / 3 * math.log(2), abs=1e-3)
    # two images of one text may be exchanged; as negatives of each other they could not
    swapped = contrastive_loss(logits[[1, 0, 2]], torch.tensor([0, 0, 1])).item()
    assert swapped == pytest.approx(as_one, abs=1e-6)
    assert torch.isfinite(torch.tensor(apart))


def test_gradient_is_finite_with_ignored_pairs():
    logits = torch.randn(4, 4, requires_grad=True)
    ignore = ~torch.eye(4, dtype=torch.bool)
    contrastive_loss(logits, torch.arange(4), ignore=ignore, smoothing=0.1).backward()
    assert torch.isfinite(logits.grad).all()


def test_distillation_is_zero_for_the_teacher_itself():
    logits = torch.randn(5, 11)
    assert distillation_loss(logits, logits.softmax(1)).item() == pytest.approx(0, abs=1e-6)
    assert distillation_loss(-logits, logits.softmax(1)).item() > 0.1
