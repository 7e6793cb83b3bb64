"""An image tower and a text tower of different kinds, exported in the ONNX layout of `mini`.

Image towers: the small convolutional network, a constant, or transformers' vision tower. Text towers: transformers'
text tower from scratch, or a learned projection of the frozen sentence embeddings of all-MiniLM-L6-v2.

Letters: B images, T texts, D embedding width, S side of the image tower's square input, L tokens, W sentence width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from impart.encoders.preprocess import PreprocessConfig
from impart.encoders.tokens import TextTokenizer
from impart.errors import ConfigError
from impart.files import make_folder, write_json_atomic
from impart.train.heads.towers.sentences import CONTEXT_TOKENS, WIDTH, SentenceCache
from impart.train.pretrain.towers.base import Towers
from impart.train.pretrain.towers.tokenizer import save_tokenizer

__all__ = ["ComposedTowers", "LearnedTexts", "SentenceTexts"]


class ComposedTowers(Towers):
    """Image tower and text tower as one.

    Args:
        seen: normalised pixels (B, 3, S, S) to (B, D).
        texts: the text tower with its input.
        preprocess: of the image tower.
        dim: D.
    """

    def __init__(self, seen: nn.Module, texts: LearnedTexts | SentenceTexts, preprocess: PreprocessConfig, dim: int):
        super().__init__(preprocess, dim)
        self.image_tower = seen
        self.text_tower = texts

    def embed_pixels(self, pixels: Tensor) -> Tensor:
        made: Tensor = self.image_tower(pixels)
        return made

    def embed_tokens(self, ids: Tensor) -> Tensor:
        made: Tensor = self.text_tower(ids)
        return made

    def tokens(self, texts: Sequence[str]) -> Tensor:
        return self.text_tower.tokens(texts)

    def save(self, folder: Path, *, scale: float) -> str:
        """Write a folder in the layout of `mini`, with float32 weights; `mini:FOLDER` opens it."""
        from impart.train.heads.onnx_export import export_graph

        make_folder(folder)
        size = self.preprocess.size_px
        export_graph(
            self.image_tower,
            (torch.zeros(2, 3, size, size),),
            folder / "image.onnx",
            inputs=["pixels"],
            outputs=["image_embeds"],
            shapes=({0: torch.export.Dim("B")},),
            int8=None,
        )
        self.text_tower.export(folder)
        card = {
            "id": "pretrain",
            "dim": self.dim,
            "context_tokens": self.text_tower.context_tokens,
            "logit_scale": scale,
            "preprocess": self.preprocess.to_dict(),
        }
        write_json_atomic(folder / "model.json", card, ascii_only=True)
        return f"mini:{folder}"


class PooledVision(nn.Module):
    """transformers' vision tower with a projection: normalised pixels (B, 3, S, S) to (B, D).

    Args:
        config: entries of a CLIPVisionConfig.
        dim: D.
    """

    def __init__(self, config: Mapping[str, Any], dim: int):
        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

        super().__init__()
        self.model = CLIPVisionModelWithProjection(CLIPVisionConfig(**config, projection_dim=dim))

    def forward(self, pixels: Tensor) -> Tensor:
        made: Tensor = self.model(pixel_values=pixels).image_embeds
        return made


class LearnedTexts(nn.Module):
    """transformers' text tower from scratch: token ids (T, L) to (T, D).

    Args:
        config: entries of a CLIPTextConfig.
        tokenizer: learned from the captions.
        dim: D.
    """

    def __init__(self, config: Mapping[str, Any], tokenizer: TextTokenizer, dim: int):
        from transformers import CLIPTextConfig, CLIPTextModelWithProjection

        super().__init__()
        self.model = CLIPTextModelWithProjection(CLIPTextConfig(**config, projection_dim=dim))
        self.tokenizer = tokenizer
        self.context_tokens = tokenizer.context_tokens

    def forward(self, ids: Tensor) -> Tensor:
        made: Tensor = self.model(input_ids=ids).text_embeds
        return made

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """Tokenize texts: ids (T, L), padded to the longest text."""
        return torch.from_numpy(self.tokenizer.pad(self.tokenizer.encode(texts))[0])

    def export(self, folder: Path) -> None:
        """Write `text.onnx` and the tokenizer."""
        from impart.train.heads.onnx_export import export_graph

        export_graph(
            self,
            (torch.full((2, self.context_tokens), self.tokenizer.pad_id),),
            folder / "text.onnx",
            inputs=["input_ids"],
            outputs=["text_embeds"],
            shapes=({0: torch.export.Dim("T")},),
            int8=None,
        )
        save_tokenizer(self.tokenizer, folder)


class SentenceTexts(nn.Module):
    """Learned projection of frozen sentence embeddings: (T, W) to (T, D).

    Args:
        sentences: the frozen embeddings by text.
        dim: D.
        layers: 1 = linear, 2 = with one hidden layer.
        hidden: its width.

    Raises:
        ConfigError: `layers` is neither 1 nor 2, or `hidden` is below 1.
    """

    context_tokens = CONTEXT_TOKENS

    def __init__(self, sentences: SentenceCache, dim: int, *, layers: int = 1, hidden: int = 512):
        super().__init__()
        if layers not in (1, 2) or hidden < 1:
            raise ConfigError(f"pretrain.text has {layers} layers of width {hidden}: 1 or 2, of width 1 or more")
        self.sentences = sentences
        self.projection = (
            nn.Linear(WIDTH, dim)
            if layers == 1
            else nn.Sequential(nn.Linear(WIDTH, hidden), nn.GELU(), nn.Linear(hidden, dim))
        )

    def forward(self, sentences: Tensor) -> Tensor:
        made: Tensor = self.projection(sentences)
        return made

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """Return the sentence embeddings (T, W) of texts; new ones are computed."""
        return torch.from_numpy(self.sentences.embed(texts))

    def export(self, folder: Path) -> None:
        """Write `text.onnx`, the sentence tower with the projection, and its tokenizer."""
        from impart.train.heads.onnx_export import TextTower, export_text
        from impart.train.heads.towers.sentences import copy_tokenizer, load_minilm

        export_text(TextTower(load_minilm(), self.projection), folder / "text.onnx", int8=None)
        copy_tokenizer(folder)
