"""`open_clip:<model>/<tag>`: models of open_clip, where it is installed, with the preprocessing of IMPART."""

from __future__ import annotations

import json
import warnings
from typing import Any

from impart.encoders.base import EncoderTraits
from impart.encoders.preprocess import PreprocessConfig, preprocess
from impart.encoders.torch_towers import TorchEncoder, TorchTower, hash_weights
from impart.errors import ConfigError, EncoderError, EncoderNotFoundError, MissingExtraError

__all__ = ["load_open_clip"]


def load_open_clip(rest: str, *, device: str = "auto", dtype: str = "float32", threads: int = 0) -> TorchEncoder:
    """Load a model of open_clip.

    Args:
        rest: `ViT-B-32/laion2b_s34b_b79k`; a model with a checkpoint file (`ViT-B-32//path/to/weights.pt`); or an id of
            open_clip: `hf-hub:org/name`, `local-dir:/path`.
        device: `auto` (CUDA, else MPS, else CPU) or a torch device.
        dtype: `float32`, `float16` or `bfloat16`.
        threads: CPU threads; 0 = the default of torch.

    Raises:
        ConfigError: there is no such device.
        MissingExtraError: open_clip is not installed.
        EncoderNotFoundError: the id has no tag.
        EncoderError: the model cannot be loaded, or its activation does not match the weights.
    """
    open_clip = _import()
    own_scheme = rest.startswith(("hf-hub:", "local-dir:"))
    name, _, tag = (rest, "", "") if own_scheme else rest.partition("/")
    if not own_scheme and not tag:
        raise EncoderNotFoundError(
            f"'open_clip:{rest}' does not name weights: write 'open_clip:<model>/<tag>', as in "
            "'open_clip:ViT-B-32/laion2b_s34b_b79k'; open_clip.list_pretrained() lists them"
        )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model = open_clip.create_model(name, pretrained=tag or None, require_pretrained=True)
            tokenizer = open_clip.get_tokenizer(name)
            preprocess_config = PreprocessConfig.from_dict(open_clip.get_model_preprocess_cfg(model))
        except ConfigError as error:
            raise EncoderError(f"open_clip:{rest}: {error}") from error
        except Exception as error:  # RuntimeError for an unknown name, errors of the hub and of torch, ...
            raise EncoderError(
                f"open_clip cannot load {rest!r} ({error}); open_clip.list_pretrained() lists models and tags"
            ) from error
    for warning in caught:
        if "QuickGELU mismatch" in str(warning.message):
            raise EncoderError(
                f"open_clip:{rest}: {warning.message} The embeddings would be silently wrong; use "
                f"'open_clip:{name.removesuffix('-quickgelu')}-quickgelu/{tag}', or the name without -quickgelu"
            )
    dim = int(getattr(model, "embed_dim", 0) or open_clip.get_model_config(name)["embed_dim"])
    settings = json.dumps({"preprocess": preprocess_config.to_dict(), "dtype": dtype, "model": rest}, sort_keys=True)
    image_tower = TorchTower(model, model.encode_image)
    text_tower = TorchTower(model, model.encode_text)
    return TorchEncoder(
        traits=EncoderTraits(
            id=f"open_clip:{rest}",
            dim=dim,
            retrieval_dim=dim,
            own_retrieval=False,
            image_size_px=preprocess_config.size_px,
            context_tokens=int(tokenizer.context_length),
            logit_scale=float(model.logit_scale.detach().float().exp()),
            logit_bias=float(bias.detach()) if (bias := getattr(model, "logit_bias", None)) is not None else 0.0,
        ),
        image_tower=image_tower,
        prepare=lambda images: [preprocess(images, preprocess_config)],
        text_tower=text_tower,
        tokenize=lambda texts: [tokenizer(list(texts)).numpy()],
        preprocess_config=preprocess_config,
        fingerprint=lambda: hash_weights(model, settings=settings),
        device=device,
        dtype=dtype,
        threads=threads,
    )


def _import() -> Any:
    try:
        import open_clip
    except ImportError as error:
        raise MissingExtraError("open_clip", extra="open-clip", purpose="an 'open_clip:' model") from error
    except RuntimeError as error:  # torchvision was built for another torch
        raise EncoderError(
            f"open_clip cannot be imported ({error}); install the torchvision of the installed torch version"
        ) from error
    return open_clip
