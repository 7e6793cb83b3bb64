"""transformers' CLIP as towers of mode `pretrain`, from scratch or from weights.

The networks are those of transformers, so that other software can open the result too.

Letters: B images, T texts, D embedding width, S side of the image tower's square input, L tokens.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from impart.encoders.preprocess import PreprocessConfig
from impart.encoders.tokens import TextTokenizer
from impart.files import make_folder, write_json_atomic
from impart.train.pretrain.settings import PretrainSettings
from impart.train.pretrain.towers.base import Towers
from impart.train.pretrain.towers.presets import VitShape, context_of, preset_of
from impart.train.pretrain.towers.tokenizer import START, save_tokenizer

__all__ = ["ClipTowers", "text_config", "vision_config"]


class ClipTowers(Towers):
    """Both towers of a CLIPModel.

    Args:
        model: CLIPModel of transformers.
        tokenizer: of its text tower.
        preprocess: of its image tower.
    """

    def __init__(self, model: Any, tokenizer: TextTokenizer, preprocess: PreprocessConfig):
        super().__init__(preprocess, int(model.config.projection_dim))
        self.model = model
        self.tokenizer = tokenizer
        model.logit_scale.requires_grad_(False)  # the loss has its own temperature

    def embed_pixels(self, pixels: Tensor) -> Tensor:
        made: Tensor = self.model.visual_projection(self.model.vision_model(pixel_values=pixels).pooler_output)
        return made

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Map token ids (T, L), padded with the end token, to embeddings (T, D)."""
        made: Tensor = self.model.text_projection(self.model.text_model(input_ids=ids).pooler_output)
        return made

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """Tokenize texts: ids (T, L), padded to the longest text."""
        return torch.from_numpy(self.tokenizer.pad(self.tokenizer.encode(texts))[0])

    def layers(self) -> list[nn.Module]:
        return [*self.model.vision_model.encoder.layers, *self.model.text_model.encoder.layers]

    @property
    def scale(self) -> float:
        """Inverse temperature of the loaded weights."""
        return float(self.model.logit_scale.detach().exp())

    def save(self, folder: Path, *, scale: float) -> str:
        """Write a folder that `hf:FOLDER` opens."""
        from transformers.utils import logging

        if not sys.stderr.isatty():
            logging.disable_progress_bar()
        make_folder(folder)
        with torch.no_grad():
            self.model.logit_scale.fill_(math.log(scale))
        self.model.save_pretrained(folder)
        save_tokenizer(self.tokenizer, folder)
        size = self.preprocess.size_px
        values = {
            "image_processor_type": "CLIPImageProcessor",
            "do_resize": True,
            "size": {"shortest_edge": size},
            "resample": 3 if self.preprocess.interpolation == "bicubic" else 2,
            "do_center_crop": True,
            "crop_size": {"height": size, "width": size},
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(self.preprocess.mean),
            "image_std": list(self.preprocess.std),
            "do_convert_rgb": True,
        }
        write_json_atomic(folder / "preprocessor_config.json", values, ascii_only=True)
        return f"hf:{folder}"


def vision_config(settings: PretrainSettings) -> dict[str, Any]:
    """Return the entries of a CLIPVisionConfig for a model from scratch."""
    shape = preset_of(settings).image
    assert isinstance(shape, VitShape), shape
    return {
        **_sizes(shape.width, shape.layers, shape.heads),
        "image_size": shape.image_size,
        "patch_size": shape.patch_size,
        **settings.image,
        "attention_dropout": settings.dropout,
    }


def text_config(settings: PretrainSettings, tokenizer: TextTokenizer) -> dict[str, Any]:
    """Return the entries of a CLIPTextConfig for a model from scratch."""
    return {
        **_sizes(*preset_of(settings).text),
        "vocab_size": tokenizer.tokenizer.get_vocab_size(),
        "bos_token_id": tokenizer.tokenizer.token_to_id(START),
        "eos_token_id": tokenizer.pad_id,
        "pad_token_id": tokenizer.pad_id,
        "max_position_embeddings": context_of(settings),
        **settings.text,
        "attention_dropout": settings.dropout,
    }


def _sizes(width: int, layers: int, heads: int) -> dict[str, int]:
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
    }
