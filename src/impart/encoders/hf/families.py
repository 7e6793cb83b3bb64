"""Kinds of models that `hf:` loads, and the properties of each that its config does not have.

Two-tower models give embeddings of images and texts. Image models (DINO, ViT, ConvNeXt) have no text tower: they find
neighbours, as the retrieval encoder of `paired:`. A kind is found by `model_type` in `config.json`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["FAMILIES", "Family", "logit_bias_of", "logit_scale_of"]


_LOGITS = (r"^logit_scale$", r"^logit_bias$", r"^temperature$")
_TEXT_POOLER = (r"^text_model\.(roberta\.)?pooler\.",)
"""BERT's pooler, where the text embedding is a projection of the class token."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """Properties of a kind of model that its transformers config does not have.

    Attributes:
        model: class name in transformers.
        dim: reads D from the model's config.
        texts: False for an image model.
        mask: the text tower takes an attention mask: BERT and its relatives attend to padding without one.
        pad_to_context: pad texts to the length of training, since the text tower attends to padding (SigLIP has neither
            a mask nor causal attention); else pad to the longest text of the batch.
        clean: text cleaning, where the tokenizer class that the files name has none.
        tokenizer: tokenizer class, whatever the files name; empty = the class that they name.
        fixed_size: the image tower takes images of one size only.
        patches: the image tower takes patches of images that keep their aspect ratio (NaFlex).
        embed: output of the image model -> embeddings, where it is not the output of transformers' own method.
        unused: patterns of weight names that may be left over: heads of other tasks.
        absent: patterns of weight names that may be missing, since the embedding does not use them.
    """

    model: str
    dim: Callable[[Any], int]
    texts: bool = True
    mask: bool = False
    pad_to_context: bool = False
    clean: str = "none"
    tokenizer: str = ""
    fixed_size: bool = True
    patches: bool = False
    embed: Callable[[Any], Any] | None = None
    unused: tuple[str, ...] = ()
    absent: tuple[str, ...] = _LOGITS


def _projection(config: Any) -> int:
    return int(config.projection_dim)


def _text_projection(config: Any) -> int:
    return int(config.text_config.projection_size)


def _width(config: Any) -> int:
    return int(config.hidden_size)


def _last_width(config: Any) -> int:
    return int(config.hidden_sizes[-1])


def _pooled(output: Any) -> Any:
    return output.pooler_output


def _class_token(output: Any) -> Any:
    return output.last_hidden_state[:, 0]  # (B, 1 + patches, D) -> (B, D); ViT's pooler is untrained in many models


_HEADS = (r"^(classifier|cls_classifier|distillation_classifier|head|lm_head|decoder)\.", r"(^|\.)mask_token$")
_BERT: dict[str, Any] = {"mask": True, "unused": _TEXT_POOLER, "absent": (*_LOGITS, *_TEXT_POOLER)}
_IMAGE: dict[str, Any] = {
    "model": "AutoModel",
    "texts": False,
    "fixed_size": False,
    "unused": _HEADS,
    "absent": (r"^pooler\.", r"(^|\.)mask_token$"),
}

FAMILIES = {
    "clip": Family(model="CLIPModel", clean="whitespace", dim=_projection),
    "siglip": Family(model="SiglipModel", pad_to_context=True, clean="canonicalize", dim=_text_projection),
    "siglip2": Family(
        model="Siglip2Model",
        pad_to_context=True,
        clean="lower_only",
        tokenizer="Siglip2Tokenizer",  # published files name Gemma's; transformers replaces it as well
        fixed_size=False,
        patches=True,
        dim=_text_projection,
    ),
    "metaclip_2": Family(model="MetaClip2Model", clean="whitespace", dim=_projection),
    "clipseg": Family(
        model="CLIPSegModel", clean="whitespace", fixed_size=False, unused=(r"^decoder\.",), dim=_projection
    ),
    "align": Family(**_BERT, model="AlignModel", fixed_size=False, dim=_projection),
    "altclip": Family(**_BERT, model="AltCLIPModel", dim=_projection),
    "chinese_clip": Family(**_BERT, model="ChineseCLIPModel", dim=_projection),
    "vision-text-dual-encoder": Family(
        model="VisionTextDualEncoderModel", mask=True, fixed_size=False, dim=_projection
    ),
    "vit": Family(**_IMAGE, embed=_class_token, dim=_width),
    "deit": Family(**_IMAGE, embed=_class_token, dim=_width),
    "dinov2": Family(**_IMAGE, embed=_pooled, dim=_width),
    "dinov2_with_registers": Family(**_IMAGE, embed=_pooled, dim=_width),
    "dinov3_vit": Family(**_IMAGE, embed=_pooled, dim=_width),
    "dinov3_convnext": Family(**_IMAGE, embed=_pooled, dim=_last_width),
    "convnext": Family(**_IMAGE, embed=_pooled, dim=_last_width),
    "convnextv2": Family(**_IMAGE, embed=_pooled, dim=_last_width),
}
"""`model_type` of `config.json` -> the family."""


def logit_scale_of(model: Any, *, missing: set[str], default: float) -> float:
    """Read the factor from cosines to logits; `default` where the weights have none."""
    if hasattr(model, "logit_scale") and "logit_scale" not in missing:
        return float(model.logit_scale.detach().float().exp())
    if hasattr(model, "temperature") and "temperature" not in missing:  # ALIGN divides by it
        return 1.0 / float(model.temperature.detach().float())
    return default


def logit_bias_of(model: Any, *, missing: set[str], default: float) -> float:
    """Read the bias of the logits; `default` where the weights have none."""
    if hasattr(model, "logit_bias") and "logit_bias" not in missing:
        return float(model.logit_bias.detach().float())
    return default
