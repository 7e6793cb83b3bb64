"""Encoders: images and texts to unit vectors. A backend is imported when a model id first names it."""

from __future__ import annotations

from typing import Any

from impart.encoders.base import (
    Encoder,
    EncoderTraits,
    ImageEmbeddings,
    ImageInput,
    l2_normalise,
    load_encoder,
    register,
)

__all__ = [
    "Encoder",
    "EncoderTraits",
    "ImageEmbeddings",
    "ImageInput",
    "l2_normalise",
    "load_encoder",
    "register",
]


def _mini(rest: str, **options: Any) -> Encoder:
    from impart.encoders.onnx.encoder import load_mini

    return load_mini(rest, **options)


def _onnx(rest: str, **options: Any) -> Encoder:
    from impart.encoders.onnx.encoder import load_onnx

    return load_onnx(rest, **options)


def _hf(rest: str, **options: Any) -> Encoder:
    from impart.encoders.hf.encoder import load_hf

    return load_hf(rest, **options)


def _open_clip(rest: str, **options: Any) -> Encoder:
    from impart.encoders.open_clip import load_open_clip

    return load_open_clip(rest, **options)


def _paired(rest: str, **options: Any) -> Encoder:
    from impart.encoders.paired import load_paired

    return load_paired(rest, **options)


def _projected(rest: str, **options: Any) -> Encoder:
    from impart.encoders.projected import load_projected

    return load_projected(rest, **options)


register("mini", _mini)
register("onnx", _onnx)
register("hf", _hf)
register("open_clip", _open_clip)
register("paired", _paired)
register("projected", _projected)
