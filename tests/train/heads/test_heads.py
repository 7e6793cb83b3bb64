"""The corrections start at zero, and joined heads give the mean of their outputs."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="training needs the extra `train`")

from impart.train.heads.heads import CellAttention, Correction, Heads, ImageHead, Mean, TextHead, join  # noqa: E402


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


def _cells():
    attention = CellAttention(torch.zeros(6), torch.ones(6), cells=4, heads=2, hidden=5, outputs=8)
    torch.nn.init.normal_(attention.down.weight)
    return attention


def test_joined_heads_average_outputs():
    parts = [
        Heads(Correction(12, hidden, 8, dropout=(0.1, 0.2)), Correction(8, hidden + 1, 8, dropout=(0.0, 0.3)), _cells())
        for hidden in (5, 7)
    ]
    for part in parts:
        for correction in (part.image, part.text):
            torch.nn.init.normal_(correction.down.weight)
            torch.nn.init.normal_(correction.down.bias)
        part.eval()
    joined = join(parts)
    for name, width in (("image", 12), ("text", 8), ("cells", 24)):
        x = torch.randn(6, width)
        first, second, mean = (getattr(heads, name)(x) for heads in (*parts, joined))
        assert torch.allclose(mean, (first + second) / 2, atol=1e-5)
    assert (joined.image.drop_in.p, joined.image.drop_mid.p, joined.text.drop_mid.p) == (0.1, 0.2, 0.3)
    assert join([Heads(part.image, part.text, None) for part in parts]).cells is None


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
    head.attention = Mean([_cells()])
    features = torch.randn(4, 12 + 4 * 6)
    assert torch.allclose(head(features), head.base(features) + head.attention(features[:, 12:]))
