"""`hf:<folder or hub repo>`: models of transformers, with the preprocessing and tokenizers of IMPART.

A mistake in these makes embeddings silently wrong, so they are read from the model's own files and checked: the
activation (QuickGELU or GELU, read by transformers from `hidden_act`), the normalisation, the text cleaning, the
padding, and that no weight is missing or left over.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from impart.encoders.base import EncoderTraits
from impart.encoders.hf.families import FAMILIES, Family, logit_bias_of, logit_scale_of
from impart.encoders.hf.naflex import PatchConfig, patch_inputs
from impart.encoders.hf.processor import read_patches, read_squares
from impart.encoders.hf.text import read_tokenizer
from impart.encoders.hub import HF_FILES, has_weights, resolve
from impart.encoders.onnx.encoder import hash_files
from impart.encoders.preprocess import preprocess
from impart.encoders.tokens import TextTokenizer, read_json
from impart.encoders.torch_towers import Inputs, TorchEncoder, TorchTower, quiet
from impart.errors import EncoderError, MissingExtraError
from impart.files import blake2b_hex

__all__ = ["load_hf"]

_BUFFERS = (r"(^|\.)position_ids$", r"(^|\.)token_type_ids$")
"""Counting buffers that earlier versions of transformers stored with the weights."""


def load_hf(rest: str, *, device: str = "auto", dtype: str = "float32", threads: int = 0) -> TorchEncoder:
    """Load a two-tower model or an image model in the format of transformers.

    Args:
        rest: a folder or a hub repository.
        device: `auto` (CUDA, else MPS, else CPU) or a torch device.
        dtype: `float32`, `float16` or `bfloat16`.
        threads: CPU threads; 0 = the default of torch.

    Raises:
        ConfigError: there is no such device.
        MissingExtraError: torch or transformers is not installed.
        EncoderNotFoundError: no folder and no repository has this name.
        EncoderError: files are missing or damaged, or it is another kind of model.
    """
    try:
        import transformers
    except ImportError as error:
        raise MissingExtraError("transformers", extra="torch", purpose=f"model 'hf:{rest}'") from error
    if not sys.stderr.isatty():
        transformers.utils.logging.disable_progress_bar()
    folder = resolve(rest, HF_FILES)
    family = _family(folder)
    images = read_patches(folder) if family.patches else read_squares(folder)
    model, missing = _model(folder, family=family)
    size_px = images.side_px if isinstance(images, PatchConfig) else images.size_px
    if family.fixed_size and model.config.vision_config.image_size != size_px:
        raise EncoderError(
            f"{folder}: the image tower takes {model.config.vision_config.image_size} px, but the image processor "
            f"returns {size_px} px; the files do not belong together: fetch the model again"
        )
    context_tokens = _context_tokens(model) if family.texts else 0
    tokenizer = read_tokenizer(folder, family=family, context_tokens=context_tokens) if family.texts else None
    dim = family.dim(model.config)
    return TorchEncoder(
        traits=EncoderTraits(
            id=f"hf:{folder}" if Path(rest).expanduser().is_dir() else f"hf:{rest}",
            dim=dim,
            retrieval_dim=dim,
            own_retrieval=False,
            image_size_px=size_px,
            context_tokens=context_tokens,
            logit_scale=logit_scale_of(model, missing=missing, default=EncoderTraits.logit_scale),
            logit_bias=logit_bias_of(model, missing=missing, default=EncoderTraits.logit_bias),
        ),
        image_tower=_image_tower(model, family=family),
        prepare=lambda given: (
            patch_inputs(given, images) if isinstance(images, PatchConfig) else [preprocess(given, images)]
        ),
        text_tower=_text_tower(model, family=family) if family.texts else None,
        tokenize=lambda texts: _token_inputs(texts, tokenizer, family=family),
        tokenizer=tokenizer,
        preprocess_config=None if isinstance(images, PatchConfig) else images,
        fingerprint=lambda: hash_files(
            [*has_weights(folder), folder / "config.json"],
            settings={
                "preprocess": images.to_dict(),
                **({} if tokenizer is None else _described(tokenizer)),
                "dtype": dtype,
            },
        ),
        device=device,
        dtype=dtype,
        threads=threads,
    )


def _family(folder: Path) -> Family:
    kind = read_json(folder / "config.json").get("model_type", "")
    family = FAMILIES.get(kind) if isinstance(kind, str) else None
    if family is None:
        raise EncoderError(
            f"{folder / 'config.json'}: model type {kind!r} is unknown: use {', '.join(FAMILIES)}; for a model of "
            "open_clip 'open_clip:<model>/<tag>' or 'open_clip:local-dir:<folder>'; or register a loader with "
            "impart.encoders.register"
        )
    return family


def _model(folder: Path, *, family: Family) -> tuple[Any, set[str]]:
    """Load all weights, and check that none is missing or left over.

    transformers would only warn, fill a missing one with noise, and compute with what is left of another model.

    Returns:
        The model, and the names of missing weights that no embedding needs.
    """
    import transformers

    model_class = getattr(transformers, family.model, None)
    if model_class is None:
        raise EncoderError(
            f"{folder}: transformers {transformers.__version__} has no {family.model}; install a newer version"
        )
    try:
        with quiet():  # its report of unused weights: they are refused or harmless below
            model, info = model_class.from_pretrained(str(folder), local_files_only=True, output_loading_info=True)
    except Exception as error:  # OSError, ValueError, SafetensorError, errors of pickle, ...
        raise EncoderError(f"{folder} cannot be loaded with transformers: {error}; fetch the model again") from error
    missing = {str(name) for name in info["missing_keys"]}
    needed = [*_others(missing, family.absent), *sorted(str(item) for item in info["mismatched_keys"])]
    if needed:
        raise EncoderError(
            f"{folder}: {len(needed)} weights are missing or have another shape ({_listed(needed)}); "
            "fetch the model again"
        )
    unused = _others(info["unexpected_keys"], (*_BUFFERS, *family.unused))
    if unused:
        raise EncoderError(
            f"{folder}: {len(unused)} weights do not belong to the model that config.json describes "
            f"({_listed(unused)}): it would be computed without them. Fetch config.json and the weights from one "
            "source; merge an adapter into the weights first"
        )
    return model, missing


def _image_tower(model: Any, *, family: Family) -> TorchTower:
    if family.embed is not None:
        embed = family.embed
        return TorchTower(model, lambda pixels: embed(model(pixel_values=pixels)))
    if family.patches:
        return TorchTower(
            model,
            lambda patches, mask, grids: model.get_image_features(
                pixel_values=patches, pixel_attention_mask=mask, spatial_shapes=grids
            ),
        )
    return TorchTower(model, lambda pixels: model.get_image_features(pixel_values=pixels))


def _text_tower(model: Any, *, family: Family) -> TorchTower:
    if family.mask:
        return TorchTower(model, lambda ids, mask: model.get_text_features(input_ids=ids, attention_mask=mask))
    return TorchTower(model, lambda ids: model.get_text_features(input_ids=ids))


def _token_inputs(texts: Sequence[str], tokenizer: TextTokenizer | None, *, family: Family) -> Inputs:
    assert tokenizer is not None
    length = tokenizer.context_tokens if family.pad_to_context else None
    ids, mask = tokenizer.pad(tokenizer.encode(texts), length=length)  # (T, L)
    return [ids, mask] if family.mask else [ids]


def _context_tokens(model: Any) -> int:
    """Read the longest input of the text tower; RoBERTa's positions begin after the padding token's id."""
    positions = int(model.config.text_config.max_position_embeddings)
    for name, module in model.text_model.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            return positions - int(module.padding_idx) - 1
    return positions


def _described(tokenizer: TextTokenizer) -> dict[str, Any]:
    return {
        "clean": tokenizer.clean,
        "pad": [tokenizer.pad_id, tokenizer.pad_left],
        "tokenizer": blake2b_hex(tokenizer.tokenizer.to_str()),
    }


def _others(names: Iterable[Any], patterns: Sequence[str]) -> list[str]:
    """List the names that no pattern matches."""
    return sorted(str(name) for name in names if not any(re.search(pattern, str(name)) for pattern in patterns))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
