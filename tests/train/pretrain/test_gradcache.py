"""Cached loss: its gradient is that of the plain batch; local losses average to the symmetric loss."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="training needs the extra `train`")
pytest.importorskip("accelerate", reason="training needs the extra `train`")

from accelerate import Accelerator  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from impart.train.losses import contrastive_loss, local_contrastive_loss, loss_gradients  # noqa: E402
from impart.train.pretrain.gradcache import ChunkEmbeddings, contrastive_step  # noqa: E402
from impart.train.settings import LossSettings  # noqa: E402
from impart.train.task import Temperature  # noqa: E402

B, D = 24, 8
KEYS = torch.arange(B) % (B - 3)  # three texts occur twice


class TwoTowers(torch.nn.Module):
    def __init__(self, dropout: float = 0.0):
        super().__init__()
        torch.manual_seed(0)
        self.image = torch.nn.Sequential(torch.nn.Linear(10, 32), torch.nn.Dropout(dropout), torch.nn.Linear(32, D))
        self.text = torch.nn.Sequential(torch.nn.Linear(6, 32), torch.nn.GELU(), torch.nn.Linear(32, D))
        self.temperature = Temperature(9.0, 100.0)

    def forward(self, x, y):
        image = torch.stack([F.normalize(self.image(x), dim=-1), F.normalize(x[:, :D], dim=-1)])
        return ChunkEmbeddings(image, F.normalize(self.text(y), dim=-1), self.temperature())


def _batch():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(B, 10, generator=generator), torch.randn(B, 6, generator=generator)


def _gradients(model):
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def _plain(model, x, y, settings, weights):
    made = model(x, y)
    total = 0
    for view, weight in zip(made.image, weights, strict=True):
        near = made.text @ made.text.T > settings.near_text if settings.near_text < 1 else None
        logits = made.scale * view @ made.text.T
        total = total + weight * contrastive_loss(logits, KEYS, ignore=near, smoothing=settings.smoothing)
    total.backward()
    return total.detach()


@pytest.mark.parametrize("size", [B, 8, 5, 1])
@pytest.mark.parametrize(
    "settings", [LossSettings(), LossSettings(smoothing=0.1, near_text=0.7)], ids=["plain", "smooth"]
)
def test_gradients_are_those_of_the_plain_big_batch(size, settings):
    x, y = _batch()
    weights = (1.0, 0.3)
    expected, cached = TwoTowers(), TwoTowers()
    loss = _plain(expected, x, y, settings, weights)
    chunks = [(x[i : i + size], y[i : i + size]) for i in range(0, B, size)]
    found = contrastive_step(
        cached,
        lambda c: cached(*c),
        chunks,
        KEYS,
        accelerator=Accelerator(cpu=True),
        settings=settings,
        weights=weights,
    )
    assert found.loss.item() == pytest.approx(loss.item(), rel=1e-6)
    for name, gradient in _gradients(expected).items():
        error = (gradient - _gradients(cached)[name]).norm() / gradient.norm()
        assert error < 1e-5, (name, error)


def test_dropout_is_the_same_in_both_passes():
    x, y = _batch()
    chunks = [(x[i : i + 8], y[i : i + 8]) for i in range(0, B, 8)]
    expected, cached = TwoTowers(dropout=0.5), TwoTowers(dropout=0.5)
    torch.manual_seed(3)
    parts = [expected(*chunk) for chunk in chunks]  # with all graphs
    view, text = torch.cat([part.image[0] for part in parts]), torch.cat([part.text for part in parts])
    contrastive_loss(parts[0].scale * view @ text.T, KEYS).backward()
    after = torch.rand(1)
    torch.manual_seed(3)
    contrastive_step(
        cached,
        lambda c: cached(*c),
        chunks,
        KEYS,
        accelerator=Accelerator(cpu=True),
        settings=LossSettings(),
        weights=(1.0, 0.0),
    )
    for name, gradient in _gradients(expected).items():
        error = (gradient - _gradients(cached)[name]).norm() / gradient.norm()
        assert error < 1e-5, (name, error)
    assert torch.equal(after, torch.rand(1))  # the generator continues as after one pass


def test_local_losses_of_two_halves_average_to_the_whole():
    generator = torch.Generator().manual_seed(2)
    v, t = (F.normalize(torch.randn(B, D, generator=generator), dim=-1) for _ in range(2))
    near = t @ t.T > 0.5
    whole = contrastive_loss(7 * v @ t.T, KEYS, ignore=near, smoothing=0.2)
    halves = [
        local_contrastive_loss(7 * v[own] @ t.T, 7 * t[own] @ v.T, KEYS[own], KEYS, ignore=near[own], smoothing=0.2)
        for own in (slice(0, B // 2), slice(B // 2, B))
    ]
    assert (sum(halves) / 2).item() == pytest.approx(whole.item(), rel=1e-5)


def test_bf16_embeddings_are_compared_in_float32():
    v, t = (F.normalize(torch.randn(B, D), dim=-1).bfloat16() for _ in range(2))
    found = loss_gradients(v[None], t, torch.tensor(5.0), KEYS, settings=LossSettings())
    assert found.loss.dtype == found.image.dtype == torch.float32
    assert torch.isfinite(found.image).all()
