"""Sizes of the towers that `pretrain.model` names."""

from __future__ import annotations

from dataclasses import dataclass

from impart.errors import ConfigError
from impart.train.pretrain.settings import PretrainSettings
from impart.train.pretrain.towers.conv import ConvShape

__all__ = ["PRESETS", "Preset", "VitShape", "context_of", "preset_of"]


@dataclass(frozen=True, kw_only=True)
class VitShape:
    """Sizes of a vision transformer of transformers' CLIP: width, layers and heads (hidden layers are 4 times as wide).

    Attributes:
        width, layers, heads: of the transformer.
        image_size: side of the input in pixels.
        patch_size: side of a patch in pixels.
    """

    width: int
    layers: int
    heads: int
    image_size: int
    patch_size: int


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Sizes of both towers.

    Attributes:
        image: of the image tower.
        text: width, layers and heads of a text tower from scratch.
        context_tokens: longest text of it.
        dim: embedding width.
        constant: a learned constant replaces the image tower.
    """

    image: VitShape | ConvShape
    text: tuple[int, int, int]
    context_tokens: int
    dim: int
    constant: bool = False


_SMALL_VIT = VitShape(width=384, layers=8, heads=6, image_size=128, patch_size=16)
_BASE = {"width": 768, "layers": 12, "heads": 12, "image_size": 224}
_TINY = VitShape(width=64, layers=2, heads=2, image_size=64, patch_size=16)
PRESETS = {
    "tiny": Preset(image=_TINY, text=(64, 2, 2), context_tokens=32, dim=64),
    "small": Preset(image=_SMALL_VIT, text=(256, 6, 4), context_tokens=64, dim=256),
    "conv-small": Preset(image=ConvShape(), text=(128, 4, 4), context_tokens=32, dim=256),
    "constant": Preset(image=ConvShape(), text=(128, 4, 4), context_tokens=32, dim=256, constant=True),
    "vit-b-32": Preset(image=VitShape(**_BASE, patch_size=32), text=(512, 12, 8), context_tokens=77, dim=512),
    "vit-b-16": Preset(image=VitShape(**_BASE, patch_size=16), text=(512, 12, 8), context_tokens=77, dim=512),
}
"""`vit-b-32` and `vit-b-16` are the models of Radford et al. 2021."""


def preset_of(settings: PretrainSettings) -> Preset:
    """Return the preset of a model from scratch.

    Raises:
        ConfigError: there is none of that name.
    """
    if settings.model not in PRESETS:
        raise ConfigError(f"pretrain.model is {settings.model!r}: use {', '.join(PRESETS)}, or hf:FOLDER")
    return PRESETS[settings.model]


def context_of(settings: PretrainSettings) -> int:
    """Return the longest text of a text tower from scratch, in tokens."""
    return int(settings.text.get("max_position_embeddings", preset_of(settings).context_tokens))
