"""Towers of mode `pretrain`: transformers' CLIP, from scratch or from weights, and a tokenizer.

The networks are those of transformers, so that other software can open the result too.

Letters: B images, T texts, D embedding width, S side of the image tower's square input, L tokens.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from impart.encoders.preprocess import PreprocessConfig
from impart.encoders.tokens import TextTokenizer
from impart.errors import ConfigError, MissingExtraError
from impart.files import make_folder, write_json_atomic
from impart.train.pretrain.settings import PretrainSettings

__all__ = ["PRESETS", "Preset", "Towers", "build_towers", "learn_tokenizer"]

START, END = "<|startoftext|>", "<|endoftext|>"


@dataclass(frozen=True)
class Preset:
    """Sizes of both towers: width, layers and heads (the hidden layers are four times as wide)."""

    image: tuple[int, int, int]
    text: tuple[int, int, int]
    size_px: int
    patch_px: int
    context_tokens: int
    dim: int


PRESETS = {
    "tiny": Preset((64, 2, 2), (64, 2, 2), size_px=64, patch_px=16, context_tokens=32, dim=64),
    "small": Preset((384, 8, 6), (256, 6, 4), size_px=128, patch_px=16, context_tokens=64, dim=256),
    "vit-b-32": Preset((768, 12, 12), (512, 12, 8), size_px=224, patch_px=32, context_tokens=77, dim=512),
    "vit-b-16": Preset((768, 12, 12), (512, 12, 8), size_px=224, patch_px=16, context_tokens=77, dim=512),
}
"""`vit-b-32` and `vit-b-16` are the models of Radford et al. 2021."""


class Towers(nn.Module):
    """Both towers, with L2-normalised output.

    Args:
        model: CLIPModel of transformers.
        tokenizer: of its text tower.
        preprocess: of its image tower.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: Any, tokenizer: TextTokenizer, preprocess: PreprocessConfig):
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.preprocess = preprocess
        self.dim = int(model.config.projection_dim)
        model.logit_scale.requires_grad_(False)  # the loss has its own temperature
        self.register_buffer("mean", 255 * torch.tensor(preprocess.mean)[:, None, None], persistent=False)
        self.register_buffer("std", 255 * torch.tensor(preprocess.std)[:, None, None], persistent=False)

    def image(self, pixels: Tensor) -> Tensor:
        """Embed pixels (B, 3, S, S), uint8 or normalised float32: (B, D)."""
        if pixels.dtype == torch.uint8:
            pixels = (pixels.float() - self.mean) / self.std
        pooled = self.model.vision_model(pixel_values=pixels).pooler_output
        return F.normalize(self.model.visual_projection(pooled).float(), dim=-1)

    def text(self, ids: Tensor) -> Tensor:
        """Embed token ids (T, L), padded with the end token: (T, D)."""
        pooled = self.model.text_model(input_ids=ids).pooler_output
        return F.normalize(self.model.text_projection(pooled).float(), dim=-1)

    def forward(self, pixels: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Embed both: image embeddings (B, D) and text embeddings (T, D)."""
        return self.image(pixels), self.text(ids)

    def tokens(self, texts: list[str]) -> Tensor:
        """Tokenize texts: ids (T, L), padded to the longest text."""
        return torch.from_numpy(self.tokenizer.pad(self.tokenizer.encode(texts))[0])

    @property
    def scale(self) -> float:
        """Inverse temperature of the loaded weights."""
        return float(self.model.logit_scale.detach().exp())

    def save(self, folder: Path, *, scale: float) -> None:
        """Write a folder that `hf:FOLDER` opens; `scale` is the learned inverse temperature."""
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


def build_towers(settings: PretrainSettings, *, data: Path, tokenizer: TextTokenizer | None, seed: int) -> Towers:
    """Build the towers; initial weights are a function of the seed.

    Args:
        settings: model and changes to its configuration.
        data: folder that relative paths start from.
        tokenizer: for towers from scratch.
        seed: of the initial weights.

    Raises:
        ConfigError: the model is unknown, or transformers refuses the shape.
        EncoderError: the folder of weights lacks files, or contains another kind of model.
        MissingExtraError: transformers is not installed.
    """
    try:
        from transformers import CLIPConfig, CLIPModel
    except ImportError as error:
        raise MissingExtraError("transformers", extra="train", purpose="mode 'pretrain'") from error
    torch.manual_seed(seed)
    if settings.model.startswith("hf:"):
        towers = _from_weights(data / Path(settings.model[3:]).expanduser(), settings)
    else:
        assert tokenizer is not None
        preset = preset_of(settings)
        context = int(settings.text.get("max_position_embeddings", preset.context_tokens))
        image = {**_sizes(preset.image), "image_size": preset.size_px, "patch_size": preset.patch_px, **settings.image}
        text = {
            **_sizes(preset.text),
            "vocab_size": tokenizer.tokenizer.get_vocab_size(),
            "bos_token_id": tokenizer.tokenizer.token_to_id(START),
            "eos_token_id": tokenizer.pad_id,
            "pad_token_id": tokenizer.pad_id,
            "max_position_embeddings": context,
            **settings.text,
        }
        try:
            config = CLIPConfig(
                vision_config={**image, "attention_dropout": settings.dropout},
                text_config={**text, "attention_dropout": settings.dropout},
                projection_dim=settings.dim or preset.dim,
            )
            model = CLIPModel(config)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"pretrain.image or pretrain.text is no valid CLIP configuration: {error}") from error
        towers = Towers(model, tokenizer, PreprocessConfig(size_px=int(image["image_size"])))
    towers.train()
    if settings.checkpointing:
        towers.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return towers


def preset_of(settings: PretrainSettings) -> Preset:
    """Return the preset of a model from scratch.

    Raises:
        ConfigError: there is none of that name.
    """
    if settings.model not in PRESETS:
        raise ConfigError(f"pretrain.model is {settings.model!r}: use {', '.join(PRESETS)}, or hf:FOLDER")
    return PRESETS[settings.model]


def learn_tokenizer(texts: Iterable[str], settings: PretrainSettings) -> TextTokenizer:
    """Learn a lower-case byte-level BPE tokenizer; a function of the captions and settings alone."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    context = int(settings.text.get("max_position_embeddings", preset_of(settings).context_tokens))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocabulary,
        min_frequency=2,
        special_tokens=[START, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((" ".join(text.split()) for text in texts), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(mark, tokenizer.token_to_id(mark)) for mark in (START, END)]
    )
    tokenizer.enable_truncation(max_length=context)
    return TextTokenizer(
        tokenizer=tokenizer, context_tokens=context, pad_id=tokenizer.token_to_id(END) or 0, clean="whitespace"
    )


def save_tokenizer(tokenizer: TextTokenizer, folder: Path) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json`."""
    make_folder(folder)
    tokenizer.tokenizer.save(str(folder / "tokenizer.json"))
    pad = tokenizer.tokenizer.id_to_token(tokenizer.pad_id)
    kind = {"whitespace": "TokenizersBackend", "lower": "Siglip2Tokenizer", "canonicalize": "SiglipTokenizer"}
    values = {"tokenizer_class": kind[tokenizer.clean], "pad_token": pad, "model_max_length": tokenizer.context_tokens}
    write_json_atomic(folder / "tokenizer_config.json", values, ascii_only=True)


def open_tokenizer(folder: Path, settings: PretrainSettings) -> TextTokenizer:
    """Open a tokenizer's folder; texts are cut to the text tower's context.

    Raises:
        EncoderError: a file is missing or damaged.
    """
    context = int(settings.text.get("max_position_embeddings", preset_of(settings).context_tokens))
    return TextTokenizer.from_folder(folder, context_tokens=context, clean="whitespace")


def _from_weights(folder: Path, settings: PretrainSettings) -> Towers:
    from impart.encoders.hf.encoder import load_hf

    encoder = load_hf(str(folder), device="cpu")
    model: Any = encoder.image_tower.model
    if model.config.model_type != "clip" or encoder.tokenizer is None or encoder.preprocess_config is None:
        raise ConfigError(f"pretrain.model hf:{folder} is a {model.config.model_type}: mode 'pretrain' needs a CLIP")
    model.requires_grad_(True)
    for config in (model.config.vision_config, model.config.text_config):
        config.attention_dropout = settings.dropout
    for layer in model.modules():
        if layer.__class__.__name__ == "CLIPAttention":
            layer.dropout = settings.dropout
    return Towers(model, encoder.tokenizer, encoder.preprocess_config)


def _sizes(shape: tuple[int, int, int]) -> dict[str, int]:
    width, layers, heads = shape
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
    }
