"""Base class of the towers of mode `pretrain`.

Letters: B images, T texts, D embedding width, S side of the image tower's square input, L tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from impart.encoders.preprocess import PreprocessConfig

__all__ = ["Towers"]


class Towers(nn.Module):
    """Both towers, with L2-normalised output. Subclasses compute, tokenize and save.

    Args:
        preprocess: of the image tower.
        dim: D.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, preprocess: PreprocessConfig, dim: int):
        super().__init__()
        self.preprocess = preprocess
        self.dim = dim
        self.register_buffer("mean", 255 * torch.tensor(preprocess.mean)[:, None, None], persistent=False)
        self.register_buffer("std", 255 * torch.tensor(preprocess.std)[:, None, None], persistent=False)

    def image(self, pixels: Tensor) -> Tensor:
        """Embed pixels (B, 3, S, S), uint8 or normalised float32: (B, D)."""
        if pixels.dtype == torch.uint8:
            pixels = pixels.float().sub_(self.mean).div_(self.std)
        return F.normalize(self.embed_pixels(pixels).float(), dim=-1)

    def text(self, ids: Tensor) -> Tensor:
        """Embed what `tokens` returns for T texts: (T, D)."""
        return F.normalize(self.embed_tokens(ids).float(), dim=-1)

    def forward(self, pixels: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Embed both: image embeddings (B, D) and text embeddings (T, D)."""
        return self.image(pixels), self.text(ids)

    def embed_pixels(self, pixels: Tensor) -> Tensor:
        """Map normalised pixels (B, 3, S, S) to embeddings (B, D) of any length."""
        raise NotImplementedError

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Map what `tokens` returns to embeddings (T, D) of any length."""
        raise NotImplementedError

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """Return the text tower's input for T texts: ids (T, L), or sentence embeddings (T, W)."""
        raise NotImplementedError

    def layers(self) -> list[nn.Module]:
        """List the layers whose weights may be spread over processes; none for small towers."""
        return []

    def save(self, folder: Path, *, scale: float) -> str:
        """Write the towers to a folder; return the id that `load_encoder` opens.

        Args:
            folder: made when missing.
            scale: the learned inverse temperature.
        """
        raise NotImplementedError
