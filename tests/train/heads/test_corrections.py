"""The corrections start at zero, and joined heads give the mean of their outputs."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="training needs the extra `train`")

from impart.train.heads.corrections import CellAttention, Correction, ImageHead, Mean, TextHead, join  # noqa: E402


def _head(correction):
    torch.manual_seed(0)
    names = torch.nn.functional.normalize(torch.randn(20, 8), dim=-1)
    return ImageHead(
        torch.nn.Linear(12, 20), names, torch.zeros(12), torch.ones(12), top=3, temperature=1.0, correction=correction
    )


def test_untrained_corrections_change_nothing():
    head, features = _head(Correction(12, 5, 8)), torch.randn(4, 12)
    assert torch.equal(head(features), head.base(features))
    sentences = torch.randn(4, 8)
    assert torch.equal(TextHead(Correction(8, 5, 8))(sentences), sentences)


def test_base_is_the_weighted_mean_of_the_likeliest_names():
    head, features = _head(Correction(12, 5, 8)), torch.randn(4, 12)
    for row, feature in zip(head.base(features), features, strict=True):
        logits = (head.weight @ feature + head.bias).tolist()
        best = sorted(range(20), key=lambda n: -logits[n])[:3]
        weights = torch.softmax(torch.tensor([logits[n] for n in best]), 0)
        mean = sum(w * head.names[n] for w, n in zip(weights, best, strict=True))
        assert torch.allclose(row, mean / mean.norm(), atol=1e-6)


def test_joined_corrections_average_outputs():
    parts = [Correction(12, hidden, 8).eval() for hidden in (5, 7)]
    for part in parts:
        torch.nn.init.normal_(part.down.weight)
        torch.nn.init.normal_(part.down.bias)
    x = torch.randn(6, 12)
    assert torch.allclose(join(parts)(x), (parts[0](x) + parts[1](x)) / 2, atol=1e-5)


def test_attention_agrees_with_a_loop_and_starts_at_zero():
    torch.manual_seed(0)
    attention = CellAttention(torch.zeros(6), torch.ones(6), cells=4, heads=3, hidden=10, outputs=8).eval()
    cells = torch.randn(2, 4 * 6)
    assert torch.equal(attention(cells), torch.zeros(2, 8))
    torch.nn.init.normal_(attention.down.weight)
    torch.nn.init.normal_(attention.places)
    for row, found in zip(cells.reshape(2, 4, 6), attention(cells), strict=True):
        keys, values = attention.keys(row) + attention.places, attention.values(row).relu()
        pooled = []
        for head in range(3):
            own = keys[:, 32 * head : 32 * (head + 1)]
            shares = torch.softmax(own @ attention.queries[head] / 32**0.5, 0)
            pooled.append(shares @ values[:, 48 * head : 48 * (head + 1)])
        expected = attention.down(attention.up(torch.cat(pooled)).relu())
        assert torch.allclose(found, expected, atol=1e-5)


def test_the_head_reads_pooled_features_and_cells():
    head = _head(Correction(12, 5, 8))
    head.attention = Mean([CellAttention(torch.zeros(6), torch.ones(6), cells=4, heads=2, hidden=5, outputs=8)])
    torch.nn.init.normal_(head.attention.parts[0].down.weight)
    features = torch.randn(4, 12 + 4 * 6)
    assert torch.allclose(head(features), head.base(features) + head.attention(features[:, 12:]))
