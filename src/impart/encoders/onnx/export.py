"""Export `hf:` models to the ONNX layout of `onnx:`, as float32 and int8, and check each against the torch model.

    DIR/             float32: `load_encoder("onnx:DIR")`
        config.json
        visual/      model.onnx, preprocess_cfg.json
        textual/     model.onnx, tokenizer.json, tokenizer_config.json
    DIR/int8/        the same layout with 8-bit MatMul and Gemm weights: `load_encoder("onnx:DIR/int8")`

Convolutions (the patch embedding) stay float32: they are a small part of the computation, and int8 costs most accuracy
there.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from impart.encoders.base import Encoder
from impart.encoders.onnx.encoder import load_onnx
from impart.errors import EncoderError, MissingExtraError
from impart.files import make_folder, write_json_atomic

__all__ = ["FP32", "INT8", "Bounds", "Parity", "export_hf", "parity"]


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Disagreement up to which an export is accepted.

    Attributes:
        cosine: lowest cosine between the vectors of the export and of the torch model.
        logits: largest difference between their logits, as a share of the logit scale.
    """

    cosine: float
    logits: float


FP32 = Bounds(cosine=0.9999, logits=0.01)
INT8 = Bounds(cosine=0.98, logits=0.1)

_SENTENCES = (
    "a photo of a dog",
    "two people riding bicycles along the beach at sunset",
    "Red!",
    "",
    "a very long sentence that goes on and on " * 12,
)


@dataclass(frozen=True, kw_only=True)
class Parity:
    """Agreement of an exported model with the torch model, over test images and test texts.

    Attributes:
        folder: of the export.
        image_cosine: lowest cosine over the images.
        text_cosine: lowest cosine over the texts.
        logits: largest difference between the logits (scaled cosines and bias) of images and texts.
    """

    folder: Path
    image_cosine: float
    text_cosine: float
    logits: float


def export_hf(
    name: str, folder: Path, *, int8: bool = True, report: Callable[[str], None] = lambda _: None
) -> list[Parity]:
    """Export a transformers model to the ONNX layout, and check it.

    Args:
        name: folder or hub repository, as after `hf:`.
        folder: target; existing models there are replaced.
        int8: also write `folder/int8`.
        report: called with one line of progress per step.

    Returns:
        Measured agreement of each written model.

    Raises:
        EncoderError: the model cannot be exported, or an export does not agree with it.
        MissingExtraError: torch, transformers or onnx is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(error.name or "onnx", extra="torch", purpose="export to ONNX") from error
    from impart.encoders.hf.encoder import load_hf
    from impart.encoders.torch_towers import write_graph

    encoder = load_hf(name, device="cpu")
    if encoder.text_tower is None or encoder.preprocess_config is None:
        kind = "an image model" if encoder.text_tower is None else "a NaFlex model, whose images become patches"
        raise EncoderError(f"{encoder.traits.id} is {kind}: only two-tower models with square input are exported")
    for side, place in (("image", "visual"), ("text", "textual")):
        report(f"writing {place}/model.onnx")
        write_graph(encoder, folder / place / "model.onnx", side=side)
    _write_descriptions(encoder, folder)
    measured = [_checked(encoder, folder, bounds=FP32, report=report)]
    if int8:
        for place in ("visual", "textual"):
            report(f"writing int8/{place}/model.onnx")
            _quantise(folder / place / "model.onnx", folder / "int8" / place / "model.onnx")
        _write_descriptions(encoder, folder / "int8")
        measured.append(_checked(encoder, folder / "int8", bounds=INT8, report=report))
    return measured


def parity(original: Encoder, exported: Encoder, *, folder: Path) -> Parity:
    """Compare the vectors and the logits of two encoders, over the same test images and texts."""
    samples = _images(original.traits.image_size_px)
    images = [encoder.encode_images(samples).embeddings for encoder in (original, exported)]  # (B, D)
    texts = [encoder.encode_texts(_SENTENCES) for encoder in (original, exported)]  # (T, D)
    logits = [
        encoder.traits.logit_scale * (rows @ columns.T) + encoder.traits.logit_bias  # (B, T)
        for encoder, rows, columns in zip((original, exported), images, texts, strict=True)
    ]
    return Parity(
        folder=folder,
        image_cosine=float((images[0] * images[1]).sum(axis=1).min()),
        text_cosine=float((texts[0] * texts[1]).sum(axis=1).min()),
        logits=float(np.abs(logits[0] - logits[1]).max()),
    )


def _checked(encoder: Encoder, folder: Path, *, bounds: Bounds, report: Callable[[str], None]) -> Parity:
    report(f"checking {folder} against the original")
    measured = parity(encoder, load_onnx(str(folder)), folder=folder)
    highest = bounds.logits * encoder.traits.logit_scale
    if not (min(measured.image_cosine, measured.text_cosine) > bounds.cosine and measured.logits < highest):
        remedy = " (the float32 export agrees: pass --no-int8)" if bounds is INT8 else ""
        raise EncoderError(
            f"the export in {folder} does not agree with {encoder.traits.id}: the lowest cosine is "
            f"{measured.image_cosine:.5f} for images and {measured.text_cosine:.5f} for texts, but must be above "
            f"{bounds.cosine}; logits differ by {measured.logits:.3f}, but may differ by {highest:.3f}; "
            f"do not use it{remedy}"
        )
    return measured


def _write_descriptions(encoder: Any, folder: Path) -> None:
    traits, tokenizer = encoder.traits, encoder.tokenizer
    make_folder(folder / "textual")
    make_folder(folder / "visual")
    tokenizer.tokenizer.save(str(folder / "textual" / "tokenizer.json"))
    pad_token = tokenizer.tokenizer.id_to_token(tokenizer.pad_id)
    side = "left" if tokenizer.pad_left else "right"
    _write_json(folder / "textual" / "tokenizer_config.json", {"pad_token": pad_token, "padding_side": side})
    _write_json(folder / "visual" / "preprocess_cfg.json", encoder.preprocess_config.to_dict())
    _write_json(
        folder / "config.json",
        {
            "embed_dim": traits.dim,
            "vision_cfg": {"image_size": traits.image_size_px},
            "text_cfg": {"context_length": traits.context_tokens, "tokenizer_kwargs": {"clean": tokenizer.clean}},
            "logit_scale": traits.logit_scale,
            "logit_bias": traits.logit_bias,
            "exported_from": traits.id,
        },
    )


def _quantise(source: Path, target: Path) -> None:
    """Quantise weights of MatMul and Gemm to int8, one scale per column; activations are quantised at run time."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from impart.encoders.torch_towers import quiet

    make_folder(target.parent)
    external = source.with_name(source.name + ".data").is_file()
    try:
        with quiet():
            quantize_dynamic(
                str(source),
                str(target),
                op_types_to_quantize=["MatMul", "Gemm"],
                weight_type=QuantType.QInt8,
                per_channel=True,
                # 7 bits: on processors without VNNI, sums of 8-bit products saturate silently.
                reduce_range=True,
                use_external_data_format=external,
            )
    except Exception as error:  # exceptions of onnx and onnxruntime have no common base class
        shutil.rmtree(target.parent, ignore_errors=True)
        raise EncoderError(f"{source} cannot be quantised to int8 ({error}); pass --no-int8") from error


def _images(size_px: int) -> list[npt.NDArray[np.uint8]]:
    """Draw test images of several shapes and spectra, equal on every machine: noise, smooth colour fields, edges."""
    rng = np.random.default_rng(0)
    down, across = np.mgrid[0 : 2 * size_px, 0 : 3 * size_px] / size_px  # (2S, 3S)
    waves = np.stack([np.sin(down * speed + across * (4 - speed)) for speed in (1, 2, 5)], axis=-1)
    checks = ((np.floor(down * 8) + np.floor(across * 8)) % 2)[..., None] * np.array([255, 120, 30])
    noise = rng.integers(0, 256, (size_px + 7, size_px, 3))
    flat = np.full((size_px, size_px, 3), 128)
    return [image.astype(np.uint8) for image in (noise, waves * 127 + 128, checks, flat)]


def _write_json(path: Path, values: dict[str, Any]) -> None:
    write_json_atomic(path, values, ascii_only=True)
