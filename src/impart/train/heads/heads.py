"""Heads on two frozen towers: small corrections that start at zero.

    image: x = pooled features, z = cells of the map before pooling
           u = norm(sum of p_k name_k over the ten likeliest classes) + MLP(standardise(x)) + attention(z)
    text:  s = sentence embedding; t = s + MLP(s)

With zero corrections the image embedding is the mean sentence embedding of the likeliest ImageNet classes: the model
has 1,000 names, and words near them. Training adds captions and further nouns. Heads trained from different seeds are
joined: one wider MLP, and the mean of the attentions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["CellAttention", "Correction", "Heads", "ImageHead", "Mean", "TextHead", "join"]


class Correction(nn.Module):
    """Two-layer perceptron whose output starts at zero.

    Args:
        inputs: width of the input.
        hidden: width between.
        outputs: width of the output.
        dropout: on the input and between, while training.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, *, dropout: tuple[float, float] = (0.0, 0.0)):
        super().__init__()
        self.up = nn.Linear(inputs, hidden)
        self.down = nn.Linear(hidden, outputs)
        nn.init.zeros_(self.down.weight)
        nn.init.zeros_(self.down.bias)
        self.drop_in, self.drop_mid = nn.Dropout(dropout[0]), nn.Dropout(dropout[1])

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down(self.drop_mid(F.relu(self.up(self.drop_in(x)))))
        return y


class CellAttention(nn.Module):
    """Attention pooling over the cells of a map: positions, which the pooled features do not have.

    Each head has a learned query. A two-layer perceptron, whose output starts at zero, follows the heads.

    Args:
        mean: (W,) of the cells of the training images.
        std: (W,) likewise.
        cells: Z, cells per image.
        heads: H.
        hidden: width of the perceptron.
        outputs: D.
        dropout: on the cells, on the output of the heads, and between the layers, while training.
    """

    mean: Tensor
    scale: Tensor
    key_width, value_width = 32, 48

    def __init__(
        self,
        mean: Tensor,
        std: Tensor,
        *,
        cells: int,
        heads: int,
        hidden: int,
        outputs: int,
        dropout: tuple[float, float, float] = (0.0, 0.0, 0.0),
    ):
        super().__init__()
        self.heads = heads
        self.register_buffer("mean", mean)
        self.register_buffer("scale", 1 / std)
        self.keys = nn.Linear(len(mean), heads * self.key_width)
        self.values = nn.Linear(len(mean), heads * self.value_width)
        self.places = nn.Parameter(torch.zeros(cells, heads * self.key_width))
        self.queries = nn.Parameter(torch.randn(heads, self.key_width) * 0.2)
        self.drop_cells, self.drop_in, self.drop_mid = (nn.Dropout(share) for share in dropout)
        self.up = nn.Linear(heads * self.value_width, hidden)
        self.down = nn.Linear(hidden, outputs)
        nn.init.zeros_(self.down.weight)
        nn.init.zeros_(self.down.bias)

    def forward(self, cells: Tensor) -> Tensor:
        """Map cells (B, Z * W) to (B, D)."""
        count = self.places.shape[0]
        z = cells.reshape(-1, count, self.mean.shape[0])  # (B, Z, W)
        z = self.drop_cells(((z - self.mean) * self.scale).clamp(-5, 5))
        keys = (self.keys(z) + self.places).reshape(-1, count, self.heads, self.key_width)
        values = F.relu(self.values(z)).reshape(-1, count, self.heads, self.value_width)
        shares = ((keys * self.queries).sum(-1) / self.key_width**0.5).softmax(1)  # (B, Z, H)
        found = (shares.unsqueeze(-1) * values).sum(1).flatten(1)  # (B, H * value_width)
        y: Tensor = self.down(self.drop_mid(F.relu(self.up(self.drop_in(found)))))
        return y


class Mean(nn.Module):
    """Mean of the outputs of several modules."""

    def __init__(self, parts: Sequence[nn.Module]):
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([part(x) for part in self.parts]).mean(0)


class ImageHead(nn.Module):
    """Features of the backbone (B, F + Z * W) to embeddings (B, D), not normalised.

    Args:
        classifier: the backbone's linear layer, F to C classes; frozen.
        names: (C, D) sentence embeddings of the class names, L2-normalised; frozen.
        mean: (F,) of the training features.
        std: (F,) of the training features.
        top: names averaged.
        temperature: of the softmax over the `top` logits.
        correction: the trained head on the pooled features.
        attention: the trained head on the cells (B, Z * W) after the pooled features; None = they are not read.
    """

    weight: Tensor
    bias: Tensor
    prior: Tensor
    names: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        classifier: nn.Linear,
        names: Tensor,
        mean: Tensor,
        std: Tensor,
        *,
        top: int,
        temperature: float,
        correction: Correction,
        attention: nn.Module | None = None,
    ):
        super().__init__()
        self.top, self.temperature = top, temperature
        self.register_buffer("weight", classifier.weight.detach().clone())  # (C, F)
        self.register_buffer("bias", classifier.bias.detach().clone())
        self.register_buffer("prior", torch.zeros_like(self.bias))  # (C,) subtracted from the logits of the base
        self.register_buffer("names", names)
        self.register_buffer("mean", mean)
        self.register_buffer("scale", 1 / std)
        self.correction = correction
        self.attention = attention

    def use(self, heads: Heads) -> None:
        """Replace correction and attention."""
        self.correction, self.attention = heads.image, heads.cells

    def pooled(self, features: Tensor) -> Tensor:
        """Return the pooled features (B, F)."""
        return features[:, : self.weight.shape[1]]

    def cells(self, features: Tensor) -> Tensor:
        """Return the cells (B, Z * W)."""
        return features[:, self.weight.shape[1] :]

    def logits(self, features: Tensor) -> Tensor:
        """Compute the logits of the backbone's classifier (B, C)."""
        return F.linear(self.pooled(features), self.weight, self.bias)

    @torch.no_grad()
    def calibrate(self, clean: Tensor, small: Tensor, *, strength: float) -> None:
        """Correct for classes whose probability rises when an image is shrunk (squirrels and terriers in blur).

        Args:
            clean: features (n, ...) of images as they are.
            small: features (n, ...) of the same images shrunk and enlarged.
            strength: share of the mean log-ratio of the classes' probabilities that is subtracted.
        """
        means = [self.logits(view).softmax(1).mean(0) + 1e-5 for view in (clean, small)]
        self.prior.copy_(strength * (means[1] / means[0]).log())

    def standardise(self, features: Tensor) -> Tensor:
        """Standardise the pooled features and clip them to 5 deviations: (B, F)."""
        return ((self.pooled(features) - self.mean) * self.scale).clamp(-5, 5)

    def base(self, features: Tensor) -> Tensor:
        """Average the names of the likeliest classes, L2-normalised: (B, D)."""
        logits = self.logits(features) - self.prior  # (B, C)
        values, classes = logits.topk(self.top, dim=1)  # (B, top)
        weights = torch.softmax(values / self.temperature, dim=1)
        return F.normalize((weights.unsqueeze(-1) * self.names[classes]).sum(1), dim=-1)

    def forward(self, features: Tensor) -> Tensor:
        u: Tensor = self.base(features) + self.correction(self.standardise(features))
        if self.attention is not None:
            u = u + self.attention(self.cells(features))
        return u


class TextHead(nn.Module):
    """Sentence embeddings (T, D) to embeddings (T, D), not normalised."""

    def __init__(self, correction: Correction):
        super().__init__()
        self.correction = correction

    def forward(self, sentences: Tensor) -> Tensor:
        t: Tensor = sentences + self.correction(sentences)
        return t


class Heads(nn.Module):
    """The trained heads of both towers.

    Attributes:
        image: on the pooled features.
        text: on the sentence embeddings.
        cells: on the cells; None = they are not read.
    """

    image: Correction
    text: Correction
    cells: nn.Module | None

    def __init__(self, image: Correction, text: Correction, cells: nn.Module | None):
        super().__init__()
        self.image, self.text, self.cells = image, text, cells


def join(parts: Sequence[Heads]) -> Heads:
    """Join heads trained from different seeds: their output is the mean of the parts' outputs."""
    cells = [part.cells for part in parts if part.cells is not None]
    image, text = _joined([part.image for part in parts]), _joined([part.text for part in parts])
    return Heads(image, text, Mean(cells) if cells else None).eval()


@torch.no_grad()
def _joined(parts: Sequence[Correction]) -> Correction:
    """One wider correction, with the dropout of the first part."""
    first = parts[0]
    widths = sum(part.up.out_features for part in parts)
    dropout = (first.drop_in.p, first.drop_mid.p)
    joined = Correction(first.up.in_features, widths, first.down.out_features, dropout=dropout)
    joined.up.weight.copy_(torch.cat([part.up.weight for part in parts]))
    joined.up.bias.copy_(torch.cat([part.up.bias for part in parts]))
    joined.down.weight.copy_(torch.cat([part.down.weight for part in parts], dim=1) / len(parts))
    joined.down.bias.copy_(torch.stack([part.down.bias for part in parts]).mean(0))
    return joined
