"""`hf:<folder or hub repo>`: CLIP and SigLIP models of transformers, with the preprocessing and tokenizers of IMPART.

A mistake in these makes embeddings silently wrong, so they are read from the model's own files and checked: the
activation (QuickGELU or GELU, read by transformers from `hidden_act`), the normalisation, the text cleaning, the
padding, and that no weight is missing.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from impart.encoders.base import EncoderTraits
from impart.encoders.hub import HF_FILES, has_weights, resolve
from impart.encoders.onnx.encoder import hash_files
from impart.encoders.preprocess import PreprocessConfig
from impart.encoders.tokens import TextTokenizer, read_json
from impart.encoders.torch_towers import TorchEncoder, TorchTower
from impart.errors import ConfigError, EncoderError, MissingExtraError
from impart.files import blake2b_hex

__all__ = ["load_hf"]


@dataclass(frozen=True, kw_only=True)
class _Family:
    """Properties of a kind of model that its transformers config does not have.

    Attributes:
        model: class name in transformers.
        pad_to_context: pad texts to the length of training, since the text tower attends to padding (SigLIP has neither
            a mask nor causal attention); else pad to the longest text of the batch.
        clean: text cleaning, where the tokenizer class has none.
        dim: reads D from the model's config.
    """

    model: str
    pad_to_context: bool
    clean: str
    dim: Callable[[Any], int]


_FAMILIES = {
    "clip": _Family(
        model="CLIPModel", pad_to_context=False, clean="whitespace", dim=lambda config: int(config.projection_dim)
    ),
    "siglip": _Family(
        model="SiglipModel",
        pad_to_context=True,
        clean="canonicalize",
        dim=lambda config: int(config.text_config.projection_size),
    ),
}

_CLEAN_BY_TOKENIZER = {
    "CLIPTokenizer": "whitespace",
    "SiglipTokenizer": "canonicalize",
    "Siglip2Tokenizer": "lower",
    "GemmaTokenizer": "lower",  # the fixed-size SigLIP 2 models: model_type "siglip" with Gemma's tokenizer
    "PreTrainedTokenizer": "whitespace",
    "TokenizersBackend": "whitespace",
}
"""Cleaning of transformers' tokenizer classes, which `tokenizer.json` does not include."""


def load_hf(rest: str, *, device: str = "auto", dtype: str = "float32", threads: int = 0) -> TorchEncoder:
    """Load a CLIP or SigLIP model in the format of transformers.

    Args:
        rest: a folder or a hub repository.
        device: `auto` (CUDA, else MPS, else CPU) or a torch device.
        dtype: `float32`, `float16` or `bfloat16`.
        threads: CPU threads; 0 = the default of torch.

    Raises:
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
    config = read_json(folder / "config.json")
    family = _FAMILIES.get(config.get("model_type", ""))
    if family is None:
        raise EncoderError(
            f"{folder / 'config.json'}: model type {config.get('model_type')!r} is unknown: use "
            f"{' or '.join(_FAMILIES)}, or register a loader with impart.encoders.register"
        )
    preprocess_config = _preprocess(folder)
    model = _model(getattr(transformers, family.model), folder)
    size_px = model.config.vision_config.image_size
    if size_px != preprocess_config.size_px:
        raise EncoderError(
            f"{folder}: the image tower takes {size_px} px, but the image processor returns "
            f"{preprocess_config.size_px} px; the files do not belong together: fetch the model again"
        )
    context_tokens = int(model.config.text_config.max_position_embeddings)
    tokenizer = _tokenizer(folder, family=family, context_tokens=context_tokens)
    length = context_tokens if family.pad_to_context else None
    dim = family.dim(model.config)
    return TorchEncoder(
        traits=EncoderTraits(
            id=f"hf:{folder}" if Path(rest).expanduser().is_dir() else f"hf:{rest}",
            dim=dim,
            retrieval_dim=dim,
            own_retrieval=False,
            image_size_px=size_px,
            context_tokens=context_tokens,
            logit_scale=float(model.logit_scale.detach().float().exp()),
            logit_bias=float(model.logit_bias.detach()) if hasattr(model, "logit_bias") else 0.0,
        ),
        image_tower=TorchTower(model, lambda pixels: model.get_image_features(pixel_values=pixels)),
        text_tower=TorchTower(model, lambda ids: model.get_text_features(input_ids=ids)),
        tokenize=lambda texts: tokenizer.pad(tokenizer.encode(texts), length=length)[0],
        tokenizer=tokenizer,
        preprocess_config=preprocess_config,
        fingerprint=lambda: hash_files(
            [*has_weights(folder), folder / "config.json"],
            settings={
                "preprocess": preprocess_config.to_dict(),
                "clean": tokenizer.clean,
                "pad": [tokenizer.pad_id, tokenizer.pad_left],
                "tokenizer": blake2b_hex(tokenizer.tokenizer.to_str()),
                "dtype": dtype,
            },
        ),
        device=device,
        dtype=dtype,
        threads=threads,
    )


def _preprocess(folder: Path) -> PreprocessConfig:
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (folder / name).is_file():
            try:
                return PreprocessConfig.from_transformers(read_json(folder / name))
            except ConfigError as error:
                raise EncoderError(f"{folder / name}: {error}") from error
    raise EncoderError(
        f"{folder / 'preprocessor_config.json'} is missing: without the model's size and normalisation the "
        "embeddings would be silently wrong; copy the file from the source of the model"
    )


def _model(model_class: Any, folder: Path) -> Any:
    """Load all weights, and check that none is missing: transformers would only warn and fill it with noise."""
    try:
        model, info = model_class.from_pretrained(str(folder), local_files_only=True, output_loading_info=True)
    except Exception as error:  # OSError, ValueError, SafetensorError, errors of pickle, ...
        raise EncoderError(f"{folder} cannot be loaded with transformers: {error}; fetch the model again") from error
    missing = sorted({*info["missing_keys"], *(str(item) for item in info["mismatched_keys"])})
    if missing:
        raise EncoderError(
            f"{folder}: {len(missing)} weights are missing or have another shape ({', '.join(missing[:3])}, ...); "
            "fetch the model again"
        )
    return model


def _tokenizer(folder: Path, *, family: _Family, context_tokens: int) -> TextTokenizer:
    """Read `tokenizer.json`, else the older files of CLIP through transformers."""
    clean = family.clean
    if (folder / "tokenizer_config.json").is_file():
        kind = str(read_json(folder / "tokenizer_config.json").get("tokenizer_class", "")).removesuffix("Fast")
        clean = _CLEAN_BY_TOKENIZER.get(kind, clean)
    if (folder / "tokenizer.json").is_file():
        tokenizer = TextTokenizer.from_folder(folder, context_tokens=context_tokens, clean=clean)
        # Texts that are padded to the longest of their batch must begin at the first position.
        return tokenizer if family.pad_to_context else dataclasses.replace(tokenizer, pad_left=False)
    import transformers

    try:
        slow = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        backend = slow.backend_tokenizer
    except Exception as error:  # the type depends on what is missing
        raise EncoderError(
            f"{folder / 'tokenizer.json'} is missing, and the other files give no tokenizer ({error}); "
            "fetch the model again, or save a fast tokenizer there with transformers"
        ) from error
    backend.no_padding()
    backend.enable_truncation(max_length=context_tokens)
    return TextTokenizer(tokenizer=backend, context_tokens=context_tokens, pad_id=int(slow.pad_token_id), clean=clean)
