"""Build the towers that a config names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from impart.encoders.preprocess import PreprocessConfig
from impart.encoders.tokens import TextTokenizer
from impart.errors import ConfigError, MissingExtraError
from impart.train.heads.towers.sentences import SentenceCache
from impart.train.pretrain.settings import PretrainSettings
from impart.train.pretrain.towers.base import Towers
from impart.train.pretrain.towers.clip import ClipTowers, text_config, vision_config
from impart.train.pretrain.towers.composed import ComposedTowers, LearnedTexts, PooledVision, SentenceTexts
from impart.train.pretrain.towers.conv import ConstantTower, ConvShape, ConvTower
from impart.train.pretrain.towers.presets import preset_of

__all__ = ["build_towers"]


def build_towers(
    settings: PretrainSettings,
    *,
    data: Path,
    tokenizer: TextTokenizer | None,
    seed: int,
    sentences: SentenceCache | None = None,
) -> Towers:
    """Build the towers; initial weights are a function of the seed.

    Args:
        settings: model and changes to its configuration.
        data: folder that relative paths start from.
        tokenizer: for a text tower from scratch.
        seed: of the initial weights.
        sentences: for `text_tower = "sentences"`.

    Raises:
        ConfigError: the model is unknown, or a shape is not valid.
        EncoderError: the folder of weights lacks files, or contains another kind of model.
        MissingExtraError: transformers is not installed.
    """
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("transformers", extra="train", purpose="mode 'pretrain'") from error
    torch.manual_seed(seed)
    if settings.model.startswith("hf:"):
        towers: Towers = _from_weights(data / Path(settings.model[3:]).expanduser(), settings)
    else:
        try:
            towers = _from_scratch(settings, tokenizer, sentences)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"pretrain.image or pretrain.text is no valid configuration: {error}") from error
    towers.train()
    if settings.checkpointing:
        _save_activations(towers)
    return towers


def _from_scratch(
    settings: PretrainSettings, tokenizer: TextTokenizer | None, sentences: SentenceCache | None
) -> Towers:
    preset = preset_of(settings)
    dim = settings.dim or preset.dim
    if not isinstance(preset.image, ConvShape) and settings.text_tower == "own":
        from transformers import CLIPConfig, CLIPModel

        assert tokenizer is not None
        image = vision_config(settings)
        config = CLIPConfig(vision_config=image, text_config=text_config(settings, tokenizer), projection_dim=dim)
        return ClipTowers(CLIPModel(config), tokenizer, PreprocessConfig(size_px=int(image["image_size"])))
    if isinstance(preset.image, ConvShape):
        shape = preset.image.changed(settings.image)
        size = shape.image_size
        tower: nn.Module = ConstantTower(dim) if preset.constant else ConvTower(shape, dim)
    else:
        image = vision_config(settings)
        size = int(image["image_size"])
        tower = PooledVision(image, dim)
    texts: LearnedTexts | SentenceTexts
    if settings.text_tower == "own":
        assert tokenizer is not None
        texts = LearnedTexts(text_config(settings, tokenizer), tokenizer, dim)
    else:
        assert sentences is not None
        if unknown := sorted(settings.text.keys() - {"layers", "hidden"}):
            raise ConfigError(
                f"pretrain.text has no {unknown[0]!r} with text_tower = 'sentences': use layers (1 or 2) and hidden"
            )
        texts = SentenceTexts(sentences, dim, **settings.text)
    return ComposedTowers(tower, texts, PreprocessConfig(size_px=size), dim)


def _from_weights(folder: Path, settings: PretrainSettings) -> ClipTowers:
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
    return ClipTowers(model, encoder.tokenizer, encoder.preprocess_config)


def _save_activations(towers: Towers) -> None:
    """Compute activations again in the backward pass, in all parts that are transformers'.

    Raises:
        ConfigError: there are none.
    """
    models: list[Any] = [module for module in towers.modules() if hasattr(module, "gradient_checkpointing_enable")]
    if not models:
        raise ConfigError("pretrain.checkpointing needs a transformer: leave it out with these towers")
    for model in models:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
