"""The trained part of `mini`: small zero-started corrections on two frozen towers.

    image: x = backbone features;  u = norm(sum of p_k name_k over the ten likeliest classes) + MLP(standardise(x))
    text:  s = sentence embedding; t = s + MLP(s)

With zero MLPs the model is the backbone's classifier seen through a sentence encoder: it can name 1,000 things and
whatever lies near them. Training moves it towards captions and further nouns. Several heads trained from different
seeds are joined into one wider MLP whose output is their mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Correction", "ImageHead", "TextHead", "join"]


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


class ImageHead(nn.Module):
    """Backbone features (B, F) to embeddings (B, D), not normalised.

    Args:
        classifier: the backbone's linear layer, F to C classes; frozen.
        names: (C, D) sentence embeddings of the class names, L2-normalised; frozen.
        mean: (F,) of the training features.
        std: (F,) of the training features.
        top: names averaged.
        temperature: of the softmax over the `top` logits.
        correction: the trained part.
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
    ):
        super().__init__()
        self.top, self.temperature = top, temperature
        self.register_buffer("weight", classifier.weight.detach().clone())  # (C, F)
        self.register_buffer("bias", classifier.bias.detach().clone())
        self.register_buffer("prior", torch.zeros_like(self.bias))  # (C,) taken off the logits of the base
        self.register_buffer("names", names)
        self.register_buffer("mean", mean)
        self.register_buffer("scale", 1 / std)
        self.correction = correction

    @torch.no_grad()
    def calibrate(self, clean: Tensor, small: Tensor, *, strength: float) -> None:
        """Take off the classes that shrinking a picture inflates (squirrels and terriers live in blur).

        Args:
            clean: features (n, F) of pictures as they are.
            small: features (n, F) of the same pictures shrunk and enlarged.
            strength: share of the mean log-ratio of the classes' probabilities that is taken off.
        """
        means = [F.linear(view, self.weight, self.bias).softmax(1).mean(0) + 1e-5 for view in (clean, small)]
        self.prior.copy_(strength * (means[1] / means[0]).log())

    def standardise(self, features: Tensor) -> Tensor:
        """Zero mean, unit deviation, extremes cut: (B, F)."""
        return ((features - self.mean) * self.scale).clamp(-5, 5)

    def base(self, features: Tensor) -> Tensor:
        """Mean name of the likeliest classes, L2-normalised: (B, D)."""
        logits = F.linear(features, self.weight, self.bias - self.prior)  # (B, C)
        values, classes = logits.topk(self.top, dim=1)  # (B, top)
        weights = torch.softmax(values / self.temperature, dim=1)
        return F.normalize((weights.unsqueeze(-1) * self.names[classes]).sum(1), dim=-1)

    def forward(self, features: Tensor) -> Tensor:
        u: Tensor = self.base(features) + self.correction(self.standardise(features))
        return u


class TextHead(nn.Module):
    """Sentence embeddings (T, D) to embeddings (T, D), not normalised."""

    def __init__(self, correction: Correction):
        super().__init__()
        self.correction = correction

    def forward(self, sentences: Tensor) -> Tensor:
        t: Tensor = sentences + self.correction(sentences)
        return t


@torch.no_grad()
def join(parts: Sequence[Correction]) -> Correction:
    """One wider correction whose output is the mean of the parts' outputs."""
    first = parts[0]
    widths = sum(part.up.out_features for part in parts)
    joined = Correction(first.up.in_features, widths, first.down.out_features)
    joined.up.weight.copy_(torch.cat([part.up.weight for part in parts]))
    joined.up.bias.copy_(torch.cat([part.up.bias for part in parts]))
    joined.down.weight.copy_(torch.cat([part.down.weight for part in parts], dim=1) / len(parts))
    joined.down.bias.copy_(torch.stack([part.down.bias for part in parts]).mean(0))
    return joined.eval()
